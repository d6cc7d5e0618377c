"""Channels known in advance and static features of a store."""

import io
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.store.small_stores import START, sample_readings, write_store

from pgti.errors import ConfigError, DataError, StoreError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreAppender, StoreWriter, TimeAxis
from pgti.store.local_copy import local_copy
from pgti.store.static_features import StaticFeatures

STATIC = StaticFeatures(
    names=("lanes", "kind"),
    units=("", ""),
    values=np.array([[2, 0], [np.nan, 1], [4, np.nan], [1, 0]], dtype=np.float64),
    categories=((), ("ramp", "main")),
)


def future_values(rows: int = 3) -> np.ndarray:
    values = np.random.default_rng(5).normal(size=(rows, 4, 1)).astype(np.float32)
    values[rows - 1, 2] = np.nan
    return values


def write(path: Path, steps: int = 50, future: np.ndarray | None = None) -> SeriesStore:
    with StoreWriter(
        path,
        node_ids=("a", "b", "c", "d"),
        channels=("flow", "rain"),
        graph=SensorGraph.empty(4),
        known_future=("rain",),
        static=STATIC,
    ) as writer:
        writer.append(sample_readings(steps))
        writer.finish(start=START, interval_seconds=300, future=future)
    return SeriesStore.open(path)


def test_a_store_returns_what_was_written(tmp_path: Path) -> None:
    store = write(tmp_path / "s", future=future_values())
    np.testing.assert_array_equal(store.future, future_values())
    assert store.meta.known_future == ("rain",)
    assert store.meta.known_indices == (1,)
    frame = store.static
    assert frame is not None
    assert list(frame.index) == ["a", "b", "c", "d"]
    np.testing.assert_array_equal(frame["lanes"], [2, np.nan, 4, 1])
    assert frame["kind"].tolist()[:2] == ["ramp", "main"]
    assert frame["kind"].isna().tolist() == [False, False, True, False]
    store.verify()
    facts = store.describe()[1]
    assert facts["known in advance"] == (
        "rain; 3 rows after the last reading, until 2025-10-01 04:20:00"
    )
    assert facts["static"] == "lanes, kind (2 categories)"


def test_a_store_without_them_is_of_format_2_as_before(tmp_path: Path) -> None:
    write_store(tmp_path / "s", sample_readings())
    content = json.loads((tmp_path / "s" / "meta.json").read_text())
    assert content["format_version"] == 2
    assert "known_future" not in content
    store = SeriesStore.open(tmp_path / "s")
    assert store.static is None
    assert len(store.future) == 0


def test_the_fingerprint_has_roles_and_features_but_no_forecasts(tmp_path: Path) -> None:
    """Forecasts are revised: what a run has seen stays the same."""
    store = write(tmp_path / "s", future=future_values())
    plain = write_store(tmp_path / "plain", sample_readings())
    assert store.fingerprint == write(tmp_path / "t").fingerprint
    other = replace(store.meta, known_future=())
    assert len({store.fingerprint, other.fingerprint, plain.fingerprint}) == 3
    parts = {**store.meta.parts, "static.npz": "0" * 64}
    assert replace(store.meta, parts=parts).fingerprint != store.fingerprint


def test_a_prefix_has_the_features_and_no_value_after_its_rows(tmp_path: Path) -> None:
    whole = write(tmp_path / "s", future=future_values())
    prefix = whole.prefix(30)
    codes = whole.meta.max_codes
    assert prefix.meta == replace(
        write(tmp_path / "t", steps=30).meta, open_moments=((0.0,) * 3,) * 2, max_codes=codes
    )
    assert prefix.future.shape == (0, 4, 1)
    assert prefix.static_features is whole.static_features


def test_it_survives_pickling_on_disk_and_in_memory(tmp_path: Path) -> None:
    stored = write(tmp_path / "s", future=future_values())
    in_memory = SeriesStore.in_memory(
        sample_readings(),
        SensorGraph.empty(4),
        TimeAxis(num_steps=50),
        node_ids=("a", "b", "c", "d"),
        channels=("flow", "rain"),
        known_future=("rain",),
        future=future_values(),
        static=STATIC,
    )
    for store in (stored, in_memory):
        copy = pickle.loads(pickle.dumps(store))
        np.testing.assert_array_equal(copy.future, future_values())
        assert copy.static is not None
        assert copy.fingerprint == store.fingerprint


