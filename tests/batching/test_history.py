"""Windows with history equal materialised ones bit for bit, from wherever their rows come."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from queue import Queue
from threading import Lock
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgti.batching import WindowConfig, WindowDataset, WindowSource, build_batcher, build_loader
from pgti.batching.history_texts import history_ranges
from pgti.distributed import Message, SingleProcess, Work
from pgti.errors import ConfigError
from pgti.graph import SensorGraph
from pgti.store import Scaler, SeriesStore, StoreWriter, TimeAxis, TimeRule, TypicalReadings
from pgti.store.time_rule import MonthRule
from pgti.windows import BlockShuffle, GlobalShuffle, PartitionShuffle, WindowSpec

from .sources import (
    CPU,
    assert_same,
    decoded,
    resident,
    resident_on_a_gpu,
    standard,
    stored,
    stored_on_a_gpu,
)

PATHS = (decoded, stored, stored_on_a_gpu, resident, resident_on_a_gpu)
STEPS = 80
HOLES = ((20, 5), (47, 1), (61, 30))
"""Rows that follow missing hours."""


def write_store(
    path: Path, *, missing: float, holes: bool, exact: bool = False, channels: int = 2
) -> SeriesStore:
    """Hourly readings of three sensors, int16 or float64."""
    random = np.random.default_rng(2)
    values = random.integers(-50, 90, (STEPS, 3, channels)) / (3 if exact else 10)
    values[random.random(values.shape) < missing] = np.nan
    values[5] = 1.0
    start = np.datetime64("2025-10-03T21:00")
    steps = np.full(STEPS, 3600)
    steps[0] = start.astype("datetime64[s]").astype(np.int64)
    for row, hours in HOLES:
        steps[row] += 3600 * hours
    with StoreWriter(
        path,
        node_ids=("a", "b", "c"),
        channels=("speed", "flow")[:channels],
        graph=SensorGraph.empty(3),
        exact=exact,
    ) as writer:
        writer.append(values)
        writer.finish(
            start=start, interval_seconds=3600, seconds=np.cumsum(steps) if holes else None
        )
    return SeriesStore.open(path)


class Stores(dict[tuple[bool, bool, bool], SeriesStore]):
    """By whether readings miss, times have holes, and the store is exact."""

    def __repr__(self) -> str:
        return "stores"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """One of each kind."""
    directory = tmp_path_factory.mktemp("stores")
    return Stores(
        {
            (bool(missing), holes, exact): write_store(
                directory / f"{missing}-{holes}-{exact}", missing=missing, holes=holes, exact=exact
            )
            for missing in (0.0, 0.3)
            for holes in (False, True)
            for exact in (False, True)
        }
    )


def source_of(store: SeriesStore, history: Sequence[str], **windows: Any) -> WindowSource:
    config = WindowConfig(**{"input_steps": 4, "horizon": 3, "history": history, **windows})
    return WindowSource.from_config(store, config)


# -- what it is -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", ["last", "mean"])
def test_history_reading_by_reading(stores: Stores, fill: Any) -> None:
    """Against a loop over all readings: of the rows that were asked for, none behind a hole."""
    store = stores[True, True, False]
    source = source_of(store, ("12", "1d..2d"), fill=fill, targets=("speed",))
    axis, values = store.time_axis, store.codec.decode(store.raw[:])
    seconds = axis.seconds_at(np.arange(STEPS))
    offsets = [*range(-48, -41), *range(-24, -17), *range(-8, 0)]
    assert source.spec.history == (range(-48, -41), range(-24, -17), range(-8, 0))
    typical = TypicalReadings.fit(store, source_rows(source))
    mean, std = (
        np.asarray(each, dtype=np.float32) for each in (source.scaler.mean, source.scaler.std)
    )
    starts = np.array([0, 13, 19, 22, 49, 70])
    batch = stored(source).gather(starts)
    assert batch.history is not None
    assert batch.history_mask is not None
    for window, start in enumerate(starts.tolist()):
        for place, offset in enumerate(offsets):
            row = start + offset
            begin = max([0, *(hole for hole, _ in HOLES if hole <= start)])
            # The time that the row would have, had nothing been left out before the window.
            time = seconds[begin] + 3600 * (row - begin) if row < begin else seconds[row]
            wall = np.array([time]).astype("datetime64[s]")[0]
            hour = int(wall.astype("datetime64[h]").astype(int) % 24)
            is_weekend = (int(wall.astype("datetime64[D]").astype(int)) + 3) % 7 >= 5
            usual = (typical.table[hour + 24 * is_weekend] - mean) / std
            for sensor in range(3):
                for channel in range(2):
                    at = (window, place, sensor, channel)
                    observed = row >= begin and not np.isnan(values[row, sensor, channel])
                    assert bool(batch.history_mask[at]) == observed
                    expected = usual[sensor, channel] if fill == "last" else np.float32(0)
                    if observed:
                        reading = np.float32(values[row, sensor, channel])
                        expected = (reading - mean[channel]) / std[channel]
                    assert batch.history[at].item() == expected


def source_rows(source: WindowSource) -> range:
    """The training rows of the windows above."""
    config = WindowConfig(input_steps=4, horizon=3, history=("12", "1d..2d"), targets=("speed",))
    return config.splits(source.store).train_rows(source.spec)


def test_a_span_adjoins_the_inputs(stores: Stores) -> None:
    """History, then inputs, are one series."""
    source = source_of(stores[False, False, False], ("20",), calendar=())
    batch = stored(source).gather(np.array([40]))
    assert batch.history is not None
    earlier = stored(source).gather(np.array([36])).x
    assert torch.equal(batch.history[:, -4:], earlier)
    assert batch.history.shape == (1, 16, 3, 2)


def test_history_changes_no_window(stores: Stores) -> None:
    """Splits, statistics and inputs are those of windows without it."""
    for store in (stores[True, True, False], stores[False, False, False]):
        plain = WindowConfig(input_steps=4, horizon=3)
        with_history = WindowConfig(input_steps=4, horizon=3, history=("1d",))
        one, other = plain.splits(store), with_history.splits(store)
        for name in ("train", "val", "test"):
            assert np.array_equal(one.starts(name), other.starts(name))  # type: ignore[arg-type]
        sources = [WindowSource.from_config(store, each) for each in (plain, with_history)]
        assert sources[0].scaler == sources[1].scaler
        pair = [stored(each).gather(np.arange(6, 12)) for each in sources]
        assert pair[0].history is None
        for name in ("x", "x_mask", "y", "y_mask", "calendar"):
            assert torch.equal(getattr(pair[0], name), getattr(pair[1], name))


def test_the_future_changes_no_history(stores: Stores) -> None:
    """No reading after the last input of a window is in its history, whatever the texts."""
    whole = stores[False, False, False]
    values = whole.codec.decode(whole.raw[:])
    values[40:] = 77
    meta = whole.meta
    changed = SeriesStore.in_memory(
        values, whole.graph, whole.time_axis, node_ids=meta.node_ids, channels=meta.channels
    )
    for text in ("5", "30", "3..36", "1d..1d"):
        batches = [
            stored(
                WindowSource(
                    store=store,
                    spec=source_of(whole, (text,)).spec,
                    scaler=Scaler(mean=(1.0, 1.0), std=(2.0, 2.0)),
                    target_indices=(0,),
                )
            ).gather(np.array([36]))
            for store in (whole, changed)
        ]
        assert torch.equal(batches[0].history, batches[1].history)  # type: ignore[arg-type]
        assert not torch.equal(batches[0].y, batches[1].y)  # type: ignore[arg-type]


# -- the same from everywhere ---------------------------------------------------------------------

TEXTS = st.lists(
    st.one_of(
        st.integers(5, 60).map(str),
        st.sampled_from(["1d", "12h", "1d..2d", "2d..3d", "3..9", "5..60", "30..30"]),
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
CHECKS = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@CHECKS
@given(
    kind=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    options=st.fixed_dictionaries(
        {
            "history": TEXTS,
            "fill": st.sampled_from(["last", "mean"]),
            "across_holes": st.booleans(),
            "stride": st.integers(1, 3),
            "calendar": st.sampled_from([(), ("time-of-day",)]),
        }
    ),
    seed=st.integers(0, 99),
    sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4),
    limits=st.tuples(st.sampled_from([1, 7, 4096]), st.sampled_from([1, 13, 1 << 16])),
)
def test_every_path_equals_materialised_windows(
    stores: Stores,
    kind: tuple[bool, bool, bool],
    options: dict[str, Any],
    seed: int,
    sizes: list[int],
    limits: tuple[int, int],
) -> None:
    """Batch after batch of any windows, apart, together and repeated."""
    source = source_of(stores[kind], targets=("flow",), **options)
    oracle, random = standard(source), np.random.default_rng(seed)
    batchers = [
        path(source, page_rows=limits[0], piece_readings=limits[1])
        for path in (decoded, stored, resident)
    ]
    batchers += [stored_on_a_gpu(source), resident_on_a_gpu(source)]
    every = np.asarray(source.spec.starts(STEPS))
    for size in sizes:
        starts = random.choice(every, size)
        if seed % 2:
            first = int(random.integers(0, len(every) - size))
            starts = every[first : first + size]
        expected = oracle.gather(starts)
        for batcher in batchers:
            assert_same(batcher.gather(starts), expected)


class Ranks:
    """Ranks that are threads, and the rows that they send one another."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, int, int], Queue[torch.Tensor]] = {}
        self._adding = Lock()

    def queue(self, source: int, target: int, tag: int) -> "Queue[torch.Tensor]":
        """What one rank sends another with a tag."""
        with self._adding:
            return self._sent.setdefault((source, target, tag), Queue())


