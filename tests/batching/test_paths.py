"""Every path to a batch gives the bits of standard batching.

Decoded rows, stored rows, rows from disk, the resident series and the assembler of GPUs; window by
window and as a union; in pieces and pages of any size; in buffers that were used before.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pgti.batching import Batcher, WindowSource
from pgti.windows import WindowSpec, plan_rows

from .sources import (
    ENCODINGS,
    assert_same,
    decoded,
    make_source,
    request,
    resident,
    resident_on_a_gpu,
    standard,
    stored,
    stored_on_a_gpu,
)

NUM_STEPS = 90
SPEC = WindowSpec(input_steps=5, horizon=3)

Starts = NDArray[np.int64]


PATHS = (decoded, stored, stored_on_a_gpu, resident, resident_on_a_gpu)
MakeBatcher = Callable[..., Batcher[Any]]


def batches_of_starts() -> list[Starts]:
    """Of many sizes, so that buffers grow and are too large; apart, overlapping and repeated."""
    generator = np.random.default_rng(3)
    last = NUM_STEPS - SPEC.span
    return [
        np.array([17]),
        np.array([0, 30, 60, last]),
        np.arange(20),
        np.array([40, 41, 42, 10, 11, 12, 70, 71]),
        np.array([5, 5, 5, 5]),
        generator.permutation(last + 1),
        np.array([last, 0]),
        generator.integers(0, last + 1, 33),
        np.array([50, 49]),
    ]


@pytest.mark.parametrize(("grid", "exact"), ENCODINGS)
@pytest.mark.parametrize("missing", [0.0, 0.25])
@pytest.mark.parametrize("targets", [(0,), (2, 0), (0, 1, 2)])
@pytest.mark.parametrize(("climatology", "calendar"), [(False, ()), (True, ("time-of-day",))])
@pytest.mark.parametrize("path", PATHS)
def test_a_path_equals_standard(
    tmp_path: Path,
    path: MakeBatcher,
    grid: bool,
    exact: bool,
    missing: float,
    targets: tuple[int, ...],
    climatology: bool,
    calendar: tuple[str, ...],
) -> None:
    """Whatever a window holds, batch after batch from the same batcher."""
    source = make_source(
        tmp_path / "s",
        (NUM_STEPS, 4, 3),
        SPEC,
        grid=grid,
        exact=exact,
        missing=missing,
        targets=targets,
        calendar=calendar,
        climatology=climatology,
    )
    batcher, oracle = path(source), standard(source)
    for starts in batches_of_starts():
        assert_same(batcher.gather(starts), oracle.gather(starts))


def test_the_batches_above_take_both_ways() -> None:
    """Some of them read a union of rows, others window by window."""
    ways = {
        plan_rows(starts, SPEC.row_offsets()).window_index is None for starts in batches_of_starts()
    }
    assert ways == {True, False}


@pytest.mark.parametrize("piece_readings", [1, 13, 100])
@pytest.mark.parametrize("page_rows", [1, 4, 7, 64])
@pytest.mark.parametrize("path", PATHS)
def test_pieces_and_pages_leave_no_seam(
    tmp_path: Path, path: MakeBatcher, page_rows: int, piece_readings: int
) -> None:
    """Where the work on a batch is cut changes nothing: within a window, or between windows."""
    source = make_source(
        tmp_path / "s", (NUM_STEPS, 3, 2), SPEC, missing=0.2, targets=(1,), climatology=True
    )
    batcher = path(source, page_rows=page_rows, piece_readings=piece_readings)
    oracle = standard(source)
    for starts in batches_of_starts():
        assert_same(batcher.gather(starts), oracle.gather(starts))


@pytest.mark.parametrize("missing", [0.0, 0.25])
@pytest.mark.parametrize(("grid", "exact"), ENCODINGS)
@pytest.mark.parametrize("path", PATHS)
def test_last_windows_without_targets(
    tmp_path: Path, path: MakeBatcher, grid: bool, exact: bool, missing: float
) -> None:
    """Inputs up to the end of the series, alone or together, between batches with targets."""
    source = make_source(
        tmp_path / "s",
        (NUM_STEPS, 4, 2),
        SPEC,
        grid=grid,
        exact=exact,
        missing=missing,
        climatology=True,
        fill="mean",
    )
    batcher, oracle = path(source), standard(source)
    last = NUM_STEPS - SPEC.input_steps
    for starts in (np.array([last]), np.arange(last - 9, last + 1), np.array([3, last, 60])):
        batch = batcher.gather(starts, with_targets=False)
        assert (batch.y, batch.y_mask) == (None, None)
        assert batch.calendar.shape == (len(starts), SPEC.span, 2)
        for position, start in enumerate(starts):
            # A window that ends with the series is the tail of one that began H rows before it.
            whole = oracle.gather(np.array([start - SPEC.horizon]))
            assert torch.equal(batch.x[position, : -SPEC.horizon], whole.x[0, SPEC.horizon :])
            assert torch.equal(
                batch.calendar[position, : -SPEC.horizon], whole.calendar[0, SPEC.horizon :]
            )
            assert whole.y is not None
            assert whole.y_mask is not None
            observed = batch.x_mask[position, -SPEC.horizon :, :, :1]
            assert torch.equal(observed, whole.y_mask[0])
            left = whole.y[0]
            if source.offsets is not None:
                left = (left - torch.from_numpy(source.offsets[:, :1])).float()
            scaled = (left - np.float32(source.scaler.mean[0])) / np.float32(source.scaler.std[0])
            expected = torch.where(observed, scaled, 0.0)
            tail = batch.x[position, -SPEC.horizon :, :, :1]
            torch.testing.assert_close(tail, expected, rtol=1e-6, atol=1e-6)
            assert torch.equal(batch.x[position, ..., 2:4], typical(source, start))
        within = np.array([7, 8])
        assert_same(batcher.gather(within), oracle.gather(within))


def typical(source: WindowSource, start: int) -> torch.Tensor:
    """The climatology's two channels of a window's inputs, [L, N, 2]."""
    assert source.typical is not None
    table = source.scaled_typical()
    assert table is not None
    rows = start + np.arange(SPEC.input_steps)
    week_bins = [
        source.typical.bins(source.store.time_axis, rows + ahead) for ahead in (0, SPEC.horizon)
    ]
    return torch.from_numpy(
        np.concatenate(
            [table[each][..., list(source.target_indices)] for each in week_bins], axis=-1
        )
    )


@pytest.mark.parametrize("path", PATHS)
def test_a_batch_lasts_until_the_next_one(tmp_path: Path, path: MakeBatcher) -> None:
    """Fetching ahead, as a loader does, into other buffers leaves the batch in use alone."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 4, 1), SPEC)
    batcher, oracle = path(source), standard(source)
    first = batcher.assemble(batcher.fetch(request(np.arange(8))))
    following = batcher.fetch(request(np.arange(50, 58)))
    assert_same(first, oracle.gather(np.arange(8)))
    assert_same(batcher.assemble(following), oracle.gather(np.arange(50, 58)))
