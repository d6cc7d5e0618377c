"""The curriculum over the horizon: which steps the loss sees, and what a training makes of them."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pgti.training import TrainingConfig
from pgti.training.curriculum import Curriculum

from .tiny_training import SPEC, make_setting, make_trainer, open_run


@pytest.mark.parametrize(
    ("steps", "warmup", "expected"),
    [
        (2, 0, [1, 1, 2, 2, 3, 3, 4]),
        (3, 2, [None, None, 1, 1, 1, 2, 2]),
        (0, 0, [None] * 7),
    ],
)
def test_lengths(steps: int, warmup: int, expected: list[int | None]) -> None:
    """One step of the horizon more after every so many, once the warm-up is over."""
    curriculum = Curriculum(steps, warmup, torch.device("cpu"))
    assert [curriculum.length(step) for step in range(7)] == expected
    mask = torch.ones(2, 3, 4, 1, dtype=torch.bool)
    mask[0, 1] = False
    for step, length in enumerate(expected):
        curriculum.begin_step(step)
        seen = curriculum.limit(mask)
        kept = 3 if length is None else min(length, 3)
        assert torch.equal(seen[:, :kept], mask[:, :kept])
        assert not seen[:, kept:].any()


def test_what_is_not_seen_yet_does_not_learn(tmp_path: Path) -> None:
    """With two steps of three seen, the rows of the output map that make the third stay."""
    config = TrainingConfig(
        epochs=3, batch_size=10, learning_rate=0.1, curriculum_steps=5, max_steps=10
    )
    setting = make_setting(tmp_path, config, network="linear")
    trainer = make_trainer(setting, open_run(tmp_path / "run", config))
    before = trainer.train_step.forecaster.network.linear.weight.detach().clone()
    trainer.fit()
    changed = (trainer.train_step.forecaster.network.linear.weight != before).any(dim=1)
    assert changed.tolist() == [True] * (SPEC.horizon - 1) + [False]
    whole = replace(config, max_steps=11)
    trainer = make_trainer(setting, open_run(tmp_path / "whole", whole), config=whole)
    trainer.fit()
    assert (trainer.train_step.forecaster.network.linear.weight != before).any(dim=1).all()