class Rank(SingleProcess):
    """One of them."""

    def __init__(self, ranks: Ranks, rank: int, world_size: int) -> None:
        super().__init__()
        self.rank, self.world_size, self._ranks = rank, world_size, ranks

    @property
    def data_rank(self) -> int:
        """Each has windows of its own."""
        return self.rank

    @property
    def data_size(self) -> int:
        """As many as there are ranks."""
        return self.world_size

    def exchange(self, sends: Sequence[Message], receives: Sequence[Message]) -> Work:
        """Send at once; rows arrive when they are waited for."""
        for each in sends:
            self._ranks.queue(self.rank, each.peer, each.tag).put(each.tensor.clone())
        return Arriving(
            [(self._ranks.queue(each.peer, self.rank, each.tag), each.tensor) for each in receives]
        )


class Arriving(Work):
    """Rows that other threads send."""

    def __init__(self, expected: list[tuple[Any, torch.Tensor]]) -> None:
        self._expected, self._taking = expected, Lock()

    def wait(self) -> None:
        """Take them, once; whoever waits too returns when they are there."""
        with self._taking:
            while self._expected:
                queue, tensor = self._expected.pop()
                tensor.copy_(queue.get(timeout=20))


ORDERS = st.one_of(
    st.builds(GlobalShuffle, st.integers(0, 9)),
    st.builds(BlockShuffle, st.integers(0, 9), st.integers(1, 5)),
    st.builds(
        PartitionShuffle,
        st.integers(0, 9),
        st.integers(4, 7),
        st.integers(1, 3),
        st.sampled_from([0.0, 0.5, 1.0]),
    ),
)