def test_an_appended_store_equals_one_written_at_once(tmp_path: Path) -> None:
    """Byte for byte; the old values after the last row are gone."""
    write(tmp_path / "grown", steps=20, future=future_values(5))
    with StoreAppender(tmp_path / "grown") as appender:
        appender.append(sample_readings()[20:])
        appender.finish(
            replace(SeriesStore.open(tmp_path / "grown").time_axis, num_steps=50), future_values()
        )
    write(tmp_path / "whole", future=future_values())
    files = {each.name: each.read_bytes() for each in (tmp_path / "whole").iterdir()}
    grown = {each.name: each.read_bytes() for each in (tmp_path / "grown").iterdir()}
    grown.pop(".pgti.lock", None)
    assert grown == files


def test_who_has_it_open_keeps_the_old_values(tmp_path: Path) -> None:
    old = write(tmp_path / "s", future=future_values(5))
    with StoreAppender(tmp_path / "s") as appender:
        appender.finish(old.time_axis, future_values(2))
    np.testing.assert_array_equal(old.future, future_values(5))
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "s").future, future_values(2))


def test_an_append_that_fails_leaves_the_old_values(tmp_path: Path) -> None:
    write(tmp_path / "s", future=future_values(5))
    before = {each.name: each.read_bytes() for each in (tmp_path / "s").iterdir()}
    with pytest.raises(DataError, match="shape"), StoreAppender(tmp_path / "s") as appender:
        appender.finish(TimeAxis(num_steps=50), np.zeros((2, 3, 1), dtype=np.float32))
    after = {each.name: each.read_bytes() for each in (tmp_path / "s").iterdir()}
    after.pop(".pgti.lock", None)
    assert after == before


@pytest.mark.parametrize("part", ["static.npz", "future"])
def test_damage_is_one_line(tmp_path: Path, part: str) -> None:
    store = write(tmp_path / "s", future=future_values())
    (path,) = (tmp_path / "s").glob(f"{part}*")
    content = bytearray(path.read_bytes())
    content[content.index(b"lanes"[:1]) if part == "static.npz" else -2] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=f"{path.name} does not match its SHA-256"):
        SeriesStore.open(tmp_path / "s")
    with pytest.raises(StoreError, match="does not match"):
        store.verify()
    path.unlink()
    with pytest.raises(StoreError, match=f"{path.name} is missing"):
        SeriesStore.open(tmp_path / "s")


def test_a_local_copy_has_the_newest_forecasts(tmp_path: Path) -> None:
    store = write(tmp_path / "s", future=future_values(5))
    first = local_copy(tmp_path / "s", tmp_path / "disk")
    with StoreAppender(tmp_path / "s") as appender:
        appender.finish(store.time_axis, future_values(2))
    said: list[str] = []
    second = local_copy(tmp_path / "s", tmp_path / "disk", log=said.append)
    assert first == second
    assert said[0] == f"replacing the local copy {first}, which is damaged or older"
    np.testing.assert_array_equal(SeriesStore.open(second).future, future_values(2))


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            ("snow",),
            "names the channel 'snow', and the series has flow, rain: choose among them, or name",
        ),
        (("rain", "rain"), "names the channel 'rain' twice"),
        (("rain", "flow"), "names every channel"),
    ],
)
def test_channels_that_cannot_be_known_are_refused(
    tmp_path: Path, known: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        StoreWriter(
            tmp_path / "s",
            node_ids=("a",),
            channels=("flow", "rain"),
            graph=SensorGraph.empty(1),
            known_future=known,
        )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ("lanes", "lanes")}, "not one each"),
        ({"units": ("",)}, "2 names for values"),
        ({"categories": ((), ("ramp", "ramp"))}, "kind has a category twice"),
        ({"categories": ((), ("ramp",))}, "kind has a value that is none of its categories"),
        ({"values": np.full((4, 2), np.inf)}, "lanes has an infinite value"),
    ],
)
def test_features_that_contradict_themselves_are_refused(
    change: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        replace(STATIC, **change)  # type: ignore[arg-type]


def test_features_of_other_sensors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="features of 4 sensors and 2 sensors"):
        StoreWriter(
            tmp_path / "s",
            node_ids=("a", "b"),
            channels=("flow",),
            graph=SensorGraph.empty(2),
            static=STATIC,
        )


def test_a_file_that_unpacks_to_more_than_itself_is_refused() -> None:
    content = io.BytesIO()
    np.savez_compressed(content, values=np.zeros((1 << 20, 2)))
    with pytest.raises(StoreError, match="compressed"):
        StaticFeatures.from_bytes(content.getvalue(), 1 << 20, "static.npz")
