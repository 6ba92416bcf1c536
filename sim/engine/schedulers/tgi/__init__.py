"""Hugging Face Text Generation Inference, v3 and v2."""

from sim.engine.schedulers.tgi import batching as _batching  # noqa: F401 - attaches the compiled functions
