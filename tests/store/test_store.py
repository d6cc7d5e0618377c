"""Writing a store and reading it back."""

import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import StoreError
from pgti.store import SeriesStore, StoreMeta
from pgti.store.meta import SERIES_OFFSET

from .small_stores import START, sample_readings, write_store


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
    write_store(target, values, chunks=(1, 7))
    np.testing.assert_array_equal(SeriesStore.open(target).read(0, 30), values)


def test_int16_where_it_loses_nothing(tmp_path: Path) -> None:
    """A 0.1 grid becomes int16; a value off every grid turns the whole series to float32."""
    values = sample_readings()
    meta = write_store(tmp_path / "grid", values)
    assert (meta.dtype, meta.divisors) == ("int16", (10, 10))
    values[-1, 0, 0] = np.float32(1 / 3)
    meta = write_store(tmp_path / "free", values, chunks=(20, 40))
    assert (meta.dtype, meta.divisors) == ("float32", None)
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "free").read(0, 50), values)


def test_a_finer_grid_that_comes_late_is_taken(tmp_path: Path) -> None:
    """Whole numbers first and tenths later end as tenths, with nothing lost."""
    values = np.round(sample_readings())
    values[40:] += np.float32(0.5)
    meta = write_store(tmp_path / "s", values, chunks=(10, 20, 30))
    assert meta.divisors == (2, 2)
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "s").read(0, 50), values)


def test_large_values_do_not_wrap(tmp_path: Path) -> None:
    """Readings beyond int16's range, on whichever grid, are kept as float32."""
    values = np.full((10, 2, 1), 3276.7, dtype=np.float32)
    assert write_store(tmp_path / "fits", values).dtype == "int16"
    values[9] = 3276.8
    assert write_store(tmp_path / "not", values, chunks=(5,)).dtype == "float32"
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "not").read(0, 10), values)


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs Linux's smaps")
def test_released_rows_are_not_the_process_memory(tmp_path: Path) -> None:
    """They were, once read; they are read again as before."""

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().split("\n")
        header = next(i for i, line in enumerate(lines) if str(tmp_path / "s") in line)
        return next(int(line.split()[1]) for line in lines[header:] if line.startswith("Rss:"))

    values = np.arange(60_000, dtype=np.float32).reshape(20_000, 3, 1) / 7
    write_store(tmp_path / "s", values)
    store = SeriesStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 20_000), values)
    assert resident() >= store.num_bytes // 1024
    store.release()
    assert resident() == 0
    np.testing.assert_array_equal(store.read(0, 20_000), values)


def test_layout_is_as_documented(tmp_path: Path) -> None:
    """The data starts at byte 4096, numpy opens the file as it is, and hashes match."""
    values = sample_readings()
    meta = write_store(tmp_path / "s", values)
    series = tmp_path / "s" / "series.npy"
    raw = np.load(series, mmap_mode="r", allow_pickle=False)
    assert raw.offset == 4096
    assert (raw.shape, raw.dtype) == ((50, 4, 2), np.int16)
    assert meta.parts["series.npy"] == hashlib.sha256(bytes(32) + values.tobytes()).hexdigest()
    assert meta.missing_count == int(np.isnan(values).sum())
    assert StoreMeta.read(tmp_path / "s") == meta


def test_the_store_does_not_depend_on_the_chunks(tmp_path: Path) -> None:
    """The same readings in other pieces give the same fingerprint."""
    values = sample_readings()
    one = write_store(tmp_path / "one", values)
    many = write_store(tmp_path / "many", values, chunks=tuple(range(1, 50)))
    assert one.fingerprint == many.fingerprint


def test_moments_match_numpy_on_any_rows(tmp_path: Path) -> None:
    """Statistics of any range of rows are those of its observed readings, in float64."""
    for name, scale in (("grid", 1.0), ("free", 1 / 3)):
        values = (sample_readings(200) * np.float32(scale)).astype(np.float32)
        write_store(tmp_path / name, values)
        store = SeriesStore.open(tmp_path / name)
        for rows in (range(200), range(3, 150), range(10, 11)):
            moments = store.moments(rows)
            chosen = values[rows.start : rows.stop].astype(np.float64)
            np.testing.assert_allclose(moments.mean, np.nanmean(chosen, axis=(0, 1)), rtol=1e-12)
            np.testing.assert_allclose(
                moments.m2 / moments.count, np.nanvar(chosen, axis=(0, 1)), rtol=1e-9, atol=1e-12
            )


