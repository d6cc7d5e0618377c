"""Stores that grow: equal to one that was written at once, whatever happens on the way."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pgti.errors import StoreError
from pgti.store import SeriesStore, StoreMeta, TimeAxis
from pgti.store.appender import StoreAppender
from pgti.store.local_copy import local_copy

from .small_stores import make_format_1, sample_readings, write_store

SMALL = {"block_readings": 7 * 4 * 2}


def grow(path: Path, values: np.ndarray, axis: TimeAxis | None = None) -> StoreMeta:
    """Append rows at the next times."""
    with StoreAppender(path) as appender:
        axis = axis or SeriesStore.open(path, verify_up_to_bytes=0).time_axis
        appender.append(values)
        return appender.finish(replace(axis, num_steps=appender.num_steps))


def files_of(store: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.iterdir()}


def assert_equal(grown: Path, written: Path) -> None:
    """Byte for byte, but for the generation and the names that follow from it."""
    one, other = StoreMeta.read(grown), StoreMeta.read(written)
    assert replace(one, generation=0) == other
    assert one.fingerprint == other.fingerprint
    names = {one.file_of(part): other.file_of(part) for part in one.parts}
    assert {path.name for path in grown.iterdir()} == {*names, "meta.json"}
    for name, of_other in names.items():
        assert (grown / name).read_bytes() == (written / of_other).read_bytes(), name
    SeriesStore.open(grown).verify()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_any_cut_into_appends_equals_one_ingest(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Series, statistics, digests and description, with missing readings and changing grids."""
    rows = data.draw(st.integers(2, 40))
    generator = np.random.default_rng(data.draw(st.integers(0, 1000)))
    values = generator.integers(-300, 300, (rows, 3, 2)).astype(np.float32)
    for divisor in data.draw(st.lists(st.sampled_from([2, 4, 5, 10, 3, 1 / 500]), max_size=3)):
        first = data.draw(st.integers(0, rows - 1))
        values[first:, :, generator.integers(2)] /= np.float32(divisor)
    values[generator.random(values.shape) < data.draw(st.sampled_from([0, 0.2, 0.9]))] = np.nan
    values[0, 0, 0] = -0.0
    cuts = sorted(data.draw(st.sets(st.integers(1, rows - 1), min_size=1)))
    path = tmp_path_factory.mktemp("stores")
    options = {"block_readings": 6 * data.draw(st.sampled_from([1, 4, 1000]))}
    write_store(path / "written", values, **options)
    pieces = np.split(values, cuts)
    write_store(path / "grown", pieces[0], **options)
    for piece in pieces[1:]:
        grow(path / "grown", piece)
    assert_equal(path / "grown", path / "written")


@pytest.mark.parametrize("count", [310, pytest.param(1000, marks=pytest.mark.slow)])
def test_many_appends_equal_one_ingest(tmp_path: Path, count: int) -> None:
    """Row after row; the fingerprint of every length is the one that the store had then."""
    values = np.random.default_rng(1).integers(0, 900, (count + 1, 4, 2)).astype(np.float32) / 10
    values[::7, 1] = np.nan
    values[:300] = np.round(values[:300])
    write_store(tmp_path / "written", values, **SMALL)
    write_store(tmp_path / "grown", values[:1], **SMALL)
    had, axis = {}, SeriesStore.open(tmp_path / "grown").time_axis
    for row in range(1, count + 1):
        had[row + 1] = grow(tmp_path / "grown", values[row : row + 1], axis).fingerprint
    assert_equal(tmp_path / "grown", tmp_path / "written")
    store = SeriesStore.open(tmp_path / "written")
    for rows in (2, 299, 300, 301, 3 * count // 4, count + 1):
        assert store.fingerprint_at(rows) == had[rows]


def test_irregular_times_grow_with_the_rows(tmp_path: Path) -> None:
    """A regular store becomes irregular at the first other step, and stays the same before it."""
    values = sample_readings(6)
    write_store(tmp_path / "s", values[:4])
    before = SeriesStore.open(tmp_path / "s")
    start = before.time_axis.start_seconds
    seconds = start + np.array([0, 300, 600, 900, 2000, 2300])
    axis = replace(before.time_axis, num_steps=5, seconds=seconds[:5])
    for rows in (5, 6):
        with StoreAppender(tmp_path / "s") as appender:
            appender.append(values[rows - 1 : rows])
            appender.finish(replace(axis, num_steps=rows, seconds=seconds[:rows]))
    store = SeriesStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.time_axis.seconds, seconds)
    assert store.fingerprint_at(4) == before.fingerprint
    assert store.prefix(4).time_axis.seconds is None


