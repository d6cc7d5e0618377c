"""Locks between processes."""

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgti.storage import file_lock

HOLDER = """
import sys, time
from pathlib import Path
from pgti.storage import file_lock
with file_lock(Path(sys.argv[1]), on_busy=lambda: None) as is_held:
    print(is_held, flush=True)
    sys.stdin.read()
"""


@contextmanager
def another_process_holds(path: Path) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield holder


def refuse() -> None:
    raise PermissionError("busy")


def test_a_lock_file_exists_while_the_lock_is_held(tmp_path: Path) -> None:
    """Also where the block fails."""
    path = tmp_path / "lock"
    with file_lock(path, on_busy=refuse) as is_held:
        assert is_held
        assert path.exists()
    with pytest.raises(KeyError), file_lock(path, on_busy=refuse):
        raise KeyError
    assert not path.exists()


def test_a_lock_ends_with_its_process(tmp_path: Path) -> None:
    """Killed, it leaves a file, which is no obstacle."""
    path = tmp_path / "lock"
    with another_process_holds(path) as holder:
        with pytest.raises(PermissionError, match="busy"), file_lock(path, on_busy=refuse):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    assert path.exists()
    with file_lock(path, on_busy=refuse) as is_held:
        assert is_held
    assert not path.exists()


def test_whoever_waits_says_so_once(tmp_path: Path) -> None:
    """Then it has the lock."""
    path, calls = tmp_path / "lock", []
    with another_process_holds(path) as holder:

        def free_soon() -> None:
            calls.append("busy")
            assert holder.stdin is not None
            threading.Timer(0.2, holder.stdin.close).start()

        with file_lock(path, on_busy=free_soon) as is_held:
            assert is_held
            assert holder.wait() == 0
    assert calls == ["busy"]
    assert not path.exists()


def test_one_thread_at_a_time(tmp_path: Path) -> None:
    """Even though each holder removes the file for which the others wait."""
    path, inside, most = tmp_path / "lock", [], []

    def enter() -> None:
        for _ in range(20):
            with file_lock(path, on_busy=lambda: None) as is_held:
                assert is_held
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 80
    assert max(most) == 1
    assert not path.exists()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EIO])
def test_where_files_cannot_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """The block runs all the same, and knows; only a file that was there before is left."""

    def unsupported(*_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", unsupported)
    (tmp_path / "old").touch()
    for name in ("new", "old"):
        with file_lock(tmp_path / name, on_busy=refuse) as is_held:
            assert not is_held
    assert [each.name for each in tmp_path.iterdir()] == ["old"]


def test_where_no_file_can_be_created(tmp_path: Path) -> None:
    """Below a file, for example."""
    (tmp_path / "file").touch()
    with file_lock(tmp_path / "file" / "lock", on_busy=refuse) as is_held:
        assert not is_held


def test_a_file_that_cannot_be_created_is_not_waited_for() -> None:
    """Filelock takes a missing file in a directory that exists for one that another creates."""
    where = Path("/proc/pgti.lock")
    if not where.parent.is_dir():
        pytest.skip("there is no file system here in which nothing can be created")
    with file_lock(where, on_busy=refuse) as is_held:
        assert not is_held
