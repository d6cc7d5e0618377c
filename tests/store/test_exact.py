"""Exact stores: every digit of the source comes back; int32 codes or float64, and they grow."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import StoreError
from pgti.store import (
    MemoryWriter,
    Scaler,
    SeriesStore,
    StoreAppender,
    StoreMeta,
    TypicalReadings,
)
from pgti.store.codec import ExactGridCodec, Float64Codec
from pgti.store.summary import summarize
from pgti.store.time_axis import TimeAxis

from .small_stores import START, sample_readings, write_store


def meters(steps: int = 60, nodes: int = 3) -> np.ndarray:
    """Cumulative readings above 2^24 that move by 1 to 3, [steps, nodes, 2]; the other in cents."""
    generator = np.random.default_rng(4)
    counts = (
        40_000_001
        + 7_000_003 * np.arange(nodes)
        + generator.integers(1, 4, (steps, nodes)).cumsum(0)
    )
    cents = np.array([float(Decimal(int(c)) / 100) for c in (counts * 3).ravel()]).reshape(
        counts.shape
    )
    values = np.stack([counts.astype(np.float64), cents], axis=-1)
    values[7, 1] = values[3:9, 0, 1] = np.nan
    return values


def calculated(steps: int = 60) -> np.ndarray:
    """Float64 numbers on no grid, [steps, 3, 2]."""
    return 1e6 + np.random.default_rng(8).normal(size=(steps, 3, 2))


@pytest.mark.parametrize(("values", "dtype"), [(meters(), "int32"), (calculated(), "float64")])
def test_every_digit_comes_back(tmp_path: Path, values: np.ndarray, dtype: str) -> None:
    """The readings are the source's float64 numbers, whatever the pieces they came in."""
    write_store(tmp_path / "a", values, exact=True)
    write_store(tmp_path / "b", values, chunks=(1, 13, 14), exact=True)
    store, other = (SeriesStore.open(tmp_path / name) for name in "ab")
    assert (store.meta.dtype, store.meta.format_version) == (dtype, 3)
    assert store.meta.is_exact
    np.testing.assert_array_equal(store.read(0, 60), values)
    assert store.read(0, 60).dtype == np.float64
    assert store.fingerprint == other.fingerprint
    assert (tmp_path / "a/series.npy").read_bytes() == (tmp_path / "b/series.npy").read_bytes()
    summary = summarize(store)
    np.testing.assert_array_equal(summary.minimum, np.nanmin(values, axis=0))
    np.testing.assert_array_equal(summary.maximum, np.nanmax(values, axis=0))
    np.testing.assert_array_equal(summary.num_missing, np.isnan(values).sum(axis=0))
    np.testing.assert_allclose(
        store.moments(range(60)).mean, np.nanmean(values, axis=(0, 1)), rtol=1e-12
    )
    store.verify()


def test_the_encoding_widens_and_loses_nothing(tmp_path: Path) -> None:
    """Whole numbers, then cents, then a number on no grid: each is stored as it is."""
    values = np.array([16_777_217.0, 16_777_217.25, 21.37, -5e-7, np.pi * 1e9]).reshape(-1, 1, 1)
    dtypes = []
    for steps in range(1, 6):
        write_store(
            tmp_path / str(steps), values[:steps], chunks=tuple(range(1, steps)), exact=True
        )
        store = SeriesStore.open(tmp_path / str(steps))
        dtypes.append((store.meta.dtype, store.meta.divisors))
        np.testing.assert_array_equal(store.read(0, steps), values[:steps])
    assert dtypes == [
        ("int32", (1,)), ("int32", (4,)), ("int32", (100,)), ("float64", None), ("float64", None)
    ]  # fmt: skip


def test_a_grid_is_refused_by_what_float64_would_round() -> None:
    """Codes must give back float64, which sees more digits than float32."""
    almost = np.array([[[0.1 + 1e-12]]])
    assert ExactGridCodec((10,)).encode(almost) is None
    assert ExactGridCodec((1,)).encode(np.array([[[2.0**31]]])) is None
    np.testing.assert_array_equal(Float64Codec().decode(Float64Codec().encode(almost)), almost)


