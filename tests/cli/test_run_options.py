"""Flags of a run and a file of `--config`: what overrides what, and how flags are spelled."""

from pathlib import Path
from typing import Annotated

import cyclopts
import pytest
from cyclopts import Parameter

from pgti.cli.app import split_lists
from pgti.cli.run_options import RunFlags, run_config
from pgti.errors import ConfigError
from pgti.run import RunConfig
from pgti.training.optimizers import AdamOptimizer, AdamWOptimizer
from pgti.training.orders import BlocksOrder
from pgti.training.schedules import CosineSchedule, MultistepSchedule

FILE = """
[windows]
horizon = 3
[model]
name = "gru"
hidden = 8
[training]
epochs = 7
optimizer.weight_decay = 0.5
[training.schedule]
kind = "multistep"
milestones = [2, 4]
factor = 0.5
"""


def command(options: Annotated[RunFlags | None, Parameter(name="*")] = None) -> RunConfig:
    return run_config(Path("store"), options or {})


def config_of(*tokens: object) -> RunConfig:
    """The configuration that a command line stands for."""
    app = cyclopts.App(config=split_lists, default_command=command)
    config: RunConfig = app(
        [str(token) for token in tokens],
        exit_on_error=False,
        print_error=False,
        result_action="return_value",
    )
    return config


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(FILE)
    return path


def test_spellings() -> None:
    """A kind alone or with options; equals signs, commas, repeated flags and underscores."""
    for tokens in (
        ("--schedule", "multistep", "--schedule.milestones", "2,4"),
        ("--schedule=multistep", "--schedule.milestones=2", "--schedule.milestones", 4),
        ("--schedule.kind", "multistep", "--schedule.milestones", "2,4"),
    ):
        assert config_of(*tokens).training.schedule == MultistepSchedule(milestones=(2, 4))
    config = config_of("--batch_size", 8, "--model", "stid", "--model.node-embedding", 3,
                       "--windows.empty-calendar", "--windows.fractions", "0.5,0.25, 0.25",
                       "--memory-budget", "2GiB", "--windows.climatology")  # fmt: skip
    assert config.training.batch_size == 8
    assert (config.model.name, config.model.options) == ("stid", {"node_embedding": 3})
    assert config.windows.calendar == ()
    assert config.windows.fractions == (0.5, 0.25, 0.25)
    assert config.windows.climatology is True
    assert config.memory_budget == 2 << 30
    assert config.store.is_absolute()


def test_an_option_without_its_kind_belongs_to_the_default_kind() -> None:
    assert config_of("--optimizer.weight-decay", 1).training.optimizer == AdamOptimizer(
        weight_decay=1.0
    )
    with pytest.raises(ConfigError, match=r"^order\.block_size goes with kind blocks or partit"):
        config_of("--order.block-size", 4)


def test_flags_override_single_options_of_the_file(file: Path) -> None:
    config = config_of("--config", file, "--schedule.factor", 0.1, "--model.layers", 1,
                       "--windows.stride", 2)  # fmt: skip
    assert config.training.schedule == MultistepSchedule(milestones=(2, 4), factor=0.1)
    assert config.training.epochs == 7
    assert (config.model.name, config.model.options) == ("gru", {"hidden": 8, "layers": 1})
    assert (config.windows.horizon, config.windows.stride) == (3, 2)


def test_another_kind_or_model_replaces_the_table_of_the_file(file: Path) -> None:
    """Options of the file's kind do not apply to another one; the same kind keeps them."""
    config = config_of("--config", file, "--schedule", "cosine", "--model", "stid",
                       "--order", "blocks")  # fmt: skip
    assert config.training.schedule == CosineSchedule()
    assert config.training.order == BlocksOrder()
    assert (config.model.name, config.model.options) == ("stid", {})
    same = config_of("--config", file, "--schedule", "multistep", "--model.name", "gru")
    assert same == config_of("--config", file)


def test_a_table_without_a_kind_is_one_of_the_default_kind(file: Path) -> None:
    """The file's weight decay is Adam's: AdamW has its own."""
    assert config_of("--config", file).training.optimizer == AdamOptimizer(weight_decay=0.5)
    same = config_of("--config", file, "--optimizer", "adam").training.optimizer
    assert same == AdamOptimizer(weight_decay=0.5)
    other = config_of("--config", file, "--optimizer", "adamw").training.optimizer
    assert other == AdamWOptimizer()


def test_flags_override_a_file_of_0_1(tmp_path: Path) -> None:
    """Its flat options are those of the kind that it names."""
    path = tmp_path / "old.toml"
    path.write_text('[training]\nschedule = "cosine"\nmin_learning_rate = 1e-5\norder = "global"\n')
    config = config_of("--config", path, "--order", "blocks", "--order.block-size", 2)
    assert config.training.schedule == CosineSchedule(min_learning_rate=1e-5)
    assert config.training.order == BlocksOrder(block_size=2)


def test_flags_complete_what_a_file_leaves_open(file: Path) -> None:
    file.write_text('[training.schedule]\nkind = "multistep"\n')
    with pytest.raises(ConfigError, match="milestones"):
        config_of("--config", file)
    schedule = config_of("--config", file, "--schedule.milestones", "1,2").training.schedule
    assert schedule == MultistepSchedule(milestones=(1, 2))


def test_one_of_two_batch_sizes_replaces_the_other(file: Path) -> None:
    """Of all ranks or of each: that of the command line comes before that of the file."""
    file.write_text(file.read_text().replace("epochs = 7", "epochs = 7\nbatch_size = 32"))
    by_rank = config_of("--config", file, "--batch-size-per-rank", 8).training
    assert (by_rank.batch_size_per_rank, by_rank.resolved("replicated", 6).batch_size) == (8, 48)
    file.write_text(file.read_text().replace("batch_size =", "batch_size_per_rank ="))
    whole = config_of("--config", file, "--batch-size", 16).training.resolved("replicated", 6)
    assert (whole.batch_size_per_rank, whole.batch_size) == (None, 16)
    with pytest.raises(ConfigError, match="is 64 and batch_size_per_rank is 8: they exclude each"):
        config_of("--batch-size", 64, "--batch-size-per-rank", 8)
    file.write_text(f"{file.read_text()}".replace("[training]", "[training]\nbatch_size = 64"))
    with pytest.raises(ConfigError, match="is 64 and batch_size_per_rank is 32: they exclude"):
        config_of("--config", file)


def test_errors_name_the_file_or_the_flag(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"^epochs is -1: it must be a whole number"):
        config_of("--config", file, "--epochs", -1)
    file.write_text("[training]\nepochs = -1\n")
    with pytest.raises(ConfigError, match=r"run\.toml: training\.epochs is -1"):
        config_of("--config", file)
