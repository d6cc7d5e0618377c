"""Directories that appear whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from pgti.errors import RunError
from pgti.storage import StagedDirectory

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
