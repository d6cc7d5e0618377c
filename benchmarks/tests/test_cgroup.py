"""Commands in control groups: in a fake file tree, and in a real group where there is one."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pgti_bench import limited_run
from pgti_bench.cgroup import MemoryGroup
from pgti_bench.errors import BenchError
from pgti_bench.limited_run import LimitedRun, run_limited

MIB = 1 << 20
LIMIT = 64 * MIB
NO_LIMIT = "9223372036854771712\n"

# Takes a whole number of MiB, touches every page of them and prints to both streams.
TAKE = """
import sys, time
taken = bytearray(int(sys.argv[1]) << 20)
for page in range(0, len(taken), 4096):
    taken[page] = 1
time.sleep(float(sys.argv[2]))
print("taken")
print("logged", file=sys.stderr)
"""


def take(mebibytes: int, seconds: float = 0.0, limit: int | None = None) -> LimitedRun:
    return run_limited([sys.executable, "-S", "-c", TAKE, str(mebibytes), str(seconds)], limit)


def version_1(mount: Path, own: str = "/job", own_limit: str = NO_LIMIT) -> Path:
    """A tree of version 1 with one group; returns the file that names a process's groups."""
    for group, limit in (("", NO_LIMIT), (own.lstrip("/"), own_limit)):
        directory = mount / "memory" / group
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.limit_in_bytes").write_text(limit)
    membership = mount / "membership"
    membership.write_text(f"5:cpu:/elsewhere\n4:memory:{own}\n0::/\n")
    return membership


def version_2(mount: Path, own: str, dividing: str) -> Path:
    """A tree of version 2, in which the group `dividing` hands memory on to those in it."""
    (mount / own.lstrip("/")).mkdir(parents=True)
    (mount / "cgroup.controllers").write_text("cpu memory pids\n")
    (mount / dividing.lstrip("/") / "cgroup.subtree_control").write_text("cpu memory\n")
    membership = mount / "membership"
    membership.write_text(f"0::{own}\n")
    return membership


@pytest.fixture
def removable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel removes a group's files with its directory; a plain file system does not."""
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)


# -- a fake tree ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("removable")
def test_version_1_limits_memory_and_swap_together(tmp_path: Path) -> None:
    """A group at the top, where no limit holds; its peak and its kills are what the files say."""
    membership = version_1(tmp_path)
    with MemoryGroup(LIMIT, mount=tmp_path, membership=membership) as group:
        path = group.directory
        assert path.parent == tmp_path / "memory"
        assert (path / "memory.limit_in_bytes").read_text() == str(LIMIT)
        group.add(1234)
        assert (path / "cgroup.procs").read_text() == "1234"
        (path / "cgroup.procs").write_text("")
        (path / "memory.max_usage_in_bytes").write_text("5000\n")
        (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n")
        assert (group.peak_bytes(), group.has_killed()) == (5000, False)
        (path / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n")
        assert group.has_killed()
    assert not path.exists()
    with pytest.raises(BenchError, match="use a `with` statement"):
        group.add(1)


@pytest.mark.usefixtures("removable")
def test_a_limit_that_holds_already_goes_on_holding(tmp_path: Path) -> None:
    """Version 1: the group is made in the limited one of this process, not beside it."""
    membership = version_1(tmp_path, "/job/step", own_limit=str(4 * LIMIT))
    with MemoryGroup(LIMIT, mount=tmp_path, membership=membership) as group:
        assert group.directory.parent == tmp_path / "memory" / "job" / "step"


@pytest.mark.usefixtures("removable")
def test_version_2_divides_the_nearest_group_that_may_be(tmp_path: Path) -> None:
    """Without a file of the peak, the largest usage that was looked at is the peak."""
    membership = version_2(tmp_path, "/user/session", dividing="/user")
    with MemoryGroup(LIMIT, mount=tmp_path, membership=membership) as group:
        path = group.directory
        assert path.parent == tmp_path / "user"
        assert (path / "memory.max").read_text() == str(LIMIT)
        assert group.peak_bytes() is None
        for usage, peak in ((3000, 3000), (9000, 9000), (2000, 9000)):
            (path / "memory.current").write_text(f"{usage}\n")
            assert group.peak_bytes() == peak
        (path / "memory.events").write_text("low 0\noom 3\noom_kill 0\n")
        assert not group.has_killed()
        (path / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
        assert group.has_killed()
    assert not path.exists()


@pytest.mark.usefixtures("removable")
def test_swap_is_limited_where_the_kernel_counts_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version 1 gets the same limit for memory and swap together, version 2 none of swap."""
    plain_mkdir = Path.mkdir

    def mkdir_with(name: str) -> None:
        def mkdir(path: Path) -> None:
            plain_mkdir(path)
            (path / name).write_text("max")

        monkeypatch.setattr(Path, "mkdir", mkdir)

    membership = version_1(tmp_path / "1")
    mkdir_with("memory.memsw.limit_in_bytes")
    with MemoryGroup(LIMIT, mount=tmp_path / "1", membership=membership) as group:
        assert (group.directory / "memory.memsw.limit_in_bytes").read_text() == str(LIMIT)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "rmdir", shutil.rmtree)
    membership = version_2(tmp_path / "2", "/a", dividing="/")
    mkdir_with("memory.swap.max")
    with MemoryGroup(LIMIT, mount=tmp_path / "2", membership=membership) as group:
        assert (group.directory / "memory.swap.max").read_text() == "0"


@pytest.mark.usefixtures("removable")
def test_groups_that_were_left_behind_go(tmp_path: Path) -> None:
    """Those of dead makers in which nothing runs; never one that is in use."""
    membership = version_1(tmp_path)
    maker = subprocess.Popen([sys.executable, "-c", ""])
    maker.wait()
    names = {"dead": f"pgti-{maker.pid}-0", "busy": f"pgti-{maker.pid}-1", "own": "pgti-self-2"}
    for name in names.values():
        (tmp_path / "memory" / name).mkdir()
    (tmp_path / "memory" / names["busy"] / "cgroup.procs").write_text("1\n")
    with MemoryGroup(LIMIT, mount=tmp_path, membership=membership) as group:
        found = {path.name for path in (tmp_path / "memory").glob("pgti-*")}
        assert found == {names["busy"], names["own"], group.directory.name}


def test_a_group_that_cannot_be_had(tmp_path: Path) -> None:
    """The command runs all the same, and the result says why there was no limit."""
    missing = MemoryGroup(LIMIT, mount=tmp_path / "none", membership=tmp_path / "membership")
    result = run_limited([sys.executable, "-c", "print('done')"], LIMIT, group=missing)
    assert (result.exit_code, result.output) == (0, "done\n")
    assert (result.limit_bytes, result.group_peak_bytes, result.was_oom_killed) == (
        None,
        None,
        False,
    )
    assert "no memory controller" in result.no_limit_because


@pytest.mark.usefixtures("removable")
def test_a_process_that_cannot_be_moved_runs_without_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of the group is left, nor claimed."""

    def refuse(group: MemoryGroup, process: int) -> None:
        raise BenchError(f"process {process} cannot be moved into {group.directory.name}")

    monkeypatch.setattr(MemoryGroup, "add", refuse)
    group = MemoryGroup(LIMIT, mount=tmp_path, membership=version_1(tmp_path))
    result = run_limited([sys.executable, "-c", "print('done')"], LIMIT, group=group)
    assert (result.exit_code, result.output, result.limit_bytes) == (0, "done\n", None)
    assert "cannot be moved" in result.no_limit_because
    assert [path.name for path in (tmp_path / "memory").glob("pgti-*")] == []


# -- running --------------------------------------------------------------------------------------


def test_a_result_tells_how_the_command_ended() -> None:
    """Its exit code, what it wrote, and no limit."""
    code = "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)"
    result = run_limited([sys.executable, "-c", code], None)
    assert (result.exit_code, result.output, result.messages) == (7, "out\n", "err\n")
    assert (result.limit_bytes, result.no_limit_because) == (None, "")
    assert result.seconds > 0


def test_variables_reach_the_command() -> None:
    """They are set on top of this process's own."""
    code = "import os; print(os.environ['PGTI_TRIED'], 'PATH' in os.environ)"
    result = run_limited([sys.executable, "-c", code], None, env={"PGTI_TRIED": "yes"})
    assert result.output == "yes True\n"


@pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(), reason="needs Linux's smaps_rollup"
)
def test_the_memory_of_children_counts() -> None:
    """A process that starts another one has the memory of both."""
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {TAKE!r}, '80', '4'])"
    result = run_limited([sys.executable, "-S", "-c", child], None)
    assert result.exit_code == 0
    assert result.peak_pss_bytes is not None
    assert 80 * MIB <= result.peak_pss_bytes < 160 * MIB
    small = take(1, seconds=0.6)
    assert small.peak_pss_bytes is not None
    assert small.peak_pss_bytes < 40 * MIB


