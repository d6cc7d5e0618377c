"""How much memory is left, in control groups of both versions."""

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch

from pgti.errors import ConfigError
from pgti.memory import available_bytes, cgroup, device_peak_bytes, parse_bytes

MIB = 2**20
GROUPS = Path("/sys/fs/cgroup/memory")


class FakeSystem:
    """A machine and the files of its control groups."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.mount = root / "cgroup"
        self.mount.mkdir()
        self.membership = root / "membership"
        monkeypatch.setattr(cgroup, "_MOUNT", self.mount)
        monkeypatch.setattr(cgroup, "_MEMBERSHIP", self.membership)
        machine = SimpleNamespace(available=8 * 2**30)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: machine)

    def group_v1(self, path: str, limit: int, used: int, **stat: int) -> None:
        """A group of version 1 below the memory controller."""
        directory = self.mount / "memory" / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (directory / "memory.usage_in_bytes").write_text(f"{used}\n")
        entries = {"inactive_file": 7, **{f"total_{name}": size for name, size in stat.items()}}
        lines = (f"{name} {size}\n" for name, size in entries.items())
        (directory / "memory.stat").write_text("".join(lines))

    def group_v2(self, path: str, limit: int | str, used: int, **stat: int) -> None:
        """A group of version 2."""
        directory = self.mount / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.max").write_text(f"{limit}\n")
        (directory / "memory.current").write_text(f"{used}\n")
        lines = (f"{name} {size}\n" for name, size in stat.items())
        (directory / "memory.stat").write_text("".join(lines))


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSystem:
    """8 GiB available, no control group yet."""
    return FakeSystem(tmp_path, monkeypatch)


def test_without_groups_the_machine_decides(system: FakeSystem) -> None:
    """There may be no file of groups at all, or none with a memory controller."""
    assert available_bytes() == 8 * 2**30
    system.membership.write_text("3:cpuset:/\n0::/\n")
    assert available_bytes() == 8 * 2**30


@pytest.mark.parametrize("line", ["4:memory:/jobs/one", "7:cpu,memory:/jobs/one"])
def test_version_1_limits(system: FakeSystem, line: str) -> None:
    """The limit less what is used; clean file pages, active ones too, do not count as used."""
    system.membership.write_text(f"9:name=systemd:/\n{line}\n0::/\n")
    system.group_v1("jobs/one", 2000 * MIB, 900 * MIB, inactive_file=300 * MIB,
                    active_file=200 * MIB, dirty=40 * MIB, writeback=10 * MIB)  # fmt: skip

    assert available_bytes() == (2000 - 900 + 500 - 50) * MIB


def test_version_2_limits(system: FakeSystem) -> None:
    """As in version 1, by other names."""
    system.membership.write_text("0::/user/one\n")
    stat = {"inactive_file": 300, "active_file": 200, "file_dirty": 40, "file_writeback": 10}
    entries = {name: size * MIB for name, size in stat.items()}
    system.group_v2("user/one", 2000 * MIB, 900 * MIB, **entries)

    assert available_bytes() == (2000 - 900 + 500 - 50) * MIB


def test_the_tightest_group_above_decides(system: FakeSystem) -> None:
    """A group may have no limit of its own and lie in one that has."""
    system.membership.write_text("4:memory:/jobs/one\n")
    system.group_v1("jobs/one", 2**63 - 4096, 1)
    system.group_v1("jobs", 500 * MIB, 100 * MIB)
    system.group_v1("", 2**63 - 4096, 1)
    assert available_bytes() == 400 * MIB

    system.membership.write_text("0::/jobs/one\n")
    system.group_v2("jobs/one", "max", 1)
    system.group_v2("jobs", 300 * MIB, 100 * MIB)
    assert available_bytes() == 200 * MIB


@pytest.mark.parametrize("path", ["/docker/0123456789ab", "/../../outside", "/"])
def test_a_container_sees_its_own_group_as_the_mount(system: FakeSystem, path: str) -> None:
    """The path is that of the host, and no such directory is visible."""
    system.group_v1("", 700 * MIB, 200 * MIB)
    system.group_v2("", 600 * MIB, 200 * MIB)

    system.membership.write_text(f"4:memory:{path}\n")
    assert available_bytes() == 500 * MIB
    system.membership.write_text(f"0::{path}\n")
    assert available_bytes() == 400 * MIB


def test_more_than_the_limit_is_nothing(system: FakeSystem) -> None:
    """Never less than nothing, and no limit is none: for both versions."""
    system.membership.write_text("4:memory:/full\n0::/free\n")
    system.group_v1("full", 100 * MIB, 150 * MIB, inactive_file=1, dirty=5 * MIB)
    system.group_v2("free", "max", 150 * MIB)
    assert available_bytes() == 0


@pytest.mark.parametrize("content", ["", "plenty\n"])
def test_a_group_that_cannot_be_read_limits_nothing(system: FakeSystem, content: str) -> None:
    """What is not a number says nothing."""
    system.membership.write_text("0::/odd\n")
    system.group_v2("odd", 100 * MIB, 0)
    (system.mount / "odd" / "memory.max").write_text(content)
    assert available_bytes() == 8 * 2**30


@pytest.fixture
def real_group() -> Iterator[Path]:
    """A control group of 300 MiB, where one can be made."""
    path = GROUPS / f"pgti-test-{uuid.uuid4().hex}"
    try:
        path.mkdir()
        (path / "memory.limit_in_bytes").write_text(str(300 * MIB))
    except OSError as error:
        pytest.skip(f"no memory control group of version 1 can be made here: {error}")
    yield path
    path.rmdir()


IN_GROUP = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
from pgti.memory import available_bytes
before = available_bytes()
with open(sys.argv[2], "rb") as file:  # fills the page cache, which can be taken back
    while file.read(1 << 20):
        pass
after_reading = available_bytes()
block = b"x" * (100 << 20)
print(before, after_reading, available_bytes())
"""


