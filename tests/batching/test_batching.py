"""Batches: every strategy gives the same bits."""

import importlib
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.batching import (
    Batcher,
    BatchLoader,
    WindowSource,
    build_batcher,
    choose_batching,
)
from pgti.batching.standard import standard_bytes
from pgti.errors import ConfigError
from pgti.windows import GlobalShuffle, Sequential, WindowSpec

from .sources import (
    CPU,
    assert_same,
    decoded,
    indexed,
    make_source,
    request,
    resident,
    standard,
    stored,
)


@settings(deadline=None, max_examples=60)
@given(
    steps=st.integers(30, 60),
    nodes=st.integers(1, 5),
    channels=st.integers(1, 3),
    inputs=st.integers(1, 8),
    horizon=st.integers(1, 8),
    stride=st.integers(1, 3),
    grid=st.booleans(),
    exact=st.booleans(),
    missing=st.sampled_from([0.0, 0.3]),
    calendar=st.sampled_from([(), ("time-of-day",), ("day-of-week", "time-of-day")]),
    climatology=st.booleans(),
    data=st.data(),
)
def test_every_strategy_equals_standard_bit_for_bit(  # noqa: PLR0917 - one argument per strategy drawn
    tmp_path_factory: pytest.TempPathFactory,
    steps: int,
    nodes: int,
    channels: int,
    inputs: int,
    horizon: int,
    stride: int,
    grid: bool,
    exact: bool,
    missing: float,
    calendar: tuple[str, ...],
    climatology: bool,
    data: st.DataObject,
) -> None:
    """For any shape, dtype, stride, targets and order, all strategies give equal batches."""
    spec = WindowSpec(input_steps=inputs, horizon=horizon, stride=stride)
    order = data.draw(st.permutations(range(channels)))
    num_targets = data.draw(st.integers(1, channels))
    targets = tuple(order[:num_targets])
    known = tuple(order[num_targets:])
    source = make_source(
        tmp_path_factory.mktemp("store") / "s",
        (steps, nodes, channels),
        spec,
        grid=grid,
        exact=exact,
        missing=missing,
        targets=targets,
        calendar=calendar,
        climatology=climatology,
        known=known,
    )
    starts = spec.starts(steps)
    loaders = [
        BatchLoader(batcher, starts, 7, GlobalShuffle(3))
        for batcher in (
            standard(source),
            indexed(source, 3),
            stored(source, 3),
            resident(source),
        )
    ]
    seen = []
    epochs = [loader.epoch(1) for loader in loaders]
    for expected, index, rows, device in zip(*epochs, strict=True):
        assert_same(index, expected)
        assert_same(rows, expected)
        assert_same(device, expected)
        seen.extend(index.starts.tolist())
    assert sorted(seen) == list(starts)


def test_values_against_numpy(tmp_path: Path) -> None:
    """Inputs are (reading - mean) / std with 0 for missing; targets are the readings."""
    spec = WindowSpec(input_steps=3, horizon=2)
    source = make_source(tmp_path / "s", (40, 3, 2), spec, targets=(1,), fill="mean")
    batch = indexed(source).gather(np.array([4, 20]))
    values = source.store.read(0, 40).astype(np.float64)
    for position, start in enumerate((4, 20)):
        window = values[start : start + 5]
        expected = (window[:3] - source.scaler.mean) / source.scaler.std
        np.testing.assert_allclose(
            batch.x[position, ..., :2], np.nan_to_num(expected), rtol=1e-5, atol=1e-6
        )
        np.testing.assert_array_equal(batch.x_mask[position], ~np.isnan(window[:3]))
        assert batch.y is not None
        assert batch.y_mask is not None
        np.testing.assert_allclose(batch.y[position], np.nan_to_num(window[3:, :, 1:]), rtol=1e-7)
        np.testing.assert_array_equal(batch.y_mask[position], ~np.isnan(window[3:, :, 1:]))
        minutes = (start + np.arange(5)) * 5
        np.testing.assert_allclose(batch.calendar[position, :, 0], minutes / 1440, rtol=1e-6)
        np.testing.assert_allclose(
            batch.x[position, :, :, 2], (minutes[:3, None] / 1440).repeat(3, axis=1), rtol=1e-6
        )


