"""The options of training: what is refused, and what stands for what."""

import math
from typing import Any

import pytest

from pgti.errors import ConfigError
from pgti.training import TrainingConfig
from pgti.training.config import HuberLoss
from pgti.training.optimizers import AdamOptimizer
from pgti.training.orders import BlocksOrder, PartitionsOrder
from pgti.training.schedules import CosineSchedule, MultistepSchedule


def multistep(**options: object) -> dict[str, Any]:
    return {"schedule": {"kind": "multistep", **options}}


def order(kind: str, **options: object) -> dict[str, Any]:
    return {"order": {"kind": kind, **options}}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"epochs": -1}, "epochs is -1: .* at least 0", id="less than no epoch"),
        pytest.param({"epochs": 2.5}, "epochs is 2.5", id="half an epoch"),
        pytest.param({"epochs": True}, "epochs is True", id="a boolean is no number"),
        pytest.param({"batch_size": 0}, "batch_size is 0", id="no window"),
        pytest.param({"seed": 2**63}, r"seed is 9223372036854775808: .*2\*\*63", id="seed"),
        pytest.param({"accumulate": -1}, "accumulate is -1", id="negative"),
        pytest.param({"learning_rate": 0.0}, "learning_rate is 0.0", id="no rate"),
        pytest.param({"learning_rate": math.nan}, "learning_rate is nan", id="rate nan"),
        pytest.param({"learning_rate": 1e38}, r"1e\+38: it must be at most 1e\+30", id="rate 1e38"),
        pytest.param({"optimizer": "sgd"}, "optimizer is 'sgd': .*adam, adamw", id="optimizer"),
        pytest.param({"loss": "mape"}, "loss is 'mape': .*mae, huber, mse", id="loss"),
        pytest.param(
            {"loss": {"kind": "huber", "delta": -1.0}}, r"^loss\.delta is -1\.0", id="delta"
        ),
        pytest.param({"clip_norm": -5.0}, "clip_norm is -5.0", id="clip"),
        pytest.param({"clip_norm": math.inf}, "clip_norm is inf", id="clip inf"),
        pytest.param(
            {"optimizer": {"weight_decay": -1.0}}, r"^optimizer\.weight_decay is -1\.0", id="decay"
        ),
        pytest.param({"schedule": "linear"}, "schedule is 'linear'", id="schedule"),
        pytest.param({"schedule": "multistep"}, "milestones are missing", id="no milestones"),
        pytest.param(
            {"schedule": {"milestones": (3,)}},
            r"^schedule\.milestones goes with kind multistep, and schedule is none, which",
            id="milestones for nothing",
        ),
        pytest.param(multistep(milestones=(5, 3)), r"\[5, 3\].*rise", id="falling"),
        pytest.param(multistep(milestones=(0, 3)), r"\[0, 3\].*rise", id="from 0"),
        pytest.param(multistep(milestones=(3, 3)), r"\[3, 3\].*rise", id="twice"),
        pytest.param(
            multistep(milestones=(1.5,)),
            r"^schedule\.milestones\[0\] is 1\.5: .* whole",
            id="fraction",
        ),
        pytest.param(multistep(milestones=(True,)), "is True: .* whole", id="a boolean"),
        pytest.param(multistep(milestones={3}), r"milestones is \{3\}: .* list", id="no list"),
        pytest.param(
            multistep(milestones=(3,), factor=1.0), r"^schedule\.factor is 1\.0", id="factor"
        ),
        pytest.param(
            {"schedule": {"kind": "plateau", "patience": -1}}, "patience is -1", id="plateau"
        ),
        pytest.param(
            {"schedule": {"kind": "drop"}}, r"schedule\.kind is 'drop': .*none, multi", id="kind"
        ),
        pytest.param(
            {"schedule": {"kind": "plateau", "patence": 3}},
            "patence is not an option; did you mean 'patience'",
            id="mistyped",
        ),
        pytest.param({"patience": 0}, "patience is 0", id="no patience"),
        pytest.param({"max_steps": 0}, "max_steps is 0", id="no step"),
        pytest.param({"warmup_steps": -1}, "warmup_steps is -1", id="warm-up"),
        pytest.param({"precision": "float16"}, "precision is 'float16'", id="precision"),
        pytest.param({"seed": -1}, "seed is -1", id="seed"),
        pytest.param(
            {"schedule": {"kind": "cosine", "min_learning_rate": 1.0}},
            "min_learning_rate is 1.0",
            id="minimum",
        ),
        pytest.param(
            {"schedule": {"kind": "step", "every": 0}}, r"^schedule\.every is 0", id="every"
        ),
        pytest.param(
            {"schedule": {"kind": "exponential", "factor": 1.1}},
            r"^schedule\.factor is 1\.1",
            id="growth",
        ),
        pytest.param(
            {"optimizer": {"kind": "rmsprop", "smoothing": 1.0}},
            r"^optimizer\.smoothing is 1\.0: .*less than 1",
            id="smoothing",
        ),
        pytest.param({"ema_decay": 1.0}, "ema_decay is 1.0: .*less than 1", id="average"),
        pytest.param({"curriculum_steps": -1}, "curriculum_steps is -1", id="curriculum"),
        pytest.param(
            {"curriculum_warmup_steps": 5}, "curriculum_warmup_steps is 5 .*add", id="no curriculum"
        ),
        pytest.param({"order": "random"}, "order is 'random': .*global, blocks", id="order"),
        pytest.param(order("blocks", block_size=0), "size is 0: .*at least 1", id="no block"),
        pytest.param(order("blocks", block_size=2.5), "block_size is 2.5", id="half"),
        pytest.param(order("blocks", block_size=True), "block_size is True", id="one"),
        pytest.param(
            order("global", block_size=16),
            "block_size goes with kind blocks or partitions, and order is global, which takes no",
            id="block size for nothing",
        ),
        pytest.param(
            order("blocks", partitions=4),
            "partitions goes with kind partitions, and order is blocks, which takes block_size",
            id="partitions for nothing",
        ),
        pytest.param(
            order("partitions", rotation=1.5), "rotation is 1.5: .*between 0 and 1", id="rotation"
        ),
        pytest.param(
            order("partitions", partitions=0), "partitions is 0: .*at least 1", id="no partition"
        ),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, object], message: str) -> None:
    """The error is one line with the option, its value and the rule."""
    with pytest.raises(ConfigError, match=message) as caught:
        TrainingConfig(**options)
    assert "\n" not in str(caught.value)