@pytest.mark.parametrize("new", [meters(80)[60:], calculated(20)], ids=["on the grid", "off it"])
def test_a_store_that_grew_equals_one_written_at_once(tmp_path: Path, new: np.ndarray) -> None:
    """Appending continues codes and digests, and widens the encoding where it must."""
    old = meters(80)[:60]
    write_store(tmp_path / "grown", old, exact=True)
    write_store(tmp_path / "whole", np.concatenate([old, new]), exact=True)
    begin = int(START.astype("datetime64[s]").astype(int))
    with StoreAppender(tmp_path / "grown") as appender:
        appender.append(new)
        appender.finish(TimeAxis(num_steps=80, start_seconds=begin, interval_seconds=300))
    grown, whole = (SeriesStore.open(tmp_path / name) for name in ("grown", "whole"))
    np.testing.assert_array_equal(grown.read(0, 80), whole.read(0, 80))
    assert (grown.meta.dtype, grown.fingerprint) == (whole.meta.dtype, whole.fingerprint)
    assert whole.fingerprint_at(60) != grown.fingerprint
    assert appender.lost.note("") == ()


def test_in_memory(tmp_path: Path) -> None:
    """A series in memory is as exact as one on disk, and has its fingerprint."""
    write_store(tmp_path / "s", meters(), exact=True)
    disk = SeriesStore.open(tmp_path / "s")
    with MemoryWriter(
        "m", node_ids=disk.meta.node_ids, channels=disk.meta.channels, graph=disk.graph, exact=True
    ) as writer:
        writer.append(meters())
        writer.finish(start=np.datetime64(disk.meta.start), interval_seconds=300)
    np.testing.assert_array_equal(writer.store.read(0, 60), meters())
    assert writer.store.meta.is_exact
    assert writer.store.meta.parts["series.npy"] == disk.meta.parts["series.npy"]


def test_format_2_has_no_exact_readings(tmp_path: Path) -> None:
    """An int32 store that says it is of format 2 is damaged."""
    write_store(tmp_path / "s", meters(), exact=True)
    meta = replace(StoreMeta.read(tmp_path / "s"), format_version=2)
    (tmp_path / "s/meta.json").write_text(meta.to_json())
    with pytest.raises(StoreError, match="the dtype is 'int32'"):
        SeriesStore.open(tmp_path / "s")


def test_offsets_of_the_scaler(tmp_path: Path) -> None:
    """Offsets are training means on the grid; what remains is small, with the std that is said."""
    values = meters()
    values[:, 2, 1] = np.nan
    write_store(tmp_path / "s", values, exact=True)
    scaler = Scaler.fit(SeriesStore.open(tmp_path / "s"), range(40))
    offsets = scaler.offset_array
    assert offsets is not None
    np.testing.assert_allclose(offsets[:2], np.nanmean(values[:40, :2], axis=0), atol=0.5)
    assert offsets[2, 1] == pytest.approx(offsets[:2, 1].mean(), abs=0.01)
    np.testing.assert_array_equal(offsets[:, 0], np.rint(offsets[:, 0]))
    left = values[:40] - offsets
    for channel in range(2):
        assert 0.5 < np.nanstd(left[..., channel]) / scaler.std[channel] < 2
        assert np.log2(scaler.std[channel]).is_integer()
    assert scaler.mean == (0.0, 0.0)
    assert Scaler.from_plain(scaler.to_plain()) == scaler


def test_the_offset_of_a_constant_sensor_is_its_reading(tmp_path: Path) -> None:
    """Sums of equal numbers are rounded; no deviation may come of that, or inputs would explode."""
    values = np.broadcast_to([[0.1], [1 / 3], [1234.5678912345]], (60, 3, 1)).copy()
    values[:3, 1] = values[50, 2] = np.nan
    write_store(tmp_path / "s", values, exact=True)
    store = SeriesStore.open(tmp_path / "s")
    assert store.meta.dtype == "float64"
    scaler = Scaler.fit(store, range(40))
    assert scaler.offsets == (0.1, 1 / 3, 1234.5678912345)
    assert scaler.std == (1.0,)


def test_typical_readings_have_every_digit(tmp_path: Path) -> None:
    """They are float64, also after a round trip through a file."""
    write_store(tmp_path / "s", meters(), exact=True)
    typical = TypicalReadings.fit(SeriesStore.open(tmp_path / "s"), range(60))
    np.testing.assert_array_equal(typical.maximum, np.nanmax(meters(), axis=(0, 1)))
    read = TypicalReadings.from_bytes(typical.to_bytes())
    assert read.table.dtype == np.float64
    np.testing.assert_array_equal(read.table, typical.table)


def test_a_compact_store_is_as_before(tmp_path: Path) -> None:
    """Without `exact` readings are float32, int16 on disk."""
    write_store(tmp_path / "s", sample_readings())
    store = SeriesStore.open(tmp_path / "s")
    assert (store.meta.dtype, store.read(0, 1).dtype.name) == ("int16", "float32")
    assert Scaler.fit(store, range(9)).offsets is None
