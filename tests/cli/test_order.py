"""`pgti train --order`: which windows a step learns from."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.cli.main import run_command

TINY = (
    "--model.hidden", "4", "--model.layers", "1", "--windows.input-steps", "4",
    "--windows.horizon", "3", "--batch-size", "64", "--max-steps", "3",
)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6 sensors and two days."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run("simulate", "--sensors", 6, "--steps", 576, "--out", path) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def parameters(path: Path) -> dict[str, Any]:
    state = torch.load(path / "checkpoints" / "last.pt", weights_only=True)
    network: dict[str, Any] = state["network"]
    return network


def test_train_on_blocks(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks of one window are the global order bit for bit, others are another one."""
    orders = {
        "global": (),
        "ones": ("--order", "blocks", "--order.block-size", 1),
        "blocks": ("--order", "blocks", "--order.block-size", 16),
    }
    for name, options in orders.items():
        assert run("train", store, "--run", tmp_path / name, *TINY, *options) == 0
    learnt = {name: parameters(tmp_path / name) for name in orders}
    same = learnt["global"].items()
    assert all(torch.equal(value, learnt["ones"][name]) for name, value in same)
    assert not all(torch.equal(value, learnt["blocks"][name]) for name, value in same)
    text = (tmp_path / "blocks" / "config.toml").read_text()
    assert '[training.order]\nkind = "blocks"\nblock_size = 16\n' in text

    capsys.readouterr()
    again = ("train", store, "--run", tmp_path / "blocks", "--resume", *TINY)
    assert run(*again, "--order", "global") == 2
    assert (
        "training.order.kind = 'blocks' and cannot be resumed with 'global'"
        in capsys.readouterr().err
    )
    assert run(*again, "--order.block-size", 8) == 2
    assert "training.order.block_size = 16 and cannot be resumed with 8" in capsys.readouterr().err


def test_a_block_size_belongs_to_blocks(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where all windows are shuffled there are no blocks: one line, and no run."""
    assert run("train", store, "--run", tmp_path / "r", *TINY, "--order.block-size", 16) == 2
    assert (
        "order.block_size goes with kind blocks or partitions, and order is auto, which takes no "
        "options" in capsys.readouterr().err
    )
    assert not (tmp_path / "r").exists()
