"""Checkpoints: whole or refused."""

import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn

from pgti.errors import RunError
from pgti.training import Checkpoint
from pgti.training.progress import Progress


def make_checkpoint(**changes: object) -> Checkpoint:
    """A small checkpoint."""
    content = {
        "network": {"weight": torch.arange(6.0).reshape(2, 3)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1}]},
        "position": Progress(epoch=2, step=7, loss_sum=1 / 3).to_plain(),
        "scaler": {"mean": [1.5], "std": [2.5]},
        "fingerprint": "f" * 64,
        "settings": {"model": {"name": "linear"}, "training": {"milestones": [1, 2]}},
    }
    return Checkpoint(**{**content, **changes})


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """Tensors, numbers and names come back bit for bit."""
    checkpoint = make_checkpoint()
    checkpoint.save(tmp_path / "last.pt")

    found = Checkpoint.load(tmp_path / "last.pt")

    assert torch.equal(found.network["weight"], checkpoint.network["weight"])
    assert found.optimizer == checkpoint.optimizer
    assert Progress.from_plain(found.position) == Progress.from_plain(checkpoint.position)
    assert (found.scaler, found.fingerprint, found.settings) == (
        checkpoint.scaler,
        checkpoint.fingerprint,
        checkpoint.settings,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_tensor_of_two_names_reads_back(tmp_path: Path) -> None:
    """As weights that are tied, and buffers of both kinds of weights."""
    tied = torch.arange(3.0)
    weights = {"encoder": tied, "decoder": tied}
    make_checkpoint(network=weights, trained=dict(weights)).save(tmp_path / "last.pt")

    found = Checkpoint.load(tmp_path / "last.pt")

    assert found.trained is not None
    for each in (*found.network.values(), *found.trained.values()):
        assert torch.equal(each, tied)


@pytest.mark.filterwarnings("ignore:Sparse CSR")
def test_sparse_tensors_read_back(tmp_path: Path) -> None:
    """As buffers of a network of the user's own."""
    sparse = torch.eye(3).to_sparse()
    weights = {"one": sparse, "two": sparse * 2, "rows": torch.eye(3).to_sparse_csr()}
    make_checkpoint(network=weights).save(tmp_path / "last.pt")

    found = Checkpoint.load(tmp_path / "last.pt").network

    for name, tensor in weights.items():
        assert torch.equal(found[name].to_dense(), tensor.to_dense())


def test_what_could_not_be_read_is_not_written(tmp_path: Path) -> None:
    """As the extra state of a network of the user's own."""
    checkpoint = make_checkpoint(network={"weight": torch.ones(2), "_extra_state": {"seen": 3}})

    with pytest.raises(RunError, match=r"cannot be written: network has '_extra_state'.* tensor"):
        checkpoint.save(tmp_path / "last.pt")

    assert not any(tmp_path.iterdir())


def test_truncated_checkpoints_are_refused(tmp_path: Path) -> None:
    """Cut at any length, a checkpoint is one line of error."""
    path = tmp_path / "last.pt"
    make_checkpoint().save(path)
    whole = path.read_bytes()

    for length in [0, 1, 4, 30, *range(100, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match=r"last\.pt is damaged") as caught:
            Checkpoint.load(path)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """A parameter that changed on the disk fails its checksum."""
    path = tmp_path / "last.pt"
    make_checkpoint(network={"weight": torch.full((64,), 3.0)}).save(path)
    content = bytearray(path.read_bytes())
    position = content.index(torch.full((64,), 3.0).numpy().tobytes())
    content[position + 10] ^= 1
    path.write_bytes(content)

    with pytest.raises(RunError, match=r"damaged: .* fails its checksum"):
        Checkpoint.load(path)


class Malicious:
    """Makes a file when it is unpickled."""

    def __init__(self, trap: Path) -> None:
        self.trap = trap

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        """Called by pickle."""
        return Path.touch, (self.trap,)


def test_a_malicious_pickle_runs_nothing(tmp_path: Path) -> None:
    """Neither a bare pickle nor one inside torch's archive is executed."""
    trap = tmp_path / "trap"
    bare, packed = tmp_path / "bare.pt", tmp_path / "packed.pt"
    bare.write_bytes(pickle.dumps(Malicious(trap)))
    torch.save({"format": 1, "network": Malicious(trap)}, packed)

    for path in (bare, packed):
        with pytest.raises(RunError, match="damaged or no checkpoint") as caught:
            Checkpoint.load(path)
        assert "\n" not in str(caught.value)
    assert not trap.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param({"format": 99}, "has format 99 and this version", id="newer"),
        pytest.param({"weight": torch.zeros(2)}, "its format is None", id="a state dict"),
        pytest.param([1, 2], "holds no fields", id="a list"),
        pytest.param({"format": 1, "network": {}}, "it has no optimizer", id="fields missing"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    """What torch can read need not be a checkpoint."""
    torch.save(content, tmp_path / "other.pt")

    with pytest.raises(RunError, match=message):
        Checkpoint.load(tmp_path / "other.pt")


def test_other_archives_are_refused(tmp_path: Path) -> None:
    """A zip file need not be torch's."""
    with zipfile.ZipFile(tmp_path / "other.pt", "w") as archive:
        archive.writestr("readme.txt", "hello")

    with pytest.raises(RunError, match="damaged or no checkpoint"):
        Checkpoint.load(tmp_path / "other.pt")


def test_no_checkpoint_is_told(tmp_path: Path) -> None:
    """A run killed before its first checkpoint has none."""
    with pytest.raises(RunError, match="there is no checkpoint"):
        Checkpoint.load(tmp_path / "last.pt")


def test_a_position_of_other_fields_is_refused() -> None:
    """The error names the field."""
    plain = Progress().to_plain()
    del plain["step"]

    with pytest.raises(RunError, match="step"):
        Progress.from_plain(plain)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (nn.Linear(3, 3, bias=False), r"weight is \[2, 3\] .* and \[3, 3\] in the model"),
        (nn.Identity(), r"weight is \[2, 3\] in the checkpoint and absent"),
        (
            nn.Linear(3, 2),
            r"bias is absent in the checkpoint and \[2\]",
        ),
    ],
)
def test_a_network_of_other_sizes_does_not_fit(network: nn.Module, message: str) -> None:
    """The error names the parameter and both its shapes."""
    with pytest.raises(RunError, match=message):
        make_checkpoint().load_into(network)


def test_a_failed_write_leaves_the_old_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk is one line, and last.pt is what it was."""
    path = tmp_path / "last.pt"
    make_checkpoint().save(path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        del descriptor
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match=r"last\.pt cannot be written: No space left on device"):
        make_checkpoint(fingerprint="g" * 64).save(path)

    assert path.read_bytes() == before
    assert [left.name for left in path.parent.iterdir()] == [path.name]
