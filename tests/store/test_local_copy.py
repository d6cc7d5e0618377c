"""Copies of stores on a local disk: whole, verified, made once."""

import os
import shutil
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from pgti.errors import StoreError
from pgti.storage import file_lock
from pgti.store import SeriesStore
from pgti.store.local_copy import local_copy

from .small_stores import sample_readings, write_store


def files_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def times_of(directory: Path) -> dict[str, tuple[int, int]]:
    stats = {path.name: path.stat() for path in directory.iterdir()}
    return {name: (stat.st_ino, stat.st_mtime_ns) for name, stat in stats.items()}


def change_a_byte(part: Path) -> None:
    """Change the last byte of a file and nothing of what the system says of the file."""
    before = part.stat()
    content = bytearray(part.read_bytes())
    content[-1] ^= 1
    part.write_bytes(content)
    os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_every_part_for_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a store hashes no part of it, as if each had gigabytes."""
    defaults = SeriesStore.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    monkeypatch.setitem(defaults, "verify_up_to_bytes", 0)


def refuse_to_hash(_: SeriesStore) -> None:
    raise AssertionError("the parts are hashed")


def test_a_copy_is_the_store_byte_for_byte(tmp_path: Path) -> None:
    """It has the store's name and fingerprint, nothing else is left, and one line was said."""
    values, said = sample_readings(), list[str]()
    meta = write_store(tmp_path / "s", values)
    disk = tmp_path / "new" / "disk"
    copy = local_copy(tmp_path / "s", disk, log=said.append)
    assert copy == disk / f"s-{meta.fingerprint[:16]}"
    assert files_of(copy) == files_of(tmp_path / "s")
    np.testing.assert_array_equal(SeriesStore.open(copy).read(0, 50), values)
    assert {path.name for path in disk.iterdir()} == {copy.name, f"{copy.name}.verified.json"}
    assert said == [f"copying 6.1 KiB from {tmp_path / 's'} to {copy}"]


def test_a_copy_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later call neither copies nor hashes the large parts, and says what it uses."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    before, said = times_of(tmp_path / "disk") | times_of(copy), list[str]()
    monkeypatch.setattr(SeriesStore, "verify", refuse_to_hash)
    assert local_copy(str(tmp_path / "s"), tmp_path / "disk", log=said.append) == copy
    assert times_of(tmp_path / "disk") | times_of(copy) == before
    assert said == [f"using the local copy {copy}"]


def test_another_version_of_a_store_gets_another_copy(tmp_path: Path) -> None:
    """A store that is ingested again is copied again; the former copy stays."""
    write_store(tmp_path / "s", sample_readings(50))
    former = local_copy(tmp_path / "s", tmp_path / "disk")
    write_store(tmp_path / "s", sample_readings(51), overwrite=True)
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    assert SeriesStore.open(copy).meta.num_steps == 51
    assert SeriesStore.open(former).meta.num_steps == 50


def test_a_copy_is_its_own_copy(tmp_path: Path) -> None:
    """The copy given as the store is returned; on another disk it gets no second fingerprint."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    assert local_copy(copy, tmp_path / "disk") == copy
    assert local_copy(copy, tmp_path / "other").name == copy.name


def test_a_damaged_store_is_no_copy_to_replace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copy given as the store is refused when it is damaged, and not removed."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    take_every_part_for_large(monkeypatch)
    change_a_byte(copy / "series.npy")
    os.utime(copy / "series.npy")
    with pytest.raises(StoreError, match=r"series\.npy does not match its SHA-256"):
        local_copy(copy, tmp_path / "disk")
    assert set(files_of(copy)) == set(files_of(tmp_path / "s"))


@pytest.mark.parametrize("part", ["series.npy", "moments.npy", "graph.npz", "meta.json"])
@pytest.mark.parametrize("is_missing", [False, True])
def test_a_damaged_copy_is_replaced(tmp_path: Path, part: str, is_missing: bool) -> None:
    """A small part that is missing, or other than it was, is found on opening."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    if is_missing:
        (copy / part).unlink()
    else:
        change_a_byte(copy / part)
    said = list[str]()
    assert local_copy(tmp_path / "s", tmp_path / "disk", log=said.append) == copy
    assert files_of(copy) == files_of(tmp_path / "s")
    assert said[0] == f"replacing the local copy {copy}, which is damaged or older"
    assert said[1].startswith("copying ")
    assert len(said) == 2


@pytest.mark.parametrize("what", ["time", "inode", "stamp"])
def test_a_large_part_that_has_changed_is_hashed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whichever sign of a change there is, the changed byte is found and the copy replaced."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    take_every_part_for_large(monkeypatch)
    part, said = copy / "series.npy", list[str]()
    change_a_byte(part)
    if what == "time":
        os.utime(part)
    elif what == "inode":
        shutil.copy2(part, tmp_path / "part")
        (tmp_path / "part").replace(part)
    else:
        (tmp_path / "disk" / f"{copy.name}.verified.json").write_text("{")
    local_copy(tmp_path / "s", tmp_path / "disk", log=said.append)
    assert files_of(copy) == files_of(tmp_path / "s")
    assert said[0] == f"replacing the local copy {copy}, which is damaged or older"


