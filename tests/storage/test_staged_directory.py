"""Directories that appear whole or not at all."""

import resource
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from pgti.errors import RunError
from pgti.storage import StagedDirectory, recover_displaced, staged_directory

KILLED = """
import os, sys
from pathlib import Path
from pgti.storage import StagedDirectory
with StagedDirectory(Path(sys.argv[1]), check_target=lambda path: None) as staged:
    (staged.path / "part").write_text("half")
    os._exit(9)
"""


def refuse_anything(path: Path) -> None:
    if path.exists():
        raise RunError(f"{path} exists")


def stage(target: Path) -> StagedDirectory:
    return StagedDirectory(target, check_target=refuse_anything)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_directory_appears_when_it_is_published(tmp_path: Path) -> None:
    """With its subdirectories; the temporary name, its lock and nothing else are there before."""
    with stage(tmp_path / "new" / "d") as staged:
        (staged.path / "sub").mkdir()
        (staged.path / "sub" / "part").write_text("whole")
        assert names_in(tmp_path / "new") == [staged.path.name, f"{staged.path.name}.lock"]
        staged.publish()
    assert names_in(tmp_path / "new") == ["d"]
    assert (tmp_path / "new" / "d" / "sub" / "part").read_text() == "whole"


def test_what_is_not_published_goes(tmp_path: Path) -> None:
    """With the parents that were created for it."""
    with stage(tmp_path / "new" / "deep" / "d") as staged:
        (staged.path / "part").write_text("half")
    assert names_in(tmp_path) == []


def test_a_target_that_must_stay_is_refused_before_and_after(tmp_path: Path) -> None:
    """What appears while the directory is written stays too."""
    (tmp_path / "d").mkdir()
    with pytest.raises(RunError, match="exists"):
        stage(tmp_path / "d")
    (tmp_path / "d").rmdir()
    with stage(tmp_path / "d") as staged:
        (tmp_path / "d").mkdir()
        with pytest.raises(RunError, match="exists"):
            staged.publish()
    assert names_in(tmp_path) == ["d"]
    assert names_in(tmp_path / "d") == []


def test_what_is_overwritten_gives_way(tmp_path: Path) -> None:
    """A target that appears between the last look and the rename does so only on request."""
    for overwrite in (False, True):
        looks = list[str]()
        target = tmp_path / f"d{overwrite}"

        def let_pass(path: Path, looks: list[str] = looks) -> None:
            looks.append(path.name)
            if len(looks) == 2:  # pretend that it appears just after the look
                path.mkdir()
                (path / "theirs").touch()

        with StagedDirectory(target, check_target=let_pass, overwrite=overwrite) as staged:
            (staged.path / "ours").touch()
            if overwrite:
                staged.publish()
            else:
                with pytest.raises(OSError, match="not empty"):
                    staged.publish()
        assert names_in(target) == ["ours" if overwrite else "theirs"]
    assert names_in(tmp_path) == ["dFalse", "dTrue"]


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """A dead writer's directory and lock go; a living writer's and other names stay."""
    target = tmp_path / "d"
    subprocess.run([sys.executable, "-c", KILLED, str(target)], check=False)
    assert len(names_in(tmp_path)) == 2
    (tmp_path / ".d.tmp-notes").mkdir()
    with stage(target) as living:
        assert names_in(tmp_path) == sorted(
            [".d.tmp-notes", living.path.name, f"{living.path.name}.lock"]
        )
        with stage(target):
            assert living.path.exists()
        living.publish()
    assert names_in(tmp_path) == [".d.tmp-notes", "d"]


def test_files_that_run_out_leave_nothing(tmp_path: Path) -> None:
    """At any limit of open files, from one that lets nothing be opened on."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    (tmp_path / "there").touch()
    num_failures = 0
    for limit in range(64):
        with ExitStack() as held, suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
            held.callback(resource.setrlimit, resource.RLIMIT_NOFILE, before)
            num_failures += 1
            with stage(tmp_path / "new" / "d") as staged:
                (staged.path / "sub" / "deep").mkdir(parents=True)
                for number in range(64):
                    held.enter_context((staged.path / "sub" / "deep" / str(number)).open("w"))
        assert names_in(tmp_path) == ["there"]
    assert num_failures == 64


def test_links_are_removed_and_what_they_name_is_not(tmp_path: Path) -> None:
    """Of files and of directories, whether they lead somewhere or not."""
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "part").touch()
    with stage(tmp_path / "d") as staged:
        for name in ("theirs", "theirs/part", "nowhere"):
            (staged.path / name.replace("/", "-")).symlink_to(tmp_path / name)
    assert names_in(tmp_path) == ["theirs"]
    assert names_in(tmp_path / "theirs") == ["part"]


SYSTEMS = pytest.mark.parametrize("can_exchange", [True, False])
OVERWRITING = """
import os, signal, sys
from pathlib import Path
from pgti.storage import StagedDirectory, staged_directory

