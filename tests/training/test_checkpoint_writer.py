"""Checkpoints that a thread writes: copies, in order, and errors that come back."""

import threading
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from torch import nn

from pgti.errors import RunError
from pgti.training import Checkpoint
from pgti.training.checkpoint_writer import CheckpointWriter

from .test_checkpoint import make_checkpoint


class Disk:
    """Where checkpoints are written once `is_ready`; it notes their names."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.is_ready = threading.Event()
        self.written: list[str] = []
        save = Checkpoint.save

        def save_when_ready(checkpoint: Checkpoint, path: Path) -> None:
            assert self.is_ready.wait(60)
            save(checkpoint, path)
            self.written.append(path.name)

        monkeypatch.setattr(Checkpoint, "save", save_when_ready)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk(monkeypatch)
    yield disk
    disk.is_ready.set()  # whatever happened, no thread is left


def test_a_checkpoint_holds_the_moment_in_which_it_was_handed_over(
    tmp_path: Path, disk: Disk
) -> None:
    """While parameters, buffers and moments change; shared ones stay shared."""
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    network.append(network[0])
    optimizer, writer = torch.optim.Adam(network.parameters()), CheckpointWriter()

    def step() -> None:
        for each in (*network.parameters(), *network.buffers()):
            each.grad = torch.ones_like(each) if each.requires_grad else None
        network[1].running_mean += 1
        optimizer.step()

    def state() -> Checkpoint:
        return make_checkpoint(network=network.state_dict(), optimizer=optimizer.state_dict())

    step()
    expected = tmp_path / "expected"
    expected.mkdir()
    disk.is_ready.set()
    state().save(expected / "last.pt")
    disk.is_ready.clear()
    writer.write(state(), tmp_path / "last.pt")
    step()
    assert not (tmp_path / "last.pt").exists()
    disk.is_ready.set()
    writer.wait()
    files = [path / "last.pt" for path in (expected, tmp_path)]
    wanted, found = (Checkpoint.load(file) for file in files)
    for name, tensor in wanted.network.items():
        assert torch.equal(found.network[name], tensor), name
    assert found.network._metadata == wanted.network._metadata  # type: ignore[attr-defined] # torch's
    torch.testing.assert_close(found.optimizer, wanted.optimizer, rtol=0, atol=0)
    entries = [ZipFile(file).namelist() for file in files]
    assert entries[0] == entries[1]  # no tensor is there twice


def test_checkpoints_are_written_in_order_one_at_a_time(tmp_path: Path, disk: Disk) -> None:
    """The second waits for the first, in the thread that trains."""
    writer = CheckpointWriter()
    writer.write(make_checkpoint(), tmp_path / "best.pt")
    second = threading.Thread(target=writer.write, args=(make_checkpoint(), tmp_path / "last.pt"))
    second.start()
    second.join(0.05)
    assert second.is_alive()
    assert not disk.written
    disk.is_ready.set()
    second.join(60)
    writer.wait()
    writer.join()
    assert disk.written == ["best.pt", "last.pt"]
    assert [each for each in threading.enumerate() if "checkpoint" in each.name] == []


def test_what_fails_in_the_thread_is_raised_once_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = CheckpointWriter()
    gone = tmp_path / "gone" / "last.pt"
    writer.write(make_checkpoint(), gone)
    with pytest.raises(RunError, match=rf"^{gone} cannot be written: No such file or directory$"):
        writer.write(make_checkpoint(), tmp_path / "last.pt")
    writer.wait()
    assert list(tmp_path.iterdir()) == []

    def run_out_of_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Checkpoint, "save", run_out_of_memory)
    writer.write(make_checkpoint(), tmp_path / "last.pt")
    with pytest.raises(RunError, match=r"last\.pt cannot be written: MemoryError: $"):
        writer.wait()
    writer.join()


@pytest.mark.gpu
def test_a_state_on_a_gpu_is_copied_without_waiting(tmp_path: Path, disk: Disk) -> None:
    """Steps that follow on the same stream do not change the copy."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    weight = torch.arange(1 << 20, dtype=torch.float32, device="cuda")
    expected, writer = weight.cpu(), CheckpointWriter()
    writer.write(make_checkpoint(network={"weight": weight}), tmp_path / "last.pt")
    weight.zero_()
    disk.is_ready.set()
    writer.wait()
    writer.join()
    assert torch.equal(Checkpoint.load(tmp_path / "last.pt").network["weight"], expected)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta state:UserWarning")
def test_sparse_buffers_are_copied_too(tmp_path: Path, disk: Disk) -> None:
    network, writer = nn.Linear(2, 3), CheckpointWriter()
    network.register_buffer("edges", torch.eye(3).to_sparse())
    network.register_buffer("walk", torch.eye(3).to_sparse_csr())
    writer.write(make_checkpoint(network=network.state_dict()), tmp_path / "last.pt")
    network.get_buffer("edges").mul_(2)
    disk.is_ready.set()
    writer.join()
    written = Checkpoint.load(tmp_path / "last.pt").network
    for name in ("edges", "walk"):
        assert torch.equal(written[name].to_dense(), torch.eye(3))