@settings(CHECKS, max_examples=20)
@given(
    texts=TEXTS,
    holes=st.booleans(),
    order=ORDERS,
    world_size=st.integers(2, 4),
    placement=st.sampled_from(["replicated", "partitioned"]),
    batching=st.sampled_from(["index", "device"]),
)
def test_every_rank_equals_materialised_windows(
    stores: Stores,
    texts: list[str],
    holes: bool,
    order: Any,
    world_size: int,
    placement: str,
    batching: str,
) -> None:
    """Rows that ranks hold, send and move on between epochs, those of history among them."""
    store = stores[True, holes, False]
    windows = WindowConfig(input_steps=4, horizon=3, history=tuple(texts), fractions=(0.9, 0, 0.1))
    source = WindowSource.from_config(store, windows)
    starts = windows.splits(store).train
    oracle, ranks = standard(source), Ranks()
    oracle.gather(np.asarray(starts[:1]))

    def run(rank: int) -> list[int]:
        loader = build_loader(
            source,
            starts,
            9,
            order,
            placement=placement,
            batching=batching,
            communicator=Rank(ranks, rank, world_size),
        )
        used = []
        for epoch in range(3):
            for batch in loader.epoch(epoch):
                if batch.num_windows:
                    assert_same(batch, oracle.gather(batch.starts))
                else:
                    assert batch.history is not None
                    assert batch.history.shape[:2] == (0, source.spec.history_steps)
                used += batch.starts.tolist()
            loader.prefetch_epoch(epoch + 1)
        return used

    with ThreadPoolExecutor(world_size) as threads:
        every = [each for used in threads.map(run, range(world_size)) for each in used]
    assert sorted(every) == sorted(np.asarray(starts).tolist() * 3)


