"""Arrays whose axes have names: any order, grids, and what stands beside them."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pgti
from pgti.errors import ConfigError, DataError
from pgti.ingestion import IngestOptions, open_readings
from pgti.ingestion.arrays.axes_arrays import StoredArray, arrange
from pgti.ingestion.axes import Axes, grid_ids
from pgti.ingestion.scratch import scratch_beside

NAMES = {"time": 6, "day": 3, "slot": 4, "sensor": 5, "row": 2, "column": 3, "channel": 2}


def read(source: object, budget_bytes: int = 1 << 20, **options: object) -> np.ndarray:
    """The readings of a source, [T, N, C]."""
    readings = open_readings(source, IngestOptions(**options))
    return np.concatenate([chunk.values for chunk in readings.chunks(budget_bytes)])


def usual(array: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    """The array as [T, N, C], by moving its axes."""
    time = [names.index(name) for name in ("time", "day", "slot") if name in names]
    channel = [names.index("channel")] if "channel" in names else []
    sensors = [place for place in range(len(names)) if place not in (*time, *channel)]
    moved = array.transpose(*time, *sensors, *channel)
    num_steps = int(np.prod([array.shape[place] for place in time]))
    num_channels = array.shape[channel[0]] if channel else 1
    return moved.reshape(num_steps, -1, num_channels)


@st.composite
def orders(draw: st.DrawFn) -> tuple[str, ...]:
    """Names of axes in any order, with time and at least one axis of sensors."""
    time = draw(st.sampled_from([("time",), ("day", "slot")]))
    sensors = draw(st.sampled_from([("sensor",), ("row",), ("row", "column")]))
    channel = draw(st.sampled_from([(), ("channel",)]))
    return tuple(draw(st.permutations((*time, *sensors, *channel))))


@settings(deadline=None, max_examples=40)
@given(
    names=orders().filter(lambda names: len(names) <= 4),
    order=st.sampled_from("CF"),
    budget_bytes=st.sampled_from([1, 200, 800, 1 << 20]),
    dtype=st.sampled_from(["float32", "float64", "int16"]),
)
def test_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    names: tuple[str, ...],
    order: str,
    budget_bytes: int,
    dtype: str,
) -> None:
    """Every order of axes, stored in C or Fortran order and read in any budget, is [T, N, C]."""
    shape = [NAMES[name] for name in names]
    array = np.random.default_rng(1).normal(50, 9, shape).astype(dtype)
    directory = tmp_path_factory.mktemp("axes")
    np.save(directory / "a.npy", np.asarray(array, order=order))
    np.savez_compressed(directory / "a.npz", a=np.asarray(array, order=order))
    mapped = np.load(directory / "a.npy", mmap_mode="r")
    with scratch_beside(directory / "s"):
        for source in (directory / "a.npy", directory / "a.npz", array, mapped):
            values = read(source, budget_bytes, axes=names)
            np.testing.assert_array_equal(values, usual(array, names))
    assert sorted(path.name for path in directory.iterdir()) == ["a.npy", "a.npz"]


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize(
    "names", [("time", "row"), ("row", "time", "column"), ("slot", "row", "day")]
)
def test_each_cell_is_read_once(names: tuple[str, ...], is_reversed: bool) -> None:
    """Whatever the chunks of a file and the memory: compressed parts are never opened twice."""
    shape = [NAMES.get(name, 5) for name in names]
    array = np.arange(np.prod(shape), dtype=np.float64).reshape(shape)
    stored = np.ascontiguousarray(array.T) if is_reversed else array
    halves = tuple(size // 2 for size in stored.shape)
    for chunks in (None, halves, (stored.shape[0], *halves[1:]), (1,) * stored.ndim):
        for budget_bytes in (1, 200, 1000, 1 << 20):
            counts = np.zeros(stored.shape, int)

            def read(box: tuple[slice, ...], counts: np.ndarray = counts) -> np.ndarray:
                counts[box] += 1
                return stored[box]

            opened = StoredArray(
                name="a",
                shape=stored.shape,
                dtype=stored.dtype,
                open=lambda read=read: nullcontext(read),
                chunks=chunks,
            )
            readings = arrange(opened, Axes(names), is_reversed=is_reversed)
            values = [chunk.values for chunk in readings.chunks(budget_bytes)]
            np.testing.assert_array_equal(np.concatenate(values), usual(array, names))
            assert (counts == 1).all()


def test_other_words_for_the_axes(tmp_path: Path) -> None:
    """Axes may be called as people call them; letters are those of the shape."""
    array = np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "a.npy", array)
    want = array.transpose(2, 1, 0)
    for names in (("feature", "node", "step"), ("c", "n", "t"), ("Variable", "Station", "Time")):
        np.testing.assert_array_equal(read(tmp_path / "a.npy", axes=names), want)


def test_a_grid_has_ids_coordinates_and_times(tmp_path: Path) -> None:
    """The cells of a grid are sensors; arrays called as its axes give coordinates and times."""
    array = np.arange(2 * 3 * 4.0).reshape(3, 2, 4)
    lat, lon = np.array([50.0, 51.0, 52.0]), np.array([7.0, 7.5, 8.0, 8.5])
    time = np.array(["2024-01-01T00", "2024-01-01T01"], dtype="M8[s]")
    np.savez(tmp_path / "a.npz", t2m=array, lat=lat, lon=lon, time=time)
    options = {"axes": ("lat", "time", "lon"), "values": ("t2m",)}
    store = pgti.ingest(tmp_path / "a.npz", tmp_path / "s", **options)
    assert store.meta.node_ids == grid_ids([["0", "1", "2"], ["0", "1", "2", "3"]])
    assert store.meta.node_ids[6] == "1,2"
    np.testing.assert_array_equal(store.graph.coordinates[6], [51.0, 8.0])
    assert (store.meta.start, store.meta.interval_seconds) == ("2024-01-01T00:00:00", 3600)
    np.testing.assert_array_equal(store.read(0, 2)[1, 6, 0], array[1, 1, 2])


def test_curvilinear_coordinates(tmp_path: Path) -> None:
    """Latitudes and longitudes may be arrays of the grid."""
    lat, lon = np.arange(6.0).reshape(2, 3), np.arange(6.0).reshape(2, 3) + 10
    np.savez(tmp_path / "a.npz", a=np.ones((5, 2, 3)), lat=lat, lon=lon)
    options = IngestOptions(axes=("time", "lat", "lon"), values=("a",), neighbours=2)
    store = pgti.ingest(tmp_path / "a.npz", tmp_path / "s", options)
    np.testing.assert_array_equal(store.graph.coordinates, np.stack([lat, lon], -1).reshape(6, 2))
    assert store.graph.adjacency.nnz > 0


def test_ids_channels_and_pairs_come_from_arrays_of_the_axes(tmp_path: Path) -> None:
    """Arrays of text or whole numbers that are called as an axis label it."""
    array = np.arange(24.0).reshape(2, 3, 4)
    np.savez(tmp_path / "a.npz", a=array, sensor=np.array(["x", "y", "z"]), channel=["v", "q"])
    readings = open_readings(tmp_path / "a.npz", IngestOptions(axes=("channel", "sensor", "time")))
    assert (readings.node_ids, readings.channels) == (("x", "y", "z"), ("v", "q"))
    np.savez(tmp_path / "b.npz", a=array, origin=np.array([230, 161]), destination=["a", "b", "c"])
    readings = open_readings(
        tmp_path / "b.npz", IngestOptions(axes=("origin", "destination", "time"))
    )
    assert readings.node_ids == ("230,a", "230,b", "230,c", "161,a", "161,b", "161,c")


def test_times_without_named_axes_are_said(tmp_path: Path) -> None:
    """An archive whose times are not read says how they are."""
    time = np.arange("2024-01-01", "2024-01-05", dtype="M8[D]")
    np.savez(tmp_path / "a.npz", a=np.ones((4, 2)), time=time)
    store = pgti.ingest(tmp_path / "a.npz", tmp_path / "s")
    assert "a.npz has times in time, which are not read: axes=('time', 'sensor')" in store.notes[0]
    dated = pgti.ingest(tmp_path / "a.npz", tmp_path / "s2", axes=("time", "sensor"))
    assert dated.meta.start == "2024-01-01T00:00:00"
    options = {"axes": ("time", "sensor"), "timestamps": False}
    assert pgti.ingest(tmp_path / "a.npz", tmp_path / "s3", **options).meta.start is None


def test_numbers_that_are_no_times_are_said(tmp_path: Path) -> None:
    """Row numbers under the name of times give none."""
    np.savez(tmp_path / "a.npz", a=np.ones((4, 2)), time=np.arange(4))
    store = pgti.ingest(tmp_path / "a.npz", tmp_path / "s", axes=("time", "sensor"))
    assert store.meta.start is None
    assert "time of a.npz holds 0, ..., which is no time" in store.notes[0]


def test_channels_in_both_orders_of_memory(tmp_path: Path) -> None:
    """Arrays that are stored in different orders become channels of one series."""
    first, second = np.random.default_rng(0).normal(size=(2, 40, 3))
    np.savez(tmp_path / "a.npz", first=first, second=np.asfortranarray(second))
    values = read(tmp_path / "a.npz", 400, values=("first", "second"))
    np.testing.assert_array_equal(values, np.stack([first, second], axis=-1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"axes": ("time",)}, r"names 1 axes \(time\): the rule is 2 to 4"),
        ({"axes": ("sensor", "row")}, "none of them is time"),
        ({"axes": ("time", "day", "sensor")}, "with time and a part of it"),
        ({"axes": ("time", "channel")}, "leaves no axis for the sensors"),
        ({"axes": ("time", "sensor", "feature", "channel")}, "two axes of channels"),
        ({"axes": ("time", "row", "Row")}, "names an axis twice"),
        ({"axes": ("time", "sensor"), "transpose": True}, "both say which axis is time"),
    ],
)
def test_bad_axes(tmp_path: Path, options: dict[str, object], message: str) -> None:
    """Axes that cannot be are refused, and nothing is written."""
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    with pytest.raises(ConfigError, match=message):
        pgti.ingest(tmp_path / "a.npy", tmp_path / "s", **options)
    assert not (tmp_path / "s").exists()


def test_axes_of_another_number(tmp_path: Path) -> None:
    """An array must have the axes that are named."""
    np.save(tmp_path / "a.npy", np.ones((3, 4)))
    with pytest.raises(DataError, match=r"shape \(3, 4\), which is 2-D, and axes names 3"):
        open_readings(tmp_path / "a.npy", IngestOptions(axes=("time", "sensor", "channel")))
    np.save(tmp_path / "b.npy", np.ones((3, 4, 2)))
    with pytest.raises(ConfigError, match=r"is for two axes: name all of them, such as axes="):
        open_readings(tmp_path / "b.npy", IngestOptions(transpose=True))


def test_axes_by_position() -> None:
    """Positions follow from the names."""
    axes = Axes(("sensor", "slot", "day", "feature"))
    assert (axes.time, axes.sensors, axes.channel) == ((2, 1), (0,), 3)
    assert axes.sizes((5, 4, 3, 2)) == (12, 5, 2)
