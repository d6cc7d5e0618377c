"""The order of the training windows that the options name."""

from pgti.training.config import TrainingConfig
from pgti.windows import BlockShuffle, GlobalShuffle, Order, PartitionShuffle

__all__ = ["order_of"]


def order_of(training: TrainingConfig) -> Order:
    """The order of the training windows; `auto`, which the placement decides, is global here."""
    block_size = training.block_size or training.default_block_size
    if training.order == "partitions":
        return PartitionShuffle(training.seed, training.partitions, block_size, training.rotation)
    if training.order == "blocks":
        return BlockShuffle(training.seed, block_size)
    return GlobalShuffle(training.seed)
