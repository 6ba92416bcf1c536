"""Options that several studies share, each declared once."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

from sim.config.base import Count


def share(value: object) -> object:
    """``2%`` → 0.02; a plain number stays. Raises ValueError."""
    if isinstance(value, str):
        match = re.match(r"^\s*([\d.]+)\s*(%?)\s*$", value)
        if not match:
            raise ValueError("must be a share such as 2% or 0.02")
        return float(match[1]) / (100.0 if match[2] else 1.0)
    return value


Replications = Annotated[
    Count, Field(description="runs of each deployment, each under other random numbers", json_schema_extra={"option": "-r"})
]
Precision = Annotated[
    Annotated[float, BeforeValidator(share), Field(gt=0, lt=1)] | None,
    Field(
        description="repeat until every interval is within so much of its value, e.g. 2%", json_schema_extra={"metavar": "SHARE"}
    ),
]
Confidence = Annotated[
    float,
    BeforeValidator(share),
    Field(gt=0.5, lt=1, description="level of every interval", json_schema_extra={"metavar": "SHARE", "shown": "95%"}),
]