def test_moments_merge_over_blocks(tmp_path: Path) -> None:
    """Ranges that begin and end inside blocks use the summaries of the whole ones between."""
    values = sample_readings(100)
    meta = write_store(tmp_path / "s", values, block_readings=7 * 4 * 2)
    assert meta.block_rows == 7
    store = SeriesStore.open(tmp_path / "s")
    for rows in (range(100), range(1, 99), range(7, 14), range(8, 13), range(6, 22)):
        chosen = values[rows.start : rows.stop].astype(np.float64)
        moments = store.moments(rows)
        np.testing.assert_allclose(moments.mean, np.nanmean(chosen, axis=(0, 1)), rtol=1e-12)
        np.testing.assert_allclose(
            moments.m2 / moments.count, np.nanvar(chosen, axis=(0, 1)), rtol=1e-9
        )


def test_another_process_gets_the_path_not_the_data(tmp_path: Path) -> None:
    """A pickled store is small and opens the same series again."""
    values = sample_readings(2000)
    write_store(tmp_path / "s", values)
    text = pickle.dumps(SeriesStore.open(tmp_path / "s"))
    assert len(text) < 1000
    np.testing.assert_array_equal(pickle.loads(text).read(0, 2000), values)


def damage_series(store: Path) -> None:
    content = bytearray((store / "series.npy").read_bytes())
    content[-3] ^= 1
    (store / "series.npy").write_bytes(content)


def truncate_series(store: Path) -> None:
    content = (store / "series.npy").read_bytes()
    (store / "series.npy").write_bytes(content[:-10])


def edit_meta(store: Path, *, reseal: bool = False, **changes: object) -> None:
    """Change entries of meta.json; with `reseal`, make its digest match again."""
    path = store / "meta.json"
    content = json.loads(path.read_text()) | changes
    if reseal:
        del content["digest"]
        lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        content["digest"] = hashlib.sha256(text.encode()).hexdigest()
    path.write_text(json.dumps(content))


def edit_part(store: Path, name: str, content: bytes | np.ndarray) -> None:
    """Replace a part, and make its hash and the description's digest match again."""
    path = store / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content)
    parts = json.loads((store / "meta.json").read_text())["parts"]
    skipped = 0 if name == "graph.npz" else 128  # the header
    digest = hashlib.sha256(path.read_bytes()[skipped:]).hexdigest()
    edit_meta(store, reseal=True, parts=parts | {name: digest})


def make_irregular(store: Path, seconds: np.ndarray) -> None:
    edit_meta(store, is_regular=False)
    edit_part(store, "time.npy", seconds)


def edit_moments(store: Path, change: float) -> None:
    table = np.load(store / "moments.npy")
    table[0, 0, 0] += change
    edit_part(store, "moments.npy", table)


def swap_series_header(store: Path) -> None:
    """Say that the series is in Fortran order."""
    content = (store / "series.npy").read_bytes()
    edit_part(store, "series.npy", content.replace(b"False, ", b"True,  ", 1))


def resealed(message: str, name: str = "", **changes: object) -> object:
    """A case of entries that are wrong in themselves, with a digest that matches."""
    return pytest.param(
        lambda store: edit_meta(store, reseal=True, **changes),
        message,
        id=name or "-".join(f"{key}={value}" for key, value in changes.items())[:40],
    )


