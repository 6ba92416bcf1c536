"""The modelled families: one file each in `sim.model.family`, which says what a ``config.json`` leaves unsaid.

A file declares ``FAMILIES``: model_type → `Family`. It is found by being there. *Source*: transformers,
``models/<model_type>/configuration_*.py`` and ``modeling_*.py`` (4.x and 5.0); vLLM and SGLang, ``models/``.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import MappingProxyType

from sim.model import family
from sim.model.base import Family


def _collect() -> Mapping[str, Family]:
    found: dict[str, Family] = {}
    for module in sorted(m.name for m in pkgutil.iter_modules(family.__path__)):
        here: Mapping[str, Family] = importlib.import_module(f"{family.__name__}.{module}").FAMILIES
        twice = found.keys() & here.keys()
        if twice:
            raise RuntimeError(f"{sorted(twice)} stand in more than one file of sim/model/family")
        found |= here
    return MappingProxyType(found)


FAMILIES: Mapping[str, Family] = _collect()
