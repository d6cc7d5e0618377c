"""What this rank has sent to others, by kind."""

from typing import Literal, get_args

__all__ = ["KINDS", "Kind", "TrafficCounter"]

Kind = Literal["data", "gradients", "counts", "metrics", "control"]
KINDS: tuple[Kind, ...] = get_args(Kind)


class TrafficCounter:
    """Bytes that this rank has handed over to be sent, counted where they are handed over.

    `data` are rows of the series; `gradients`, `counts` (observed targets) and `metrics` (sums of
    losses and errors) are what exact training reduces; `control` is the rest: whether to stop,
    parameters at the beginning, texts. A message to one rank counts its bytes; a collective counts
    the bytes of this rank's contribution once, whatever the algorithm below makes of it (a ring of
    W ranks sends them 2 (W - 1) / W times).
    """

    def __init__(self) -> None:
        self._bytes: dict[Kind, int] = dict.fromkeys(KINDS, 0)

    def add(self, kind: Kind, num_bytes: int) -> None:
        """Count bytes that are sent."""
        self._bytes[kind] += num_bytes

    @property
    def sent_bytes(self) -> dict[str, int]:
        """Bytes so far, by kind."""
        return {kind: self._bytes[kind] for kind in KINDS}

    def since(self, before: dict[str, int]) -> dict[str, int]:
        """Bytes since an earlier `sent_bytes`, by kind."""
        return {kind: self._bytes[kind] - before[kind] for kind in KINDS}