HASHES = dict.fromkeys(("series.npy", "moments.npy", "digests.npy", "graph.npz"), "0" * 64)


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
            lambda s: (s / "meta.json").write_text("[" * 100_000), "cannot be read", id="deep JSON"
        ),
        pytest.param(
            lambda s: (s / "meta.json").write_text("9" * 5_000), "cannot be read", id="long number"
        ),
        pytest.param(
            lambda s: (s / "meta.json").write_bytes(b"\xff"), "cannot be read", id="no text"
        ),
        pytest.param(
            lambda s: edit_meta(s, format_version=99), "format version 99", id="newer format"
        ),
        pytest.param(
            lambda s: edit_meta(s, format_version=0),
            "format version 0 and this pgti reads 1 to 3",
            id="older format",
        ),
        pytest.param(
            lambda s: edit_meta(s, format_version=True), "no format version", id="true format"
        ),
        pytest.param(lambda s: edit_meta(s, colour=1), "entries: colour", id="unknown entry"),
        pytest.param(lambda s: edit_meta(s, format_version="x"), "no format version", id="version"),
        pytest.param(
            lambda s: edit_meta(s, units=["mph", "km"]), "do not match its digest", id="digest"
        ),
        pytest.param(
            lambda s: edit_meta(s, digest=None), "do not match its digest", id="no digest"
        ),
        resealed("9 nodes and 4 different ids", num_nodes=9),
        resealed("4 nodes and 3 different ids", "same ids", node_ids=["a", "a", "b", "c"]),
        resealed("2 channels and 1 different names", channels=["v", "v"]),
        resealed("2 channels and", units=["mph"]),
        resealed("the shape is", num_steps=0),
        resealed("num_steps is True", num_steps=True),
        resealed("num_steps is 5.0", num_steps=5.0),
        resealed(r"node_ids\[3\] is 7: it must be text", node_ids=["a", "b", "c", 7]),
        resealed("parts.graph.npz is None", parts=HASHES | {"graph.npz": None}),
        resealed("the dtype is 'int8'", dtype="int8"),
        resealed("the dtype is float32, divisors are", dtype="float32"),
        resealed("missing_code is 5", missing_code=5),
        resealed("the divisors of 2 channels are", divisors=[0, 10]),
        resealed("the divisors of 2 channels are", divisors=[10]),
        resealed(r"divisors\[1\] is True", divisors=[10, True]),
        resealed("-1 of 400 readings are missing", missing_count=-1),
        resealed("400 of 400 readings are missing", missing_count=400),
        resealed("its statistics count 392 readings", missing_count=9),
        resealed("block_rows is 0", block_rows=0),
        resealed(r"moments\.npy has \d+ bytes of 336", block_rows=7),
        resealed("the start 'yesterday' is not a time", start="yesterday"),
        resealed("the start 'NaT' is not a time", start="NaT"),
        resealed("is not a time", "offset", start="2025-10-01T00:00:00+02:00"),
        resealed("a start and no interval", interval_seconds=None),
        resealed("the interval is 0 s", interval_seconds=0),
        resealed("interval_seconds is 1000", "long interval", interval_seconds=10**30),
        resealed("no time zone 'Mars/Olympus'", time_zone="Mars/Olympus"),
        resealed("no time zone '../etc/passwd'", time_zone="../etc/passwd"),
        resealed("no time zone 'America'", time_zone="America"),
        resealed("the parts are", "fewer parts", parts={"series.npy": "0" * 64}),
        resealed("the parts are", "more parts", parts=HASHES | {"../../x": "0" * 64}),
        resealed("the parts are .* time.npy", is_regular=False),
        resealed("its graph has 4 nodes and 3 edges", num_edges=4),
        pytest.param(
            lambda s: make_irregular(s, np.zeros(50, np.int64)), "that increase", id="same times"
        ),
        pytest.param(
            lambda s: make_irregular(s, np.arange(50.0)),
            "time.npy is <f8 .* should be int64",
            id="broken times",
        ),
        pytest.param(
            lambda s: make_irregular(s, np.arange(49)),
            "time.npy has 392 bytes of 400",
            id="few times",
        ),
        pytest.param(
            lambda s: edit_part(s, "moments.npy", np.zeros((1, 2, 2))),
            "moments.npy is <f8 \\(1, 2, 2\\) and should be",
            id="shape of statistics",
        ),
        pytest.param(lambda s: edit_moments(s, -1), "statistics count 391", id="other count"),
        pytest.param(lambda s: edit_moments(s, np.nan), "contain a non-finite", id="no count"),
        pytest.param(
            lambda s: edit_part(s, "moments.npy", b"PK\x03\x04"), "is damaged", id="an archive"
        ),
        pytest.param(
            lambda s: edit_part(s, "moments.npy", np.array([None])),
            "moments.npy is .O .* should be float64",
            id="a pickle",
        ),
        pytest.param(lambda s: edit_part(s, "graph.npz", b"no"), "is damaged", id="no graph file"),
        pytest.param(swap_series_header, "not in C order", id="Fortran order"),
        pytest.param(
            lambda s: ((s / "graph.npz").unlink(), (s / "graph.npz").mkdir()),
            "cannot be read: graph.npz",
            id="a directory",
        ),
    ],
)
def test_a_damaged_store_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    """Whatever is broken, opening says what in one line."""
    write_store(tmp_path / "s", sample_readings(), block_readings=10 * 4 * 2)
    damage(tmp_path / "s")  # type: ignore[operator]
    with pytest.raises(StoreError, match=message) as caught:
        SeriesStore.open(tmp_path / "s")
    assert "\n" not in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(
    num_steps=st.integers(1, 60), group_readings=st.integers(1, 40), num_groups=st.integers(1, 9)
)
def test_groups_of_large_series_are_checked(
    tmp_path_factory: pytest.TempPathFactory, num_steps: int, group_readings: int, num_groups: int
) -> None:
    """Of a series above the limit some groups of rows are checked, and always the last rows."""
    path = tmp_path_factory.mktemp("large") / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pgti.store.statistics._GROUP_READINGS", group_readings)
        patch.setattr("pgti.store.parts._SAMPLED_GROUPS", num_groups)
        write_store(path, sample_readings(num_steps), block_readings=10 * 4 * 2)
        store = SeriesStore.open(path, verify_up_to_bytes=1)
        rows = store.meta.sizes.group_rows
        row = num_steps - 1 if num_steps % rows else 0
        content = bytearray((path / "series.npy").read_bytes())
        content[SERIES_OFFSET + row * store.raw[0].nbytes] ^= 1
        (path / "series.npy").write_bytes(content)
        with pytest.raises(StoreError, match="SHA-256"):
            store.verify()

        def open_often() -> None:
            for _ in range(40 * (num_steps // rows + 1)):
                SeriesStore.open(path, verify_up_to_bytes=1)

        with pytest.raises(StoreError, match=r"series.npy does not match its SHA-256"):
            open_often()


def test_lengths_alone(tmp_path: Path) -> None:
    """A store that pgti has just written is not read again."""
    write_store(tmp_path / "s", sample_readings())
    damage_series(tmp_path / "s")
    store = SeriesStore.open(tmp_path / "s", verify_up_to_bytes=0)
    with pytest.raises(StoreError, match="SHA-256"):
        store.verify()


def test_not_a_store(tmp_path: Path) -> None:
    """A path that is no store says how to make one."""
    with pytest.raises(StoreError, match="ingest readings to make one"):
        SeriesStore.open(tmp_path / "nothing")


@settings(deadline=None, max_examples=60)
@given(
    name=st.sampled_from(["graph.npz", "moments.npy", "series.npy", "time.npy"]),
    place=st.floats(0, 1, exclude_max=True),
    header=st.booleans(),
    byte=st.integers(0, 255),
    cut=st.booleans(),
)
def test_any_damage_is_one_line(
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    place: float,
    header: bool,
    byte: int,
    cut: bool,
) -> None:
    """A part with a changed or missing end, its hashes put right, is read or refused: no crash."""
    store = tmp_path_factory.mktemp("store") / "s"
    write_store(store, sample_readings())
    make_irregular(store, int(START.astype("datetime64[s]").astype(int)) + 300 * np.arange(50))
    content = bytearray((store / name).read_bytes())
    position = int(place * (min(128, len(content)) if header else len(content)))
    content[position] = byte
    edit_part(store, name, bytes(content[: position + 1] if cut else content))
    assert "\n" not in refusal(store)


def refusal(store: Path) -> str:
    """What opening says where it refuses; nothing where it opens."""
    try:
        SeriesStore.open(store)
    except StoreError as error:
        return str(error)
    return ""
