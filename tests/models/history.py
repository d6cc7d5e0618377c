"""Histories with which models are tested: rows, sizes and made readings."""

import torch
from torch import Tensor

from pgti.models import ModelShape

from .small_models import (
    BATCH,
    CHANNELS,
    FLOAT64,
    HORIZON,
    INPUT_STEPS,
    NUM_NODES,
    STEPS_PER_DAY,
    shape,
)

SPAN = (range(-36, 0),)
"""Two days before the origin: whole rows that adjoin the window."""

DAYS = tuple(
    range(-day * STEPS_PER_DAY, -day * STEPS_PER_DAY + INPUT_STEPS + HORIZON) for day in (3, 2, 1)
)
"""The same hours of three days, and those of the horizon."""


def history_shape(rows: tuple[range, ...], **changes: object) -> ModelShape:
    """The sizes of `small_models.shape` with these rows of history of the three readings."""
    return shape(history=rows, history_channels=CHANNELS - 2, **changes)


def history_inputs(sizes: ModelShape, dtype: torch.dtype = FLOAT64) -> Tensor:
    """[B, R, N, C] standard normal readings."""
    generator = torch.Generator().manual_seed(6)
    size = (BATCH, sizes.history_steps, NUM_NODES, sizes.history_channels)
    return torch.randn(*size, generator=generator, dtype=FLOAT64).to(dtype)