def test_corrected_rows_make_the_store_that_was_right_at_once(tmp_path: Path) -> None:
    """A new generation; what lies before is the same store, what follows is another."""
    right = sample_readings()
    wrong = right.copy()
    wrong[45, 2, 1] = np.float32(1 / 3)
    write_store(tmp_path / "right", right, **SMALL)
    write_store(tmp_path / "s", wrong, **SMALL)
    reader = SeriesStore.open(tmp_path / "s")
    with StoreAppender(tmp_path / "s") as appender:
        appender.rewrite_from(45)
        appender.append(right[45:])
        meta = appender.finish(reader.time_axis)
    assert (meta.generation, meta.dtype, reader.meta.dtype) == (1, "int16", "float32")
    assert_equal(tmp_path / "s", tmp_path / "right")
    store = SeriesStore.open(tmp_path / "s")
    assert store.fingerprint_at(45) == reader.fingerprint_at(45)
    assert store.fingerprint_at(46) != reader.fingerprint_at(46)
    np.testing.assert_array_equal(reader.read(0, 50), wrong)  # who has it open is not disturbed
    reader.verify()


def test_a_reader_sees_the_rows_that_it_opened(tmp_path: Path) -> None:
    """While others append and correct; a copy of it in another process too, or it is refused."""
    values = sample_readings()
    write_store(tmp_path / "s", values[:30])
    reader = SeriesStore.open(tmp_path / "s")
    text = pickle.dumps(reader)
    grow(tmp_path / "s", values[30:40])
    assert reader.meta.num_steps == 30
    np.testing.assert_array_equal(reader.read(0, 30), values[:30])
    assert pickle.loads(text).fingerprint == reader.fingerprint
    with StoreAppender(tmp_path / "s") as appender:
        appender.rewrite_from(20)
        appender.append(values[20:40] + 1)
        appender.finish(replace(reader.time_axis, num_steps=40))
    np.testing.assert_array_equal(reader.read(0, 30), values[:30])
    with pytest.raises(StoreError, match=r"has been corrected .* open it again"):
        pickle.loads(text)