def test_an_intact_copy_without_a_stamp_is_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copier killed before it wrote the stamp leaves a copy that is used, not made again."""
    write_store(tmp_path / "s", sample_readings())
    copy = local_copy(tmp_path / "s", tmp_path / "disk")
    before = times_of(copy)
    (tmp_path / "disk" / f"{copy.name}.verified.json").unlink()
    local_copy(tmp_path / "s", tmp_path / "disk")
    monkeypatch.setattr(SeriesStore, "verify", refuse_to_hash)
    local_copy(tmp_path / "s", tmp_path / "disk")
    assert times_of(copy) == before


def test_a_store_with_a_damaged_large_part_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What opening the store does not see is seen while it is copied."""
    write_store(tmp_path / "s", sample_readings())
    take_every_part_for_large(monkeypatch)
    change_a_byte(tmp_path / "s" / "series.npy")
    said = list[str]()
    with pytest.raises(StoreError, match=r"series\.npy does not match its SHA-256; ingest it"):
        local_copy(tmp_path / "s", tmp_path / "disk", log=said.append)
    assert said[0].startswith("copying ")
    assert list((tmp_path / "disk").iterdir()) == []


def test_no_store_makes_no_directory(tmp_path: Path) -> None:
    """A store that is not there is refused as everywhere."""
    with pytest.raises(StoreError, match="is not a store: there is no such directory"):
        local_copy(tmp_path / "s", tmp_path / "disk")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_is_refused(tmp_path: Path) -> None:
    """In one line, with the system's reason."""
    write_store(tmp_path / "s", sample_readings())
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be created: Not a directory$"):
        local_copy(tmp_path / "s", tmp_path / "file" / "disk")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_directory_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    """In one line; a copy that is there already is used without a stamp."""
    write_store(tmp_path / "s", sample_readings())
    disk = tmp_path / "disk"
    disk.mkdir()
    disk.chmod(0o555)
    with pytest.raises(StoreError, match=r"cannot be created: Permission denied$"):
        local_copy(tmp_path / "s", disk)
    disk.chmod(0o755)
    copy = local_copy(tmp_path / "s", disk)
    (disk / f"{copy.name}.verified.json").unlink()
    disk.chmod(0o555)
    assert local_copy(tmp_path / "s", disk) == copy


def test_a_full_disk_is_refused_before_copying(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the numbers, and nothing is left; a little more than the store's bytes is needed."""
    write_store(tmp_path / "s", sample_readings())
    needed = sum(len(part) for part in files_of(tmp_path / "s").values())
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed))
    said = list[str]()
    with pytest.raises(
        StoreError, match=r"needs 64\.0 MiB and .*disk has 7\.0 KiB free: free some"
    ):
        local_copy(tmp_path / "s", tmp_path / "disk", log=said.append)
    assert said == []
    assert list((tmp_path / "disk").iterdir()) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed + 2**26))
    local_copy(tmp_path / "s", tmp_path / "disk")


KILLED = """
import os, sys
from pgti.store.local_copy import local_copy
from pgti.storage import StagedDirectory
StagedDirectory.publish = lambda staged: os._exit(9)
local_copy(sys.argv[1], sys.argv[2])
"""


def test_the_next_copier_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """What was written under a temporary name goes, before the free space is looked at."""
    write_store(tmp_path / "s", sample_readings())
    disk = tmp_path / "disk"
    command = [sys.executable, "-c", KILLED, str(tmp_path / "s"), str(disk)]
    assert subprocess.run(command, check=False).returncode == 9
    (lock,) = disk.glob(".s-*.lock")
    left = lock.with_suffix("")
    assert (left / "series.npy").stat().st_size > 4096
    seen = list[bool]()
    copy = local_copy(tmp_path / "s", disk, log=lambda _: seen.append(left.exists()))
    assert seen == [False]
    assert {path.name for path in disk.iterdir()} == {copy.name, f"{copy.name}.verified.json"}


COPIER = """
import sys
from pgti.store.local_copy import local_copy
local_copy(sys.argv[1], sys.argv[2], log=lambda line: print(line, flush=True))
"""


def test_processes_at_once_make_one_copy(tmp_path: Path) -> None:
    """Both wait for the lock that is held here; then one copies and the other uses its copy."""
    meta = write_store(tmp_path / "s", sample_readings())
    disk = tmp_path / "disk"
    disk.mkdir()
    command = [sys.executable, "-c", COPIER, str(tmp_path / "s"), str(disk)]
    with ExitStack() as held:
        assert held.enter_context(file_lock(disk / ".pgti.lock", on_busy=pytest.fail))
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as one,
            subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other,
        ):
            for process in (one, other):
                assert process.stdout is not None
                assert process.stdout.readline().startswith("waiting for another process")
            assert [path.name for path in disk.iterdir()] == [".pgti.lock"]
            held.close()
            said = sorted(process.communicate()[0] for process in (one, other))
    assert [one.returncode, other.returncode] == [0, 0]
    copy = disk / f"s-{meta.fingerprint[:16]}"
    assert said[0].startswith("copying ")
    assert said[1] == f"using the local copy {copy}\n"
    assert files_of(copy) == files_of(tmp_path / "s")
