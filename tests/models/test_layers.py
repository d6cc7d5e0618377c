"""Calendar features as positions in a table."""

import numpy as np
import pytest
import torch

from pgti.models.layers import day_index, step_index
from pgti.store import TimeAxis

from .small_models import shape


@pytest.mark.parametrize("interval", [1, 50, 60, 300, 3600])
@pytest.mark.parametrize("offset_share", [0, 0.5, 0.98, 0.9998])
def test_every_row_of_a_day_has_a_place_of_its_own(interval: int, offset_share: float) -> None:
    """That of the interval it lies in, wherever in the interval its time is."""
    steps = 86400 // interval
    rows = np.arange(2 * steps)
    axis = TimeAxis(
        num_steps=len(rows),
        start_seconds=1_759_276_800 + int(offset_share * interval),  # 1 October 2025
        interval_seconds=interval,
    )
    sizes = shape(num_nodes=1, input_channels=3, target_channels=1, target_indices=(0,),
                  steps_per_day=steps)  # fmt: skip
    x = torch.zeros(1, len(rows), 1, 3)
    x[0, :, 0, 1] = torch.from_numpy(axis.time_of_day(rows))
    x[0, :, 0, 2] = torch.from_numpy(axis.day_of_week(rows).astype(np.float32) / 7)
    places, days = step_index(x, sizes), day_index(x, sizes)
    assert places is not None
    assert days is not None
    assert places[0].tolist() == [*range(steps), *range(steps)]
    assert days[0].tolist() == [2] * steps + [3] * steps  # a Wednesday
