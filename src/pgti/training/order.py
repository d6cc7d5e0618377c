"""The order of the training windows that the options name."""

from pgti.training.config import TrainingConfig
from pgti.windows import BlockShuffle, GlobalShuffle, Order, PartitionShuffle

__all__ = ["order_of"]


def order_of(training: TrainingConfig) -> Order:
    """The order of the training windows; `auto`, which the placement decides, is global here."""
    if training.order == "partitions":
        return PartitionShuffle(
            training.seed, training.partitions, training.block_size, training.rotation
        )
    if training.order == "blocks":
        return BlockShuffle(training.seed, training.block_size)
    return GlobalShuffle(training.seed)
