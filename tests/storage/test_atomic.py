"""Files that are written whole or not at all."""

import subprocess
import sys
from pathlib import Path

import pytest

from pgti.errors import RunError, StoreError
from pgti.storage import (
    remove_partial_files,
    replace_atomically,
    reraise_os_errors,
    write_atomically,
)


def test_a_file_is_replaced_when_it_is_complete(tmp_path: Path) -> None:
    """Until then the old one is there, and after a failure it alone."""
    path = tmp_path / "file"
    write_atomically(path, b"old")
    with pytest.raises(ZeroDivisionError), replace_atomically(path) as partial:
        partial.write_bytes(b"%d" % (1 // 0))
    assert path.read_bytes() == b"old"
    with replace_atomically(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    """With the file and the system's reason."""
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"file/x cannot be written: Not a directory$"):
        write_atomically(tmp_path / "file" / "x", b"")


def test_a_killed_writer_leaves_a_file_that_is_recognized(tmp_path: Path) -> None:
    """Other files stay."""
    (tmp_path / "mine.partial").touch()
    with replace_atomically(tmp_path / "file") as partial:
        partial.touch()
        remove_partial_files(tmp_path)
        assert not partial.exists()
        partial.touch()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "mine.partial"]


KILLED = """
import os, sys
from pathlib import Path
from pgti.storage import replace_atomically
with replace_atomically(Path(sys.argv[1])) as partial:
    partial.write_text("half")
    os._exit(9)
"""


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    """Of this file alone; what a living writer has begun stays."""
    for name in ("file", "file.x"):
        subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    (of_another,) = tmp_path.glob(".file.x.*")
    assert len([*tmp_path.iterdir()]) == 2
    with replace_atomically(tmp_path / "file") as living:
        assert {*tmp_path.iterdir()} == {living, of_another}
        write_atomically(tmp_path / "file", b"other")
        living.write_bytes(b"mine")
    assert (tmp_path / "file").read_bytes() == b"mine"
    assert sorted(tmp_path.iterdir()) == [of_another, tmp_path / "file"]


def test_without_locks_nothing_is_cleaned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot be locked, what looks left over may be somebody's."""

    def unsupported(*_: int) -> None:
        raise OSError(95, "Operation not supported")

    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "file")], check=False)
    monkeypatch.setattr("fcntl.flock", unsupported)
    write_atomically(tmp_path / "file", b"whole")
    assert len([*tmp_path.iterdir()]) == 2


def test_an_error_of_the_system_gets_the_type_that_is_asked_for() -> None:
    """Other errors pass."""
    with (
        pytest.raises(StoreError, match=r"^x cannot be read: Input/output error$"),
        reraise_os_errors("x cannot be read", StoreError),
    ):
        raise OSError(5, "Input/output error")
    with pytest.raises(KeyError), reraise_os_errors("x"):
        raise KeyError
