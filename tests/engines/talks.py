"""Talks whose turns come back for the KV of those before: what tests of tiers run."""


def talks(requests: int) -> str:
    """Model and traffic of a scenario: so many ``requests`` in sessions of four turns."""
    return f"""
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {{process: poisson, rate: 4/s}}
    lengths: {{kind: lognormal, prompt_tokens: {{mean: 400, cv: 0.5}}, output_tokens: {{mean: 40, cv: 0.5}}}}
    sessions: {{turns: 4, think_time: 15s, max_context: 8000}}
    requests: {requests}
"""