def test_an_interrupted_call_leaves_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command and its children die with it."""
    begun: list[int] = []

    def interrupted(process: int) -> int:
        begun.append(process)
        raise KeyboardInterrupt

    monkeypatch.setattr(limited_run, "session_pss_bytes", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_limited([sys.executable, "-c", "import time; time.sleep(60)"], None)
    with pytest.raises(ProcessLookupError):
        os.kill(begun[0], 0)


# -- a real group ---------------------------------------------------------------------------------


def why_no_group() -> str:
    try:
        with MemoryGroup(LIMIT):
            return ""
    except BenchError as error:
        return str(error)


NO_GROUP = why_no_group()
needs_group = pytest.mark.skipif(bool(NO_GROUP), reason=NO_GROUP or "there is one")


@needs_group
def test_the_limit_kills_what_takes_more() -> None:
    """A process that wants twice the limit is killed by the group, and the group is removed."""
    result = take(2 * LIMIT // MIB, limit=LIMIT)
    assert result.limit_bytes == LIMIT
    assert result.was_oom_killed
    assert result.exit_code == -9
    assert result.output == ""
    assert result.group_peak_bytes is not None
    assert 0.9 * LIMIT <= result.group_peak_bytes <= 1.1 * LIMIT
    with MemoryGroup(LIMIT) as group:
        others = list(group.directory.parent.glob(f"pgti-{os.getpid()}-*"))
        assert others == [group.directory]


@needs_group
def test_the_limit_spares_what_takes_less() -> None:
    """Its peak is that of the group, and lies between what was taken and the limit."""
    result = take(32, seconds=0.3, limit=LIMIT)
    assert (result.exit_code, result.was_oom_killed, result.output) == (0, False, "taken\n")
    assert result.messages == "logged\n"
    assert result.group_peak_bytes is not None
    assert 32 * MIB <= result.group_peak_bytes <= LIMIT


@needs_group
def test_a_group_is_removed_with_what_still_runs_in_it() -> None:
    """Leaving it kills a process that is still running."""
    with MemoryGroup(LIMIT) as group:
        path = group.directory
        process = subprocess.Popen(["sleep", "60"])
        group.add(process.pid)
        assert str(process.pid) in (path / "cgroup.procs").read_text().split()
    assert not path.exists()
    assert process.wait(timeout=30) == -9