def overwrite(target, last):
    num_events = 0

    def count(event, _):
        nonlocal num_events
        if event in ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "open", "ctypes.dlsym"):
            num_events += 1
            if num_events == last:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    with StagedDirectory(target, check_target=lambda _: None, overwrite=True) as staged:
        (staged.path / "new").touch()
        staged.publish()
    os._exit(0)

if sys.argv[2] == "False":
    staged_directory.exchange = lambda *_: False
for last in range(1, 100):
    target = Path(sys.argv[1]) / str(last) / "d"
    target.mkdir(parents=True)
    (target / "old").touch()
    child = os.fork()
    if not child:
        overwrite(target, last)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@SYSTEMS
def test_an_overwriting_writer_that_is_killed_leaves_the_old_or_the_new(
    tmp_path: Path, can_exchange: bool
) -> None:
    """Killed before each call that changes a name, and the next one finds it and cleans up."""
    subprocess.run(
        [sys.executable, "-c", OVERWRITING, str(tmp_path), str(can_exchange)], check=True
    )
    found, num_recovered = [], 0
    for place in sorted(tmp_path.iterdir(), key=lambda each: int(each.name)):
        target = place / "d"
        assert target.exists() or not can_exchange
        num_recovered += recover_displaced(target)
        found.append(names_in(target))
        with StagedDirectory(target, check_target=lambda _: None, overwrite=True) as staged:
            staged.publish()
        assert names_in(place) == ["d"]
    assert found == sorted(found, reverse=True)
    assert {*map(tuple, found)} == {("old",), ("new",)}
    assert (num_recovered == 0) == can_exchange


@SYSTEMS
def test_a_directory_that_a_link_names_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, can_exchange: bool
) -> None:
    """The new one takes the place of the link."""
    if not can_exchange:
        monkeypatch.setattr("pgti.storage.staged_directory.exchange", lambda *_: False)
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "part").touch()
    (tmp_path / "d").symlink_to("theirs")
    with StagedDirectory(tmp_path / "d", check_target=lambda _: None, overwrite=True) as staged:
        staged.publish()
    assert names_in(tmp_path) == ["d", "theirs"]
    assert not (tmp_path / "d").is_symlink()
    assert names_in(tmp_path / "theirs") == ["part"]


def test_a_living_writer_keeps_what_it_displaced(tmp_path: Path) -> None:
    """Whoever looks for the directory meanwhile does not take it away from the writer."""
    target = tmp_path / "d"
    with StagedDirectory(target, check_target=lambda _: None) as staged:
        displaced = tmp_path / staged.path.name.replace(".tmp-", ".old-")
        displaced.mkdir()
        assert not recover_displaced(target)
        assert displaced.exists()
    assert recover_displaced(target)
    assert names_in(tmp_path) == ["d"]


def test_everything_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files, directories, then the name, then the entries of all parents that are new."""
    done, kinds = [], {}
    for name in ("sync_file", "sync_directory"):
        real = getattr(staged_directory, name)

        def sync(path: Path, real: Callable[[Path], None] = real) -> None:
            done.append(kinds.get(path, path.name))
            real(path)

        monkeypatch.setattr(staged_directory, name, sync)
    with stage(tmp_path / "a" / "b" / "d") as staged:
        (staged.path / "sub").mkdir()
        (staged.path / "sub" / "part").touch()
        kinds[staged.path] = "staged"
        staged.publish()
    assert sorted(done[:3]) == ["part", "staged", "sub"]
    assert done.index("staged") == 2
    assert done[3:] == ["b", "a", tmp_path.name]


def test_without_locks_nothing_is_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot be locked, what looks left over may be somebody's."""
    leftover = tmp_path / f".d.tmp-{'0123' * 8}"
    leftover.mkdir()
    (tmp_path / f"{leftover.name}.lock").touch()

    def unsupported(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    with stage(tmp_path / "d") as staged:
        staged.publish()
    assert names_in(tmp_path) == [leftover.name, f"{leftover.name}.lock", "d"]
