"""`config.toml`: what is written is read back, and the files of version 0.1 are read too."""

import tomllib
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from pgti.batching import WindowConfig
from pgti.errors import ConfigError
from pgti.run import ModelConfig, RunConfig
from pgti.training import TrainingConfig
from pgti.training.compatibility import check_settings, upgrade_training_options
from pgti.training.config import HuberLoss
from pgti.training.optimizers import AdamWOptimizer
from pgti.training.orders import AutoOrder, BlocksOrder, GlobalOrder, PartitionsOrder
from pgti.training.schedules import CosineSchedule, MultistepSchedule, NoSchedule, PlateauSchedule

OF_0_1 = """
store = "/data/s"
batching = "auto"
placement = "replicated"
device = "auto"

[windows]
input_steps = 4
horizon = 3
stride = 1
targets = []
profile = false
fractions = [0.7, 0.1, 0.2]
gap = 0

[model]
name = "dcrnn"
hidden = 4
layers = 1
hops = 2
scheduled_sampling = false
sampling_decay = 2000.0

[training]
epochs = 30
batch_size = 64
accumulate = 1
order = "global"
block_size = 8
partitions = 16
rotation = 0.125
learning_rate = 0.001
optimizer = "adamw"
adam_epsilon = 1e-08
weight_decay = 0.01
loss = "huber"
huber_delta = 2.0
clip_norm = 5.0
schedule = "cosine"
milestones = []
schedule_factor = 0.1
plateau_patience = 5
min_learning_rate = 0.0001
warmup_steps = 0
max_steps = 3
precision = "float32"
recompute = "on"
compile = false
seed = 0
checkpoint_every_steps = 500
log_every_steps = 50
"""


def test_a_configuration_survives_its_file(tmp_path: Path) -> None:
    """What is written as TOML reads back as the same configuration."""
    config = RunConfig(
        store=Path("build/i5"),
        windows=WindowConfig(horizon=3, targets=("speed",), calendar=()),
        model=ModelConfig(name="gru", options={"hidden": 8}),
        training=TrainingConfig(
            schedule=MultistepSchedule(milestones=(2, 4)), patience=3, compile=True
        ),
        memory_budget=1 << 30,
    )
    file = tmp_path / "config.toml"
    file.write_text(config.to_toml())
    assert RunConfig.from_toml(file) == config


def test_every_option_that_may_be_none_is_none_by_default() -> None:
    """TOML leaves None out, so another default would come back instead of it."""
    config = RunConfig(store=Path("s"))
    written = tomllib.loads(config.to_toml())
    for table, options in (("windows", config.windows), ("training", config.training)):
        absent = set(asdict(options)) - set(written[table])
        assert {name for name, value in asdict(options).items() if value is None} == absent


def test_an_option_that_toml_cannot_hold_is_refused() -> None:
    """One line, with its type."""
    config = RunConfig(store=Path("s"), model=ModelConfig(name="custom", options={"a": 1j}))
    with pytest.raises(ConfigError, match="complex"):
        config.to_toml()


def test_a_file_of_0_1_is_read(tmp_path: Path) -> None:
    """Its flat options belong to the kinds that it names; those of other kinds are left out."""
    file = tmp_path / "config.toml"
    file.write_text(OF_0_1)
    config = RunConfig.from_toml(file)
    assert config.training == TrainingConfig(
        schedule=CosineSchedule(min_learning_rate=0.0001),
        order=GlobalOrder(),
        optimizer=AdamWOptimizer(weight_decay=0.01),
        loss=HuberLoss(delta=2.0),
        activation_checkpointing="on",
        checkpoint_every_steps=500,
        max_steps=3,
    )
    assert config.windows == WindowConfig(input_steps=4, horizon=3)


def test_the_settings_of_a_checkpoint_of_0_1_are_those_of_its_file() -> None:
    """A run of 0.1 is resumed with its own options, and with no others."""
    before = {"training": tomllib.loads(OF_0_1)["training"]}
    same = TrainingConfig(**upgrade_training_options(before["training"]))
    check_settings(before, {"training": asdict(same)})
    other = TrainingConfig(**{**asdict(same), "loss": "huber"})
    with pytest.raises(Exception, match=r"training\.loss\.delta = 2\.0 .* with 1\.0"):
        check_settings(before, {"training": asdict(other)})


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"schedule": "none", "milestones": []}, "schedule", NoSchedule()),
        (
            {"schedule": "multistep", "milestones": [2, 4], "schedule_factor": 0.5},
            "schedule",
            MultistepSchedule(milestones=(2, 4), factor=0.5),
        ),
        (
            {"schedule": "plateau", "plateau_patience": 2, "min_learning_rate": 1e-5},
            "schedule",
            PlateauSchedule(patience=2, min_learning_rate=1e-5),
        ),
        (
            {"order": "blocks", "block_size": 4, "partitions": 16},
            "order",
            BlocksOrder(block_size=4),
        ),
        (
            {"order": "partitions", "partitions": 5, "rotation": 0.25, "block_size": 12},
            "order",
            PartitionsOrder(partitions=5, rotation=0.25, block_size=12),
        ),
        ({"partitions": 5}, "order", PartitionsOrder(partitions=5)),
        ({"order": "auto"}, "order", AutoOrder()),
        (
            {"weight_decay": 0.5, "optimizer": "adamw"},
            "optimizer",
            AdamWOptimizer(weight_decay=0.5),
        ),
    ],
)
def test_flat_options_of_0_1(options: dict[str, Any], name: str, expected: object) -> None:
    assert getattr(TrainingConfig(**upgrade_training_options(options)), name) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": 8}, "block_size needs an order: set order to blocks or partitions"),
        ({"order": "global", "block_size": 4}, "order.block_size goes with kind blocks or partit"),
        ({"milestones": [2]}, "schedule.milestones goes with kind multistep"),
    ],
)
def test_what_0_1_refused_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainingConfig(**upgrade_training_options(options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[training]\nschedule = ["cosine"]',
            r"training.schedule is \['cosine'\]: it must be one of",
        ),
        (
            '[training.schedule]\nkind = ["cosine"]',
            r"schedule.kind is \['cosine'\]: it must be one",
        ),
        (
            "[training]\nschedule = 5\nmilestones = [3]",
            "milestones belongs to schedule|schedule is 5",
        ),
        ("[training]\norder = []", r"training.order is \[\]: it must be one of"),
        ("[model]\nname = 5", "model.name is 5: it must be text"),
    ],
)
def test_a_wrong_kind_of_any_type_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        RunConfig.from_toml(path, tmp_path)


def test_dates_and_short_forms_of_a_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'model = "gru"\n[windows]\nval_from = 2025-01-09\ntest_from = 2025-01-10T06:00:00\n'
        'targets = "speed"\n'
    )
    config = RunConfig.from_toml(path, tmp_path)
    assert config.model.name == "gru"
    assert (config.windows.val_from, config.windows.test_from) == (
        "2025-01-09",
        "2025-01-10T06:00:00",
    )
    assert config.windows.targets == ("speed",)