def test_history_of_some_sensors(stores: Stores) -> None:
    """Where sensors are split over ranks, a batch has the history of its own."""
    source = source_of(stores[True, True, True], ("30",))
    sensors = np.array([0, 2])
    part = replace(source, sensors=sensors)
    starts = np.array([3, 50, 60])
    whole = standard(source).gather(starts)
    batchers = [path(part) for path in (decoded, resident, resident_on_a_gpu)]
    batchers.append(build_batcher("index", part, CPU, budget_bytes=0))
    for batcher in batchers:
        batch = batcher.gather(starts)
        assert torch.equal(batch.history, whole.history[:, :, sensors])  # type: ignore[index]
        assert torch.equal(batch.history_mask, whole.history_mask[:, :, sensors])  # type: ignore[index]


def test_samples_have_history(stores: Stores) -> None:
    """Samples of a dataset collate to the batch of a loader, with the channels of the network."""
    dataset = WindowDataset.from_store(
        stores[True, False, False], input_steps=4, horizon=3, history="1d..2d"
    )
    batch = stored(dataset.source).gather(dataset.starts[3:6])
    samples = [dataset[index] for index in (3, 4, 5)]
    assert_same(WindowDataset.collate(samples), batch)
    assert torch.equal(samples[0].history, batch.history[0])  # type: ignore[union-attr, index]
    chosen = WindowDataset.from_store(
        stores[True, False, False], input_steps=4, horizon=3, history=["9"], inputs=["flow"]
    )
    assert chosen[20].history.shape == (5, 3, 1)  # type: ignore[union-attr]
    assert chosen.shape.history_channels == 1
    assert chosen.shape.history_steps == 5


def test_buffers_of_history_are_used_again(stores: Stores) -> None:
    """A smaller batch after a larger one lies in the same memory."""
    source = source_of(stores[True, False, False], ("30",))
    for path in PATHS:
        batcher = path(source)
        first = batcher.gather(np.arange(8)).history
        second = batcher.gather(np.arange(4)).history
        assert first is not None
        assert second is not None
        assert first.data_ptr() == second.data_ptr()


def test_rows_before_the_series_are_not_read(stores: Stores) -> None:
    """Nor rows behind a hole; each of the others once."""
    source = source_of(stores[False, True, False], ("30",))
    asked: list[tuple[int, int]] = []
    batcher = stored(source)
    reader = batcher.rows._reader  # type: ignore[attr-defined]
    copy: Callable[..., None] = reader.copy_rows

    def record(ranges: Any, out: Any) -> None:
        asked.extend(ranges)
        copy(ranges, out)

    reader.copy_rows = record
    batcher.gather(np.array([2]))
    assert (0, 2) in asked
    asked.clear()
    batcher.gather(np.array([24, 25]))
    assert (20, 25) in asked
    assert min(first for first, _ in asked) == 20


# -- what texts mean ------------------------------------------------------------------------------

