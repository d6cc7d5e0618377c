"""Prefixes of a series, and series in memory."""

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import ConfigError, DataError
from pgti.graph import SensorGraph
from pgti.store import MemoryWriter, Moments, SeriesStore, TimeAxis

from .small_stores import START, sample_readings, write_store

SMALL_BLOCKS = {"block_readings": 7 * 4 * 2}
START_SECONDS = int(START.astype("datetime64[s]").astype(np.int64))


def same_moments(one: Moments, other: Moments) -> bool:
    names = ("count", "mean", "m2")
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in names)


@pytest.mark.parametrize("rows", [1, 4, 7, 13, 49, 50])
def test_a_prefix_is_the_store_of_these_rows(tmp_path: Path, rows: int) -> None:
    """Fingerprint, readings, times, statistics and missing readings are those of that store."""
    values = sample_readings()
    write_store(tmp_path / "long", values, **SMALL_BLOCKS)
    write_store(tmp_path / "short", values[:rows], **SMALL_BLOCKS)
    store, short = SeriesStore.open(tmp_path / "long"), SeriesStore.open(tmp_path / "short")
    prefix = store.prefix(rows)
    assert store.fingerprint_at(rows) == prefix.fingerprint == short.fingerprint
    assert (prefix.fingerprint == store.fingerprint) == (rows == 50)
    np.testing.assert_array_equal(prefix.read(0, rows), values[:rows])
    assert same_moments(prefix.moments(range(rows)), short.moments(range(rows)))
    assert prefix.meta.missing_count == short.meta.missing_count
    assert prefix.time_axis.isoformat(rows - 1) == short.time_axis.isoformat(rows - 1)
    again = pickle.loads(pickle.dumps(prefix))
    assert again.fingerprint == short.fingerprint
    prefix.release()
    prefix.verify()


def test_a_fingerprint_does_not_depend_on_the_dtype(tmp_path: Path) -> None:
    """A reading off the grid at the end turns the series to float32 and leaves the prefix."""
    values = sample_readings()
    write_store(tmp_path / "grid", values[:40])
    values[45, 0, 0] = np.float32(1 / 3)
    write_store(tmp_path / "free", values)
    grid, free = SeriesStore.open(tmp_path / "grid"), SeriesStore.open(tmp_path / "free")
    assert (grid.meta.dtype, free.meta.dtype) == ("int16", "float32")
    assert free.fingerprint_at(40) == grid.fingerprint


def test_zeros_and_missing_readings_have_one_form(tmp_path: Path) -> None:
    """-0 is 0 and every NaN is missing: equal readings make equal stores, whatever their bits."""
    values = sample_readings() / np.float32(3)
    values[3, 0, 0] = 0
    write_store(tmp_path / "plain", values)
    values[3, 0, 0] = -0.0
    values.view(np.uint32)[np.isnan(values)] = 0xFFC12345
    write_store(tmp_path / "odd", values)
    plain, odd = SeriesStore.open(tmp_path / "plain"), SeriesStore.open(tmp_path / "odd")
    assert plain.fingerprint == odd.fingerprint
    names = ("series.npy", "moments.npy", "digests.npy", "meta.json")
    for name in names:
        assert (plain.path / name).read_bytes() == (odd.path / name).read_bytes(), name


def test_a_prefix_may_be_regular_where_the_whole_is_not() -> None:
    """Before its first gap, a series has a constant interval, whatever is common later."""
    steps = np.array([300, 300, 300, 900, 900, 900, 900, 900])
    seconds = START_SECONDS + np.concatenate([[0], np.cumsum(steps)])
    axis = TimeAxis(num_steps=9, start_seconds=START_SECONDS, interval_seconds=900, seconds=seconds)
    names = {"node_ids": ("a",), "channels": ("v",)}
    values = np.arange(9.0).reshape(9, 1, 1)
    store = SeriesStore.in_memory(values, SensorGraph.empty(1), axis, **names)
    short = SeriesStore.in_memory(
        values[:4],
        SensorGraph.empty(1),
        TimeAxis(num_steps=4, start_seconds=START_SECONDS, interval_seconds=300),
        **names,
    )
    prefix = store.prefix(4)
    assert prefix.fingerprint == short.fingerprint
    assert (prefix.time_axis.seconds, prefix.meta.interval_seconds) == (None, 300)
    assert store.prefix(6).time_axis.seconds is not None
    assert store.prefix(6).meta.interval_seconds == 300


def test_no_prefix_is_longer_than_the_series(tmp_path: Path) -> None:
    write_store(tmp_path / "s", sample_readings())
    store = SeriesStore.open(tmp_path / "s")
    for rows in (-1, 51):
        with pytest.raises(ConfigError, match=f"first {rows} rows .* it has 50"):
            store.prefix(rows)


def test_a_store_in_memory_is_the_store_on_disk(tmp_path: Path) -> None:
    """The same readings have the same fingerprint and statistics, and are pickled whole."""
    values = sample_readings()
    meta = write_store(tmp_path / "s", values)
    store = SeriesStore.open(tmp_path / "s")
    inside = SeriesStore.in_memory(
        values, store.graph, store.time_axis, node_ids=meta.node_ids, channels=meta.channels
    )
    assert inside.fingerprint == store.fingerprint
    assert (inside.is_in_memory, store.is_in_memory) == (True, False)
    assert same_moments(inside.moments(range(3, 50)), store.moments(range(3, 50)))
    assert inside.describe()[1] | {"stored": ""} == store.describe()[1] | {"stored": ""}
    inside.release()
    inside.verify()
    again = pickle.loads(pickle.dumps(inside))
    np.testing.assert_array_equal(again.read(0, 50), values)
    assert again.meta == inside.meta
    assert inside.fingerprint_at(20) == store.fingerprint_at(20)


def test_a_store_in_memory_may_have_no_rows() -> None:
    """As a run has whose training store is gone."""
    axis = TimeAxis(num_steps=0, start_seconds=START_SECONDS, interval_seconds=300)
    names = {"node_ids": ("a", "b"), "channels": ("v",)}
    store = SeriesStore.in_memory(np.empty((0, 2, 1)), SensorGraph.empty(2), axis, **names)
    assert store.read(0, 0).shape == (0, 2, 1)
    assert store.moments(range(0)).count.tolist() == [0]
    assert store.describe()[1]["missing"] == "0.00%"
    assert pickle.loads(pickle.dumps(store)).meta == store.meta
    with pytest.raises(DataError, match=r"shape \(0, 2, 1\) .* they must agree"):
        SeriesStore.in_memory(
            np.empty((0, 2, 1)), SensorGraph.empty(2), replace(axis, num_steps=1), **names
        )


def test_a_memory_writer_is_a_store_writer_without_files() -> None:
    """It takes the same rows and times, and ends with a store."""
    values = sample_readings()
    with MemoryWriter(
        "newer.csv",
        node_ids=tuple("abcd"),
        channels=("v", "w"),
        graph=SensorGraph.empty(4),
        read_options={"missing": [0.0]},
    ) as writer:
        writer.append(values[:20])
        writer.append(values[20:])
        meta = writer.finish(start=START, interval_seconds=300)
    np.testing.assert_array_equal(writer.store.read(0, 50), values)
    assert writer.store.meta == meta
    assert meta.read_options == {"missing": [0.0]}
    assert writer.store.path == Path("newer.csv")
