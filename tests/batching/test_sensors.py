"""Batches of some of the sensors have the columns of batches of all of them, bit for bit."""

import mmap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pgti.batching import Batch, BatchLoader
from pgti.batching.assembler import TorchAssembler
from pgti.batching.batcher import WindowBatcher
from pgti.batching.build import build_batcher, build_loader, choose_batching
from pgti.batching.device_rows import device_bytes
from pgti.batching.host_rows import HostRows
from pgti.batching.loader import empty_batch
from pgti.batching.mapped_series import MappedSeries, pages_of
from pgti.store.static_features import StaticFeatures
from pgti.windows import WindowSpec

from .sources import CPU, ENCODINGS, assert_same, make_source

SENSORS = np.array([1, 2, 5, 6, 9])


STATIC = StaticFeatures(
    names=("kind", "lanes"),
    units=("", ""),
    values=np.column_stack([[0.0, 1, np.nan] + [0, 1] * 4, np.arange(11.0)]),
    categories=(("ramp", "main"), ()),
)


def columns_of(batch: Batch) -> Batch:
    """The same windows with these sensors alone."""
    sensors = torch.from_numpy(SENSORS)
    assert batch.y is not None
    assert batch.y_mask is not None
    return replace(
        batch,
        x=batch.x[:, :, sensors],
        x_mask=batch.x_mask[:, :, sensors],
        y=batch.y[:, :, sensors],
        y_mask=batch.y_mask[:, :, sensors],
        future=None if batch.future is None else batch.future[:, :, sensors],
        future_mask=None if batch.future_mask is None else batch.future_mask[:, :, sensors],
        static=None if batch.static is None else batch.static[sensors],
        static_codes=None if batch.static_codes is None else batch.static_codes[sensors],
    )


@pytest.mark.parametrize("budget_bytes", [0, 1 << 20])
@pytest.mark.parametrize("batching", ["index", "device", "standard"])
@pytest.mark.parametrize(("grid", "exact"), ENCODINGS)
def test_every_batching(
    tmp_path: Path, batching: str, grid: bool, exact: bool, budget_bytes: int
) -> None:
    """Filled, with masks, typical readings and a calendar; decoded ahead or not."""
    source = make_source(
        tmp_path / "s",
        (60, 11, 2),
        WindowSpec(input_steps=5, horizon=3),
        grid=grid,
        exact=exact,
        climatology=True,
        observed_mask=True,
        fill="last",
        known=(1,),
        static=STATIC,
    )
    some = replace(source, sensors=SENSORS)
    budget = budget_bytes if batching == "index" else None
    whole = build_batcher(batching, source, CPU, budget_bytes=budget)
    part = build_batcher(batching, some, CPU, budget_bytes=budget)
    for starts in ([3], [0, 1, 2, 40], [52, 7]):
        expected = columns_of(whole.gather(np.array(starts)).clone())
        assert_same(part.gather(np.array(starts)), expected)
    assert some.shape.num_nodes == 11  # a network has parameters of all sensors
    assert empty_batch(some, CPU).x.shape == (0, 5, 5, source.num_input_channels)
    assert 2 * device_bytes(some) < device_bytes(source) + 4 * some.typical_bytes
    assert " KiB of " in choose_batching(some, CPU)[1]


def test_the_operations_of_a_gpu(tmp_path: Path) -> None:
    source = make_source(tmp_path / "s", (60, 11, 1), WindowSpec(input_steps=5, horizon=3))
    some = replace(source, sensors=SENSORS)
    rows = HostRows(some, CPU, MappedSeries(some.store, sensors=SENSORS))
    part = WindowBatcher(some, CPU, rows, TorchAssembler(some, CPU))
    whole = build_batcher("index", source, CPU)
    starts = np.array([4, 5, 30])
    assert_same(part.gather(starts), columns_of(whole.gather(starts)))


def test_a_series_from_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a row that is longer than pages, the pages of these sensors alone are announced."""
    announced: list[tuple[int, int]] = []

    def seen(first: int, stop: int) -> tuple[int, int]:
        announced.append(pages_of(first, stop))
        return announced[-1]

    monkeypatch.setattr("pgti.batching.mapped_series.pages_of", seen)
    source = make_source(tmp_path / "s", (20, 20_000, 1), WindowSpec(input_steps=5, horizon=3))
    sensors = np.concatenate([np.arange(100, 200), np.arange(15_000, 15_300)])
    reader = MappedSeries(source.store, available=0, sensors=sensors)
    out = np.empty((5, reader.num_readings), dtype=reader.dtype)
    reader.copy_rows([(3, 5), (9, 12)], out)
    raw = source.store.raw.reshape(20, -1)
    np.testing.assert_array_equal(out, raw[[3, 4, 9, 10, 11]][:, sensors])
    assert len(announced) == 5 * 2
    assert max(count for _, count in announced) <= 2 * 300 * 4 + mmap.PAGESIZE


def test_scattered_sensors_announce_whole_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many small pieces cost more calls than they save pages."""
    announced: list[int] = []

    def seen(first: int, stop: int) -> tuple[int, int]:
        announced.append(stop - first)
        return pages_of(first, stop)

    monkeypatch.setattr("pgti.batching.mapped_series.pages_of", seen)
    monkeypatch.setattr("pgti.batching.mapped_series._MOST_RUNS", 4)
    source = make_source(tmp_path / "s", (6, 20_000, 1), WindowSpec(input_steps=2, horizon=1))
    sensors = np.arange(0, 20_000, 2_500)
    reader = MappedSeries(source.store, available=0, sensors=sensors)
    out = np.empty((2, len(sensors)), dtype=reader.dtype)
    reader.copy_rows([(1, 3)], out)
    np.testing.assert_array_equal(out, source.store.raw.reshape(6, -1)[1:3, sensors])
    assert announced == [2 * source.stored_row_bytes]


def test_a_loader_of_one_process_has_all_windows(tmp_path: Path) -> None:
    """Which windows are whose is a matter of ranks: a single one has each of them."""
    source = make_source(tmp_path / "s", (60, 11, 1), WindowSpec(input_steps=5, horizon=3))
    loader = build_loader(replace(source, sensors=SENSORS), range(10), 4)
    assert isinstance(loader, BatchLoader)
    assert [batch.num_windows for batch in loader.epoch(0)] == [4, 4, 2]
