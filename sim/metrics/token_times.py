"""When the tokens of each request came, where a run recorded it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sim.ledger import FINISHED
from sim.ledger import Values as Array

_CLOSE = 1e-9


@dataclass(frozen=True)
class TokenTimes:
    """``at`` f8[k]: when each chunk of tokens came (s, engines' clocks), ``row`` i8[k]: the row of its request; in order of both."""

    row: Array
    at: Array

    def gaps(self, columns: Mapping[str, Array]) -> list[Array]:
        """For every request the gaps between the chunks that its client saw, in order, in s; empty for those that did not finish.

        Where roles are apart a client does not see the token of the prefill side if the decode side makes it again: the first one it sees
        came as long before the last one as the request's columns say.
        """
        bounds = np.searchsorted(self.row, np.arange(len(columns["id"]) + 1))
        decode = columns["finish_s"] - columns["first_token_s"]
        out = [np.zeros(0)] * len(decode)
        for i in np.flatnonzero((columns["status"] == FINISHED) & (np.diff(bounds) > 0)):
            at = self.at[bounds[i] : bounds[i + 1]]
            out[i] = np.diff(at[at[-1] - at <= decode[i] + _CLOSE])
        return out


def by_request(found: Sequence[tuple[Array, Array]], ids: Array) -> TokenTimes | None:
    """What pools wrote down as times of the rows with these sorted ids; None: nothing was asked for.

    A token that one engine has computed and another one took over is written down by both, at one time: it counts once.
    """
    if not found:
        return None
    row = np.searchsorted(ids, np.concatenate([one for one, _ in found]))
    at = np.concatenate([at for _, at in found])
    order = np.lexsort((at, row))
    row, at = row[order], at[order]
    fresh = np.concatenate([[True], (np.diff(row) != 0) | (np.diff(at) != 0)])[: len(row)]
    return TokenTimes(row[fresh], at[fresh])
