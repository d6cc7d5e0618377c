"""Whole trainings with recorded steps: validation, checkpoints and a resumed run between them."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pgti.training import Trainer, TrainingConfig

from .recording import CpuRecorder, as_on_a_gpu
from .tiny_training import make_setting, make_trainer, open_run

_CONFIG = TrainingConfig(
    epochs=4,
    batch_size=8,
    learning_rate=0.05,
    warmup_steps=5,
    checkpoint_every_steps=3,
    log_every_steps=2,
    seed=7,
)


def _trainer(path: Path, recorder: CpuRecorder | None, **changes: Any) -> Trainer:
    setting = make_setting(path.parent, _CONFIG, network="dropout")
    trainer = make_trainer(setting, open_run(path, _CONFIG), **changes)
    as_on_a_gpu(trainer.train_step)
    if recorder is not None:
        trainer.train_step.record(recorder)
    return trainer


def _weights(path: Path, name: str) -> dict[str, torch.Tensor]:
    run = open_run(path, _CONFIG)
    checkpoint = run.load_last() if name == "last" else run.load_best()
    return checkpoint.network


def test_a_run_is_the_same_and_resumes_the_same(tmp_path: Path) -> None:
    """7 steps an epoch, the last of a smaller batch; it stops in the third epoch."""
    usual = _trainer(tmp_path / "usual", None).fit()
    whole = CpuRecorder()
    assert _trainer(tmp_path / "whole", whole).fit().val_mae == usual.val_mae
    assert whole.num_recorded == 3
    stopped = _trainer(tmp_path / "stopped", CpuRecorder())
    run = open_run(tmp_path / "stopped", _CONFIG)
    _stop_after(stopped, 16)
    resumed = CpuRecorder()
    trainer = _trainer(tmp_path / "stopped", resumed)
    trainer.restore(run.load_last())
    assert trainer.progress.step == 15
    assert trainer.fit().val_mae == usual.val_mae
    assert resumed.num_recorded >= 2
    for name in ("last", "best"):
        expected = _weights(tmp_path / "usual", name)
        for path in ("whole", "stopped"):
            for key, tensor in _weights(tmp_path / path, name).items():
                assert torch.equal(tensor, expected[key]), (path, name, key)


class _StopError(Exception):
    pass


def _stop_after(trainer: Trainer, num_steps: int) -> None:
    take = trainer.train_step.update
    taken = 0

    def update(count: torch.Tensor) -> None:
        nonlocal taken
        take(count)
        taken += 1
        if taken == num_steps:
            raise _StopError

    trainer.train_step.update = update  # type: ignore[method-assign]
    with pytest.raises(_StopError):
        trainer.fit()