def test_climatology_is_appended_for_now_and_the_horizon(tmp_path: Path) -> None:
    """Between values and calendar stand the typical readings of the input row and H rows later."""
    spec = WindowSpec(input_steps=3, horizon=2)
    source = make_source(tmp_path / "s", (900, 2, 2), spec, targets=(1,), climatology=True)
    assert source.num_input_channels == 2 + 2 + 2
    assert source.typical is not None
    batch = indexed(source).gather(np.array([600]))
    table = source.typical.table[..., 1:]
    for step in range(3):
        for position, row in ((2, 600 + step), (3, 602 + step)):
            expected = (table[row % 288] - source.scaler.mean[1]) / source.scaler.std[1]
            np.testing.assert_allclose(batch.x[0, step, :, position], expected[:, 0], rtol=1e-5)


@pytest.mark.parametrize("strategy", [stored, decoded, resident])
@pytest.mark.parametrize("prefetch_depth", [1, 2, 3])
def test_loader_resumes_mid_epoch(
    tmp_path: Path, prefetch_depth: int, strategy: Callable[..., Batcher[Any]]
) -> None:
    """Starting at batch k gives what the whole epoch gives from batch k on."""
    spec = WindowSpec(input_steps=4, horizon=2)
    source = make_source(tmp_path / "s", (60, 2, 1), spec)
    loader = BatchLoader(strategy(source, prefetch_depth), spec.starts(60), 8, GlobalShuffle(1))
    whole = [(batch.starts.copy(), batch.x.clone()) for batch in loader.epoch(2)]
    assert len(whole) == loader.num_batches == 7
    for first in range(8):
        rest = [(batch.starts.copy(), batch.x.clone()) for batch in loader.epoch(2, first)]
        assert len(rest) == 7 - first
        for (starts, x), (expected_starts, expected_x) in zip(rest, whole[first:], strict=True):
            np.testing.assert_array_equal(starts, expected_starts)
            assert torch.equal(x, expected_x)


def test_loader_reports_what_goes_wrong_in_its_thread(tmp_path: Path) -> None:
    """A window outside the series is an error of the caller's loop, not a silent end."""
    spec = WindowSpec(input_steps=4, horizon=2)
    source = make_source(tmp_path / "s", (30, 2, 1), spec)
    for strategy in (stored, decoded):
        loader = BatchLoader(strategy(source, 2), range(20, 30), 4, Sequential())
        with pytest.raises(ConfigError, match="window start 25 is outside the series"):
            list(loader.epoch(0))


def test_windows_past_the_end_have_no_targets(tmp_path: Path) -> None:
    """The last inputs of the series make a batch without targets but with future calendar."""
    spec = WindowSpec(input_steps=4, horizon=3)
    source = make_source(tmp_path / "s", (30, 2, 1), spec)
    batch = indexed(source).gather(np.array([26]), with_targets=False)
    on_device = resident(source).gather(np.array([26]), with_targets=False)
    for each in (batch, on_device):
        assert each.y is None
        assert each.y_mask is None
        assert each.calendar.shape == (1, 7, 2)
    assert torch.equal(batch.x, on_device.x)
    assert torch.equal(batch.calendar, on_device.calendar)
    np.testing.assert_allclose(batch.calendar[0, -1, 0], (32 * 5 % 1440) / 1440, rtol=1e-6)


def test_standard_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """Where the windows exceed the budget, the message gives both sizes and the way out."""
    spec = WindowSpec()
    source = make_source(tmp_path / "s", (200, 4, 1), spec)
    with pytest.raises(ConfigError, match=r"use batching='index'"):
        build_batcher("standard", source, CPU, budget_bytes=10_000)


