"""Writing a store all or nothing, and replacing nothing but a store."""

import errno
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pgti.errors import DataError, StoreError
from pgti.graph import SensorGraph
from pgti.store import SeriesStore, StoreWriter

from .small_stores import START, sample_readings, write_store


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
    write_store(tmp_path / "s", sample_readings(30))
    with pytest.raises(StoreError, match="exists already"):
        write_store(tmp_path / "s", sample_readings(31))
    with pytest.raises(DataError, match="infinite"):
        write_store(tmp_path / "s", np.full((3, 4, 2), np.inf), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 30
    write_store(tmp_path / "s", sample_readings(31), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 31
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize("content", [None, "notes.txt", "meta.json", "list"])
def test_overwrite_replaces_nothing_but_a_store(tmp_path: Path, content: str | None) -> None:
    """A directory that holds no description of a store is never removed, whatever is asked."""
    target = tmp_path / "thesis"
    target.mkdir()
    if content == "list":
        (target / "meta.json").write_text("[1]")
    elif content is not None:
        (target / content).write_text('{"title": "mine"}')
    before = sorted(path.name for path in target.iterdir())
    with pytest.raises(StoreError, match="thesis is not a store: choose another name"):
        write_store(target, sample_readings(), overwrite=True)
    assert sorted(path.name for path in target.iterdir()) == before
    assert [path.name for path in tmp_path.iterdir()] == ["thesis"]


def test_overwrite_refuses_a_file_and_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is not a store, and "." means the current directory."""
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="file is not a store"):
        write_store(tmp_path / "file", sample_readings(), overwrite=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for name in (Path(), Path("/")):
        with pytest.raises(StoreError, match="is not a store"):
            write_store(name, sample_readings(), overwrite=True)
        with pytest.raises(StoreError, match="exists already"):
            write_store(name, sample_readings())


def test_a_damaged_store_is_overwritten(tmp_path: Path) -> None:
    """What opening refuses can be made anew under the same name."""
    write_store(tmp_path / "s", sample_readings(30))
    (tmp_path / "s" / "series.npy").unlink()
    (tmp_path / "s" / "meta.json").write_text('{"format_version": 99}')
    write_store(tmp_path / "s", sample_readings(31), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 31


def test_a_link_is_replaced_and_not_what_it_leads_to(tmp_path: Path) -> None:
    """Overwriting through a symbolic link leaves the linked store alone."""
    write_store(tmp_path / "real", sample_readings(30))
    (tmp_path / "link").symlink_to("real")
    write_store(tmp_path / "link", sample_readings(31), overwrite=True)
    assert SeriesStore.open(tmp_path / "real").meta.num_steps == 30
    assert SeriesStore.open(tmp_path / "link").meta.num_steps == 31
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "real"]


def test_a_failed_rename_puts_the_store_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where names cannot be exchanged: if the new store cannot get it, the former has it again."""
    write_store(tmp_path / "s", sample_readings(30))
    rename = Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if ".tmp-" in path.name:
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr("pgti.storage.staged_directory.exchange", lambda *_: False)
    monkeypatch.setattr(Path, "rename", refusing)
    with pytest.raises(StoreError, match="cannot be written: Input/output error"):
        write_store(tmp_path / "s", sample_readings(31), overwrite=True)
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 30
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_a_target_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    """What gets the name while the store is written is checked again before it gives way."""
    target = tmp_path / "s"
    graph = SensorGraph.empty(1)
    with StoreWriter(target, node_ids=("a",), channels=("v",), graph=graph) as writer:
        writer.append(np.ones((3, 1, 1)))
        target.mkdir()
        with pytest.raises(StoreError, match="exists already"):
            writer.finish()
    assert list(target.iterdir()) == []


def test_a_name_that_cannot_be_leaves_no_parents(tmp_path: Path) -> None:
    """Entering fails on a name that is too long, and removes the parents it has made."""
    with pytest.raises(StoreError, match="cannot be written: File name too long"):
        write_store(tmp_path / "new" / "deep" / ("x" * 240), sample_readings())
    with pytest.raises(StoreError, match="cannot be written: File name too long"):
        write_store(tmp_path / "new" / ("x" * 300) / "s", sample_readings())
    assert list(tmp_path.iterdir()) == []


KILLED = """
import os, sys
import numpy as np
from pgti.graph import SensorGraph
from pgti.store import StoreWriter
graph = SensorGraph.empty(1)
with StoreWriter(sys.argv[1], node_ids=("a",), channels=("v",), graph=graph) as writer:
    writer.append(np.ones((3, 1, 1)))
    os._exit(9)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """A dead writer's directory goes; a living writer's and other names stay."""
    target = tmp_path / "s"
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    (lock,) = tmp_path.glob("*.lock")
    dead = lock.with_suffix("")
    assert dead.name.startswith(".s.tmp-")
    assert dead.exists()
    (tmp_path / ".s.tmp-notes").mkdir()
    living = StoreWriter(target, node_ids=("a",), channels=("v",), graph=SensorGraph.empty(1))
    with living:
        assert not dead.exists()
        living.append(np.ones((3, 1, 1)))
        write_store(tmp_path / "t", sample_readings())
        with StoreWriter(
            target, node_ids=("a",), channels=("v",), graph=SensorGraph.empty(1)
        ) as other:
            other.append(np.ones((4, 1, 1)))
        living.finish()
    assert SeriesStore.open(target).meta.num_steps == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == [".s.tmp-notes", "s", "t"]


def test_a_former_store_gets_its_name_back(tmp_path: Path) -> None:
    """A writer killed between its two renames leaves it to be found by the next."""
    former = tmp_path / f".s.old-{'0' * 32}"
    write_store(former, sample_readings(30))
    with pytest.raises(StoreError, match="exists already"):
        write_store(tmp_path / "s", sample_readings(31))
    assert SeriesStore.open(tmp_path / "s").meta.num_steps == 30
    write_store(tmp_path / "s", sample_readings(32), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("times", "zone", "message"),
    [
        ({"start": START}, None, "a start and no interval"),
        ({"start": START, "interval_seconds": 0}, None, "the interval is 0 s"),
        ({"start": START, "interval_seconds": 300}, "Mars/Olympus", "no time zone"),
        ({"seconds": np.array([0, 300, 300])}, None, "do not increase"),
        ({"seconds": np.array([0, 300])}, None, "2 times for 3 rows"),
    ],
)
def test_times_that_no_store_can_have_are_refused(
    tmp_path: Path, times: dict[str, object], zone: str | None, message: str
) -> None:
    """What could not be opened again is not written."""
    graph = SensorGraph.empty(1)
    with StoreWriter(
        tmp_path / "s", node_ids=("a",), channels=("v",), graph=graph, time_zone=zone
    ) as writer:
        writer.append(np.ones((3, 1, 1)))
        with pytest.raises(DataError, match=message):
            writer.finish(**times)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("ids", "channels", "nodes", "message"),
    [
        (("a", "a"), ("v",), 2, "sensor id 'a' occurs twice"),
        (("a", "b"), ("v", "v"), 2, "channel 'v' occurs twice"),
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
        write_store(tmp_path / "s", np.empty((0, 2, 1)))
    with pytest.raises(DataError, match="every reading of the source is missing"):
        write_store(tmp_path / "s", np.full((5, 2, 1), np.nan))
    assert list(tmp_path.iterdir()) == []