AXIS = TimeAxis(num_steps=9000, start_seconds=0, interval_seconds=300)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["14d"], [range(-4020, 0)]),
        (["2h"], [range(-12, 0)]),
        (["13"], [range(-1, 0)]),
        (["1d..2d"], [range(-576, -552), range(-288, -264)]),
        (["1w..2w"], [range(-4032, -4008), range(-2016, -1992)]),
        (["288..600"], [range(-576, -552), range(-288, -264)]),
        (["1d", "1d..1d"], [range(-288, 0)]),
        (["1d..1d", "2h"], [range(-288, -264), range(-12, 0)]),
        (["12..12"], [range(-12, 12)]),
        (["20..40"], [range(-40, -16), range(-20, 4)]),
    ],
)
def test_texts_name_rows(texts: list[str], expected: list[range]) -> None:
    """In any order; those that overlap or touch are one range."""
    if texts == ["20..40"]:
        expected = [range(-40, 4)]
    assert history_ranges(texts, AXIS, 12, 12) == tuple(expected)


IRREGULAR = TimeAxis(
    num_steps=4,
    start_seconds=0,
    interval_seconds=300,
    seconds=np.array([0, 300, 1000, 5000]),
)
MONTHS: TimeRule = MonthRule(months=1)


@pytest.mark.parametrize(
    ("text", "axis", "problem"),
    [
        ("two weeks", AXIS, "must be a span"),
        ("0d", AXIS, "must be a span"),
        ("-3d", AXIS, "must be a span"),
        ("1d..", AXIS, "must be a span"),
        ("1d..1w", AXIS, "periods are days or weeks"),
        ("3d..1d", AXIS, "periods are days or weeks"),
        ("2h..6h", AXIS, "periods are days or weeks"),
        ("1d..999999999d", AXIS, "999,999,999 periods: they must be at most 10,000"),
        ("12..999999999", AXIS, "83,333,333 periods: they must be at most 10,000"),
        ("7min", AXIS, "not a whole number of rows of 5min: .*windows.history=13"),
        ("1h", AXIS, "12 rows that end at the last input"),
        ("12", AXIS, "it must be longer"),
        ("4..40", AXIS, "must begin at 12 or later"),
        (
            "1d..7d",
            TimeAxis(num_steps=99, start_seconds=0, interval_seconds=14400),
            "must begin at 2d or later",
        ),
        ("14d", TimeAxis(num_steps=99), "the series has no interval: give a number of rows"),
        ("14d", IRREGULAR, "not evenly spaced"),
        (
            "60d",
            TimeAxis(
                num_steps=9,
                start_seconds=0,
                interval_seconds=2678400,
                seconds=MONTHS.after(-1, 9, None),
                rule=MONTHS,
            ),
            "not evenly spaced",
        ),
    ],
)
def test_texts_that_name_no_rows(text: str, axis: TimeAxis, problem: str) -> None:
    """One line with the text and the rule."""
    with pytest.raises(ConfigError, match=problem) as error:
        history_ranges([text], axis, 12, 12)
    assert text in str(error.value)
    assert "\n" not in str(error.value)


def test_a_history_longer_than_the_series(stores: Stores) -> None:
    """No window would have all of it."""
    store = stores[False, False, False]
    WindowConfig(history=("91",)).splits(store)
    with pytest.raises(ConfigError, match="begins 80 rows before the first input"):
        WindowConfig(history=("92",)).splits(store)


@pytest.mark.parametrize(
    "history",
    [(range(3),), (range(-3, 5),), (range(-9, -5), range(-5, -3)), (range(-9, -2, 2),)],
    ids=str,
)
def test_a_history_breaks_its_rule(history: tuple[range, ...]) -> None:
    """It begins before the inputs, ends with them at the latest, and rises."""
    with pytest.raises(ConfigError, match="the rule is rising ranges"):
        WindowSpec(input_steps=4, horizon=3, history=history)


@pytest.mark.parametrize("rule", [MONTHS, MonthRule(months=3, month=1, day=31)])
def test_times_before_a_row_follow_the_rule(rule: MonthRule) -> None:
    """They are the times that would follow an earlier one."""
    times = rule.after(86_400 * 400, 20, None)
    assert rule.before(int(times[12]), 12, None).tolist() == times[:12].tolist()
    assert rule.before(int(times[12]) + 9, 3, None).tolist() == times[10:13].tolist()
    assert rule.before(int(times[3]), 0, None).tolist() == []