def test_device_refuses_what_does_not_fit(tmp_path: Path) -> None:
    """Where the series exceeds the budget, the message gives both sizes and the way out."""
    source = make_source(tmp_path / "s", (200, 4, 1), WindowSpec())
    with pytest.raises(ConfigError, match=r"use batching='index'"):
        build_batcher("device", source, CPU, budget_bytes=1_000)


def test_auto_on_a_cpu_is_index_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The map serves a CPU from the page cache, or from disk where memory is short."""
    source = make_source(tmp_path / "s", (200, 4, 1), WindowSpec())
    assert choose_batching(source, CPU)[0] == "index"
    assert "in memory" in choose_batching(source, CPU)[1]
    monkeypatch.setattr("pgti.batching.build.available_bytes", lambda _: 100)
    assert "from disk" in choose_batching(source, CPU)[1]


@pytest.mark.parametrize("name", ["dask", "auto"])
def test_unknown_strategy_is_refused(tmp_path: Path, name: str) -> None:
    """The message lists the strategies that there are; "auto" is for the caller to resolve."""
    source = make_source(tmp_path / "s", (40, 2, 1), WindowSpec())
    with pytest.raises(ConfigError, match=f"no batching '{name}': use one of index, device, sta"):
        build_batcher(name, source, CPU)


@pytest.mark.parametrize("strategy", [resident, standard])
def test_nothing_loads_in_a_constructor(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    strategy: Callable[[WindowSource], Batcher[Any]],
) -> None:
    """The series is read at the first batch, once."""
    spec = WindowSpec(input_steps=4, horizon=2)
    source = make_source(tmp_path / "s", (60, 3, 2), spec)
    loads = []
    for module, name in (("device_rows", "_copy_series"), ("standard", "_materialize")):
        load = getattr(importlib.import_module(f"pgti.batching.{module}"), name)

        def counted(*arguments: object, load: Callable[..., object] = load) -> object:
            loads.append(load.__name__)
            return load(*arguments)

        monkeypatch.setattr(f"pgti.batching.{module}.{name}", counted)
    batcher = strategy(source)
    assert loads == []
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(batcher.fetch, [request([start]) for start in range(20)]))
    for fetched in batches:
        batcher.assemble(fetched)
    assert len(loads) == 1


@pytest.mark.parametrize("stride", [1, 40])
@pytest.mark.parametrize("calendar", [(), ("time-of-day", "day-of-week")])
@pytest.mark.parametrize("exact", [False, True])
def test_standard_bytes_is_the_peak(
    tmp_path: Path, stride: int, calendar: tuple[str, ...], exact: bool
) -> None:
    """What is checked against the budget covers the copies that windows are cut from."""
    spec = WindowSpec(input_steps=4, horizon=2, stride=stride)
    source = make_source(
        tmp_path / "s",
        (400, 50, 2),
        spec,
        exact=exact,
        missing=0.0,
        targets=(1, 0),
        calendar=calendar,
    )
    batcher = standard(source)
    tracemalloc.start()
    batcher.fetch(request([0]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 0.6 * standard_bytes(source) < peak < 1.1 * standard_bytes(source)


@pytest.mark.parametrize("size", [0, -1, True, 2.5])
def test_refuses_bad_batch_sizes(tmp_path: Path, size: object) -> None:
    """A batch has at least one window."""
    source = make_source(tmp_path / "s", (40, 2, 1), WindowSpec())
    with pytest.raises(ConfigError, match="batch size is"):
        BatchLoader(indexed(source), range(3), size, Sequential())  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_batches_equal_cpu_batches(tmp_path: Path) -> None:
    """Assembled on a GPU, batches have the same bits."""
    spec = WindowSpec(input_steps=4, horizon=2)
    source = make_source(tmp_path / "s", (60, 3, 2), spec)
    loaders = [
        BatchLoader(batcher, spec.starts(60), 8, GlobalShuffle(1))
        for batcher in (
            build_batcher("index", source, CPU),
            build_batcher("index", source, torch.device("cuda")),
            build_batcher("device", source, torch.device("cuda")),
        )
    ]
    for cpu, *others in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        for cuda in others:
            assert torch.equal(cpu.x, cuda.x.cpu())