def test_readers_that_open_while_others_write_find_a_store(tmp_path: Path) -> None:
    """At any moment, through appends and new generations."""
    values = sample_readings(400)
    write_store(tmp_path / "s", values[:1])
    failures: list[str] = []
    is_done = threading.Event()

    def read() -> None:
        while not is_done.is_set():
            try:
                store = SeriesStore.open(tmp_path / "s")
                rows = store.meta.num_steps
                np.testing.assert_array_equal(store.read(0, rows), values[:rows])
            except (StoreError, AssertionError) as error:
                failures.append(str(error))

    thread = threading.Thread(target=read)
    thread.start()
    for row in range(1, 60):
        if row % 3:
            grow(tmp_path / "s", values[row : row + 1])
            continue
        axis = SeriesStore.open(tmp_path / "s").time_axis
        with StoreAppender(tmp_path / "s") as appender:
            appender.rewrite_from(row // 2)
            appender.append(values[row // 2 : row + 1])
            appender.finish(replace(axis, num_steps=row + 1))
    is_done.set()
    thread.join()
    assert failures == []


WRITERS = """
import gc, os, sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from pgti.store import SeriesStore
from pgti.store.appender import StoreAppender

path, values = Path(sys.argv[1]), np.load(sys.argv[2])

def write():
    while True:
        with StoreAppender(path) as appender:
            axis = SeriesStore.open(path, verify_up_to_bytes=0).time_axis
            row = appender.num_steps
            if row % 5 == 0:
                appender.rewrite_from(row - 2)
                appender.append(values[row - 2 : row])
            appender.append(values[row : row + 1])
            appender.finish(replace(axis, num_steps=row + 1))

gc.collect()  # or every child begins with it
gc.freeze()
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        write()
    print(child, flush=True)
    os.waitpid(child, 0)
    print("gone", flush=True)
"""


def test_a_killed_writer_leaves_the_old_store_or_the_new_one(tmp_path: Path) -> None:
    """SIGKILL at fifty random moments of appends, corrections and new grids."""
    generator = np.random.default_rng(0)
    values = generator.integers(0, 900, (100_000, 4, 2)).astype(np.float32)
    values[::50] /= 10
    values[::7, 1] = np.nan
    np.save(tmp_path / "values.npy", values)
    write_store(tmp_path / "s", values[:3], **SMALL)
    rows = 3
    command = [sys.executable, "-c", WRITERS, str(tmp_path / "s"), str(tmp_path / "values.npy")]
    with_leftovers = 0
    # Forks of one process: fifty starts of Python take a minute.
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True,
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        for _ in range(50):
            print(file=server.stdin, flush=True)
            writer = int(server.stdout.readline())
            time.sleep(generator.uniform(0, 0.1))
            os.kill(writer, signal.SIGKILL)
            assert server.stdout.readline() == "gone\n"
            store = SeriesStore.open(tmp_path / "s")
            assert store.meta.num_steps >= rows
            rows = store.meta.num_steps
            np.testing.assert_array_equal(store.read(0, rows), values[:rows])
            files = {store.meta.file_of(part) for part in store.meta.parts}
            names = {path.name for path in (tmp_path / "s").iterdir()}
            with_leftovers += names > {*files, "meta.json"}
    assert rows > 10  # writers got ahead
    grow(tmp_path / "s", values[rows : rows + 1])
    write_store(tmp_path / "written", values[: rows + 1], **SMALL)
    assert_equal(tmp_path / "s", tmp_path / "written")
    assert with_leftovers > 5  # some were killed on the way


def test_two_writers_at_once_take_turns(tmp_path: Path) -> None:
    """No row is lost, and the one that waits is told."""
    values = sample_readings(200)
    write_store(tmp_path / "s", values[:1])
    waited: list[bool] = []

    def append_rows() -> None:
        for _ in range(20):
            with StoreAppender(tmp_path / "s", on_busy=lambda: waited.append(True)) as appender:
                axis = SeriesStore.open(tmp_path / "s").time_axis
                row = appender.num_steps
                time.sleep(0.001)
                appender.append(values[row : row + 1])
                appender.finish(replace(axis, num_steps=row + 1))

    threads = [threading.Thread(target=append_rows) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = SeriesStore.open(tmp_path / "s")
    np.testing.assert_array_equal(store.read(0, 41), values[:41])
    assert store.meta.num_steps == 41
    assert waited


def test_torn_leftovers_are_ignored_and_removed(tmp_path: Path) -> None:
    """Bytes behind the rows, other generations and partial files; numpy opens the files as well."""
    values = sample_readings()
    write_store(tmp_path / "s", values[:40], **SMALL)
    for name in ("series.npy", "moments.npy", "digests.npy"):
        with (tmp_path / "s" / name).open("ab") as file:
            file.write(b"torn")
    for name in ("series-1.npy", "series-1.old", "time.npy", ".meta.json.0.partial"):
        (tmp_path / "s" / name).write_bytes(b"torn")
    SeriesStore.open(tmp_path / "s").verify()
    grow(tmp_path / "s", values[40:])
    write_store(tmp_path / "written", values, **SMALL)
    assert_equal(tmp_path / "s", tmp_path / "written")
    assert np.load(tmp_path / "s" / "series.npy").shape == (50, 4, 2)
    assert np.load(tmp_path / "s" / "moments.npy").shape == (7, 2, 3)


@pytest.mark.parametrize("is_off_grid", [False, True])
def test_a_full_disk_leaves_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_off_grid: bool
) -> None:
    """Whichever file cannot be written, nothing of the append is left."""
    values = sample_readings()
    if is_off_grid:
        values[45] = np.float32(1 / 3)
    write_store(tmp_path / "s", values[:40], **SMALL)
    before = files_of(tmp_path / "s")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    def try_to_grow(target: str) -> str:
        with monkeypatch.context() as patched:
            patched.setattr(target, full)
            try:
                grow(tmp_path / "s", values[40:])
            except StoreError as error:
                return str(error)
        return "it grew"

    for target in (
        "pgti.store.encoder.os.fsync",
        "pgti.store.appender.extend_rows",
        "pgti.store.appender.write_rows",
        "pgti.storage.atomic.sync_file",
    ):
        if target.endswith("extend_rows" if is_off_grid else "write_rows"):
            continue
        assert "cannot be written: No space left on device" in try_to_grow(target)
        assert files_of(tmp_path / "s") == before
    grow(tmp_path / "s", values[40:])
    np.testing.assert_array_equal(SeriesStore.open(tmp_path / "s").read(0, 50), values)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_read_only_store_is_one_line(tmp_path: Path) -> None:
    write_store(tmp_path / "s", sample_readings())
    for path in (*(tmp_path / "s").iterdir(), tmp_path / "s"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        grow(tmp_path / "s", sample_readings())
    (tmp_path / "s").chmod(0o755)


def test_no_store_and_nothing_written(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such directory"):
        grow(tmp_path / "none", sample_readings())
    (tmp_path / "dir").mkdir()
    with pytest.raises(StoreError, match=r"has no meta\.json"):
        grow(tmp_path / "dir", sample_readings())
    assert list((tmp_path / "dir").iterdir()) == []


def test_a_local_copy_of_a_grown_store(tmp_path: Path) -> None:
    """A local copy of a grown store is that store, in its generation."""
    values = sample_readings()
    write_store(tmp_path / "s", values[:30])
    former = local_copy(tmp_path / "s", tmp_path / "disk")
    values[40:] += np.float32(1 / 3)
    grow(tmp_path / "s", values[30:])
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    assert files_of(copy) == files_of(tmp_path / "s")
    assert "series-1.npy" in files_of(copy)
    assert SeriesStore.open(former).meta.num_steps == 30
    np.testing.assert_array_equal(SeriesStore.open(copy).read(0, 50), values)


def test_a_store_of_format_1_is_read_and_cannot_grow(tmp_path: Path) -> None:
    """Its fingerprint is what it was; its prefixes have those of format 2."""
    values = sample_readings()
    write_store(tmp_path / "new", values, **SMALL)
    write_store(tmp_path / "s", values, **SMALL)
    fingerprint = make_format_1(tmp_path / "s")
    new, old = SeriesStore.open(tmp_path / "new"), SeriesStore.open(tmp_path / "s")
    assert old.fingerprint == old.fingerprint_at(50) == fingerprint
    assert old.fingerprint_at(33) == new.fingerprint_at(33)
    np.testing.assert_array_equal(old.read(0, 50), values)
    for rows in (range(50), range(3, 40)):
        assert old.moments(rows).mean.tolist() == new.moments(rows).mean.tolist()
    assert pickle.loads(pickle.dumps(old)).fingerprint == fingerprint
    old.verify()
    before = files_of(tmp_path / "s")
    with pytest.raises(StoreError, match="format 1, which cannot grow: ingest its source again"):
        grow(tmp_path / "s", values)
    assert files_of(tmp_path / "s") == before
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    assert files_of(copy) == before