def test_a_real_group_is_respected(real_group: Path, tmp_path: Path) -> None:
    """Its limit bounds what is available; page cache does not count and memory does."""
    path = tmp_path / "read"
    with path.open("wb") as file:
        for _ in range(150):
            file.write(os.urandom(MIB))
        file.flush()
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    command = [sys.executable, "-c", IN_GROUP, str(real_group), str(path)]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout

    before, after_reading, after_taking = map(int, output.split())
    assert before <= 300 * MIB
    assert abs(before - after_reading) < 40 * MIB
    assert 80 * MIB < after_reading - after_taking < 120 * MIB


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [("1", 1), ("2147483648", 2**31), (4096, 4096), ("2GiB", 2**31), ("2 gb", 2**31),
     ("1.5G", 3 * 2**29), ("64MiB", 2**26), ("7k", 7 * 1024), ("3 B", 3), ("1TiB", 2**40)],
)  # fmt: skip
def test_numbers_of_bytes(text: str | int, num_bytes: int) -> None:
    """Units are powers of 1024, whatever they are called."""
    assert parse_bytes("limit", text) == num_bytes


@pytest.mark.parametrize("text", ["", "GiB", "-1", "0", "0.1B", "2 EiB", "1e9", "two", True])
def test_what_is_no_number_of_bytes(text: str | int) -> None:
    """The option is named."""
    with pytest.raises(ConfigError, match=r"limit is .* such as 2GiB"):
        parse_bytes("limit", text)


def test_what_torch_has_reserved_for_no_tensor_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU has what the driver calls free, and what the caching allocator could give again."""
    device = torch.device("cuda", 1)
    numbers = {"memory_reserved": 700 * MIB, "memory_allocated": 300 * MIB}
    for name, number in numbers.items():
        monkeypatch.setattr(torch.cuda, name, {device: number}.__getitem__)
    monkeypatch.setattr(torch.cuda, "mem_get_info", {device: (2000 * MIB, 9000 * MIB)}.__getitem__)
    assert available_bytes(device) == 2400 * MIB


def test_the_peak_of_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU has none; on a GPU it can be measured anew."""
    assert device_peak_bytes(torch.device("cpu"), reset=True) is None
    device, resets = torch.device("cuda", 1), list[torch.device]()
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", {device: 5}.__getitem__)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", resets.append)
    assert device_peak_bytes(device) == 5
    assert not resets
    assert device_peak_bytes(device, reset=True) == 5
    assert resets == [device]