def test_a_kind_a_table_and_an_instance_stand_for_the_same() -> None:
    """TOML knows no tuples and people type whole numbers: both are what the fields declare."""
    made = TrainingConfig(schedule=MultistepSchedule(milestones=(2, 4)), learning_rate=1.0)
    assert TrainingConfig(**multistep(milestones=[2, 4]), learning_rate=1) == made
    assert TrainingConfig(schedule="cosine").schedule == CosineSchedule()  # type: ignore[arg-type]
    config = TrainingConfig(
        **order("blocks"), loss={"kind": "huber", "delta": 2}, optimizer={"epsilon": 1e-3}
    )
    assert (config.order, config.loss) == (BlocksOrder(block_size=8), HuberLoss(delta=2.0))
    assert config.optimizer == AdamOptimizer(epsilon=1e-3)


def test_the_batch_of_a_rank_times_the_ranks_is_that_of_a_step() -> None:
    config = TrainingConfig(batch_size_per_rank=3, order=PartitionsOrder(partitions=4))
    resolved = config.resolved("replicated", 8)
    assert (resolved.batch_size, resolved.batch_size_per_rank) == (24, None)
    assert resolved.order == PartitionsOrder(partitions=4, block_size=6)
    assert resolved.resolved("replicated", 2) == resolved
    with pytest.raises(ConfigError, match="batch_size is 16 and batch_size_per_rank is 3"):
        TrainingConfig(batch_size=16, batch_size_per_rank=3)


@pytest.mark.parametrize(
    ("options", "world_size", "expected"),
    [
        ({"batch_size": 64}, 1, 64),
        ({"batch_size": 64}, 128, 128),
        ({"batch_size": 64, "eval_batch_size": 32}, 128, 32),
    ],
)
def test_validation_gives_every_rank_a_window(
    options: dict[str, int], world_size: int, expected: int
) -> None:
    assert TrainingConfig(**options).evaluated_at_once(world_size) == expected  # type: ignore[arg-type] # a row of the table
