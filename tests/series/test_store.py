"""Writing a store and reading it back."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import DataError, StoreError
from pgti.graph import SensorGraph
from pgti.series import Scaler, SeriesStore, StoreMeta, StoreWriter

START = np.datetime64("2025-10-01T00:00")


def write(
    target: Path, values: np.ndarray, chunks: tuple[int, ...] = (), **options: object
) -> StoreMeta:
    nodes, channels = values.shape[1:]
    graph = SensorGraph.from_edges(nodes, np.arange(nodes - 1), np.arange(1, nodes))
    with StoreWriter(
        target,
        node_ids=tuple(f"s{i}" for i in range(nodes)),
        channels=tuple(f"c{i}" for i in range(channels)),
        graph=graph,
        **options,  # type: ignore[arg-type]
    ) as writer:
        for piece in np.split(values, list(chunks)):
            writer.append(piece)
        return writer.finish(start=START, interval_seconds=300)


def sample(steps: int = 50, nodes: int = 4, channels: int = 2) -> np.ndarray:
    values = np.random.default_rng(3).integers(-300, 900, (steps, nodes, channels)) / 10
    values[5:9, 1] = np.nan
    return values.astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    divisor=st.sampled_from([1, 2, 5, 8, 10, 100, 1000, 3, 7]),
    seed=st.integers(0, 10_000),
    low=st.integers(-40_000, 0),
    missing=st.booleans(),
)
def test_readings_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, divisor: int, seed: int, low: int, missing: bool
) -> None:
    """Whatever the grid, the float32 reading nearest to the source's number is read back."""
    generator = np.random.default_rng(seed)
    values = (generator.integers(low, low + 70_000, (30, 3, 2)) / divisor).astype(np.float32)
    if missing:
        values[generator.random(values.shape) < 0.2] = np.nan
        values[0, 0, 0] = 0
    target = tmp_path_factory.mktemp("store") / "s"
    write(target, values, chunks=(1, 7))
    np.testing.assert_array_equal(SeriesStore.open(target).read(0, 30), values)


def test_int16_where_it_loses_nothing(tmp_path: Path) -> None:
    """A 0.1 grid becomes int16; a value off every grid turns the whole series to float32."""
    values = sample()
    meta = write(tmp_path / "grid", values)
    assert (meta.dtype, meta.divisors) == ("int16", (10, 10))
    values[-1, 0, 0] = np.float32(1 / 3)
    meta = write(tmp_path / "free", values, chunks=(20, 40))
    assert (meta.dtype, meta.divisors) == ("float32", None)
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "free").read(0, 50), values)


def test_a_finer_grid_that_comes_late_is_taken(tmp_path: Path) -> None:
    """Whole numbers first and tenths later end as tenths, with nothing lost."""
    values = np.round(sample())
    values[40:] += np.float32(0.5)
    meta = write(tmp_path / "s", values, chunks=(10, 20, 30))
    assert meta.divisors == (2, 2)
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "s").read(0, 50), values)


def test_large_values_do_not_wrap(tmp_path: Path) -> None:
    """Readings beyond int16's range, on whichever grid, are kept as float32."""
    values = np.full((10, 2, 1), 3276.7, dtype=np.float32)
    assert write(tmp_path / "fits", values).dtype == "int16"
    values[9] = 3276.8
    assert write(tmp_path / "not", values, chunks=(5,)).dtype == "float32"
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "not").read(0, 10), values)


def test_layout_is_as_documented(tmp_path: Path) -> None:
    """The data starts at byte 4096, numpy opens the file as it is, and hashes match."""
    values = sample()
    meta = write(tmp_path / "s", values)
    series = tmp_path / "s" / "series.npy"
    raw = np.load(series, mmap_mode="r", allow_pickle=False)
    assert raw.offset == 4096
    assert (raw.shape, raw.dtype) == ((50, 4, 2), np.int16)
    assert meta.parts["series.npy"] == hashlib.sha256(series.read_bytes()).hexdigest()
    assert meta.missing_count == int(np.isnan(values).sum())
    assert StoreMeta.read(tmp_path / "s") == meta


