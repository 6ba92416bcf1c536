"""What a policy may read of requests: columns of a block of them, as the traffic made it. Read only; it is the fleet's."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Requests(Protocol):
    """A run of requests in order of arrival; every column [n]. `sim.workload.table.RequestBlock` says what each one is."""

    @property
    def arrival_s(self) -> NDArray[np.float64]:
        """Seconds from the start of the traffic."""

    @property
    def prompt_tokens(self) -> NDArray[np.int32]:
        """Length of each prompt."""

    @property
    def output_tokens(self) -> NDArray[np.int32]:
        """Tokens that will be generated: only for a policy that is said to know."""

    @property
    def max_tokens(self) -> NDArray[np.int32]:
        """The client's limit."""

    @property
    def priority(self) -> NDArray[np.int32]:
        """As the engine reads it."""

    @property
    def session(self) -> NDArray[np.int64]:
        """−1: none."""

    @property
    def lora(self) -> NDArray[np.int32]:
        """0: the base model."""

    @property
    def klass(self) -> NDArray[np.int32]:
        """Class of clients."""

    @property
    def tenant(self) -> NDArray[np.int32]:
        """0: none."""

    @property
    def span_off(self) -> NDArray[np.int64]:
        """[n+1]: where the spans of each prompt begin."""

    @property
    def span_id(self) -> NDArray[np.int64]:
        """Content of each span."""

    @property
    def span_start(self) -> NDArray[np.int64]:
        """Where in its content a span begins."""

    @property
    def span_len(self) -> NDArray[np.int64]:
        """Tokens of each span."""

    def __len__(self) -> int: ...
