"""Options of the order of training windows."""

from dataclasses import dataclass
from typing import Literal

from pgti.errors import ConfigError, require_whole_number
from pgti.options import convert_fields

__all__ = ["AutoOrder", "BlocksOrder", "GlobalOrder", "PartitionsOrder"]

_MOST_PARTITIONS = 1 << 16  # each is shuffled by itself; ranks are fewer


@dataclass(frozen=True, kw_only=True, slots=True)
class AutoOrder:
    """partitions for a partitioned placement, global otherwise."""

    kind: Literal["auto"] = "auto"


@dataclass(frozen=True, kw_only=True, slots=True)
class GlobalOrder:
    """Shuffle all windows of an epoch."""

    kind: Literal["global"] = "global"


@dataclass(frozen=True, kw_only=True, slots=True)
class BlocksOrder:
    """Shuffle blocks of consecutive windows: fewer rows to read, slightly noisier gradients.

    Attributes:
        block_size: Consecutive windows in a block. 8 by default.
    """

    kind: Literal["blocks"] = "blocks"
    block_size: int = 8

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("block_size", self.block_size, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class PartitionsOrder:
    """Shuffle blocks within parts of the series, and take windows of all parts in every batch.

    Attributes:
        partitions: Parts of the series, at least as many as ranks.
        rotation: Fraction of each part that moves to the neighbouring part every epoch.
        block_size: Consecutive windows in a block. By default the windows that a batch takes of
            each part.
    """

    kind: Literal["partitions"] = "partitions"
    partitions: int = 16
    rotation: float = 0.125
    block_size: int | None = None

    def __post_init__(self) -> None:
        convert_fields(self)
        require_whole_number("partitions", self.partitions, 1)
        if self.partitions > _MOST_PARTITIONS:
            raise ConfigError(
                f"partitions is {self.partitions}: it must be at most {_MOST_PARTITIONS}"
            )
        if not 0 <= self.rotation <= 1:
            raise ConfigError(f"rotation is {self.rotation!r}: it must lie between 0 and 1")
        if self.block_size is not None:
            require_whole_number("block_size", self.block_size, 1)