def test_the_store_does_not_depend_on_the_chunks(tmp_path: Path) -> None:
    """The same readings in other pieces give the same fingerprint."""
    values = sample()
    one = write(tmp_path / "one", values)
    many = write(tmp_path / "many", values, chunks=tuple(range(1, 50)))
    assert one.fingerprint == many.fingerprint


def test_moments_match_numpy_on_any_rows(tmp_path: Path) -> None:
    """Statistics of any range of rows are those of its observed readings, in float64."""
    for name, scale in (("grid", 1.0), ("free", 1 / 3)):
        values = (sample(200) * np.float32(scale)).astype(np.float32)
        write(tmp_path / name, values)
        store = SeriesStore.open(tmp_path / name)
        for rows in (range(200), range(3, 150), range(10, 11)):
            moments = store.moments(rows)
            chosen = values[rows.start : rows.stop].astype(np.float64)
            np.testing.assert_allclose(moments.mean, np.nanmean(chosen, axis=(0, 1)), rtol=1e-12)
            np.testing.assert_allclose(
                moments.m2 / moments.count, np.nanvar(chosen, axis=(0, 1)), rtol=1e-9, atol=1e-12
            )


def test_moments_merge_over_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges that begin and end inside blocks use the summaries of the whole ones between."""
    monkeypatch.setattr("pgti.series.writer._BLOCK_READINGS", 7 * 4 * 2)
    values = sample(100)
    meta = write(tmp_path / "s", values)
    assert meta.block_rows == 7
    store = SeriesStore.open(tmp_path / "s")
    for rows in (range(100), range(1, 99), range(7, 14), range(8, 13), range(6, 22)):
        chosen = values[rows.start : rows.stop].astype(np.float64)
        moments = store.moments(rows)
        np.testing.assert_allclose(moments.mean, np.nanmean(chosen, axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(
            moments.m2 / moments.count, np.nanvar(chosen, axis=(0, 1)), rtol=1e-9
        )


def test_scaler_sees_only_its_rows(tmp_path: Path) -> None:
    """Changing any reading outside the training rows leaves the scaler as it was."""
    values = sample(80)
    write(tmp_path / "a", values)
    values[60:] *= -9
    write(tmp_path / "b", values)
    rows = range(60)
    first = Scaler.fit(SeriesStore.open(tmp_path / "a"), rows)
    second = Scaler.fit(SeriesStore.open(tmp_path / "b"), rows)
    assert first == second
    assert first.mean == pytest.approx(np.nanmean(values[:60], axis=(0, 1)).tolist(), rel=1e-6)


def test_scaler_of_a_constant_channel_divides_by_one(tmp_path: Path) -> None:
    """A channel that never changes is centred, not blown up."""
    write(tmp_path / "s", np.full((10, 2, 1), 5.0))
    assert Scaler.fit(SeriesStore.open(tmp_path / "s"), range(10)) == Scaler(
        mean=(5.0,), std=(1.0,)
    )


def test_scaler_needs_an_observed_reading(tmp_path: Path) -> None:
    """A channel with nothing observed in the training rows is refused by name."""
    values = sample(20)
    values[:10, :, 1] = np.nan
    write(tmp_path / "s", values)
    with pytest.raises(DataError, match="channel 'c1' has no observed reading"):
        Scaler.fit(SeriesStore.open(tmp_path / "s"), range(10))


def test_another_process_gets_the_path_not_the_data(tmp_path: Path) -> None:
    """A pickled store is small and opens the same series again."""
    values = sample(2000)
    write(tmp_path / "s", values)
    text = pickle.dumps(SeriesStore.open(tmp_path / "s"))
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text).read(0, 2000), values)


@pytest.mark.parametrize("when", ["append", "leave", "interrupt"])
def test_nothing_is_left_when_writing_fails(tmp_path: Path, when: str) -> None:
    """A failure, an early exit or an interrupt removes the temporary store and new parents."""
    target = tmp_path / "new" / "deep" / "store"
    graph = SensorGraph.empty(2)

    def fail() -> None:
        with StoreWriter(target, node_ids=("a", "b"), channels=("v",), graph=graph) as writer:
            writer.append(np.ones((4, 2, 1)))
            if when == "append":
                writer.append(np.ones((4, 3, 1)))
            if when == "interrupt":
                raise KeyboardInterrupt

    expected = {"append": DataError, "interrupt": KeyboardInterrupt, "leave": None}[when]
    if expected is None:
        fail()
    else:
        with pytest.raises(expected):
            fail()
    assert list(tmp_path.iterdir()) == []


def test_overwrite_replaces_only_when_complete(tmp_path: Path) -> None:
    """With `overwrite` the old store stays until the new one is whole."""
    write(tmp_path / "s", sample(30))
    with pytest.raises(StoreError, match="exists already"):
        write(tmp_path / "s", sample(31))
    with pytest.raises(DataError, match="infinite"):
        write(tmp_path / "s", np.full((3, 4, 2), np.inf), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 30
    write(tmp_path / "s", sample(31), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 31
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def damage_series(store: Path) -> None:
    content = bytearray((store / "series.npy").read_bytes())
    content[-3] ^= 1
    (store / "series.npy").write_bytes(content)


def truncate_series(store: Path) -> None:
    content = (store / "series.npy").read_bytes()
    (store / "series.npy").write_bytes(content[:-10])


def edit_meta(store: Path, **changes: object) -> None:
    path = store / "meta.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        pytest.param(damage_series, "series.npy does not match its SHA-256", id="flipped bit"),
        pytest.param(truncate_series, "series.npy has \\d+ bytes and should have", id="truncated"),
        pytest.param(lambda s: (s / "graph.npz").unlink(), "graph.npz is missing", id="no graph"),
        pytest.param(lambda s: (s / "meta.json").unlink(), "has no meta.json", id="no meta"),
        pytest.param(
            lambda s: (s / "meta.json").write_text("{"), "damaged at line 1", id="broken JSON"
        ),
        pytest.param(
            lambda s: edit_meta(s, format_version=99), "format version 99", id="newer format"
        ),
        pytest.param(lambda s: edit_meta(s, colour=1), "entries: colour", id="unknown entry"),
        pytest.param(lambda s: edit_meta(s, num_nodes=9), "contradicts itself", id="sizes"),
        pytest.param(lambda s: edit_meta(s, format_version="x"), "no format version", id="version"),
    ],
)
def test_a_damaged_store_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    """Whatever is broken, opening says what in one line."""
    write(tmp_path / "s", sample())
    damage(tmp_path / "s")  # type: ignore[operator]
    with pytest.raises(StoreError, match=message) as caught:
        SeriesStore.open(tmp_path / "s")
    assert "\n" not in str(caught.value)


def test_large_parts_are_checked_on_demand(tmp_path: Path) -> None:
    """A part above the limit is not hashed on opening, and `verify` finds the damage."""
    write(tmp_path / "s", sample())
    damage_series(tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s", verify_up_to_bytes=1)
    with pytest.raises(StoreError, match="SHA-256"):
        store.verify()


def test_not_a_store(tmp_path: Path) -> None:
    """A path that is no store says how to make one."""
    with pytest.raises(StoreError, match="pgti ingest"):
        SeriesStore.open(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("ids", "channels", "nodes", "message"),
    [
        (("a", "a"), ("v",), 2, "sensor id 'a' is there twice"),
        (("a", "b"), ("v", "v"), 2, "channel 'v' is there twice"),
        (("a", "b"), ("v",), 3, "graph has 3 nodes and the readings 2"),
        ((), ("v",), 0, "no sensor id"),
    ],
)
def test_writer_refuses_contradictions(
    tmp_path: Path, ids: tuple[str, ...], channels: tuple[str, ...], nodes: int, message: str
) -> None:
    """Ids, channels and graph must agree before anything is written."""
    with pytest.raises(DataError, match=message):
        StoreWriter(
            tmp_path / "s", node_ids=ids, channels=channels, graph=SensorGraph.empty(max(nodes, 1))
        )
    assert list(tmp_path.iterdir()) == []


def test_writer_needs_rows_and_readings(tmp_path: Path) -> None:
    """An empty source and one where everything is missing are refused."""
    with pytest.raises(DataError, match="no rows"):
        write(tmp_path / "s", np.empty((0, 2, 1)))
    with pytest.raises(DataError, match="every reading of the source is missing"):
        write(tmp_path / "s", np.full((5, 2, 1), np.nan))
    assert list(tmp_path.iterdir()) == []
