"""The options of training and the file they are written to."""

import math
import tomllib
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.training import TrainingConfig, to_toml


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"epochs": 0}, "epochs is 0: .* at least 1", id="no epoch"),
        pytest.param({"epochs": 2.5}, "epochs is 2.5", id="half an epoch"),
        pytest.param({"epochs": True}, "epochs is True", id="a boolean is no number"),
        pytest.param({"batch_size": 0}, "batch_size is 0", id="no window"),
        pytest.param({"seed": 2**63}, r"seed is 9223372036854775808: .*2\*\*63", id="seed"),
        pytest.param({"accumulate": -1}, "accumulate is -1", id="negative"),
        pytest.param({"learning_rate": 0.0}, "learning_rate is 0.0", id="no rate"),
        pytest.param({"learning_rate": math.nan}, "learning_rate is nan", id="rate nan"),
        pytest.param({"optimizer": "sgd"}, "optimizer is 'sgd': .*adam, adamw", id="optimizer"),
        pytest.param({"loss": "mape"}, "loss is 'mape': .*mae, huber, mse", id="loss"),
        pytest.param({"huber_delta": -1.0}, "huber_delta is -1.0", id="delta"),
        pytest.param({"clip_norm": -5.0}, "clip_norm is -5.0", id="clip"),
        pytest.param({"clip_norm": math.inf}, "clip_norm is inf", id="clip inf"),
        pytest.param({"weight_decay": -1.0}, "weight_decay is -1.0", id="decay"),
        pytest.param({"schedule": "step"}, "schedule is 'step'", id="schedule"),
        pytest.param({"schedule": "multistep"}, r"milestones are \[\]", id="no milestones"),
        pytest.param({"milestones": (3,)}, "schedule is none", id="milestones for nothing"),
        pytest.param(
            {"schedule": "multistep", "milestones": (5, 3)}, r"\[5, 3\].*rise", id="falling"
        ),
        pytest.param(
            {"schedule": "multistep", "milestones": (0, 3)}, r"\[0, 3\].*rise", id="from 0"
        ),
        pytest.param(
            {"schedule": "multistep", "milestones": (1.5,)}, "1.5 is not a whole", id="fraction"
        ),
        pytest.param({"schedule_factor": 1.0}, "schedule_factor is 1.0", id="factor"),
        pytest.param({"patience": 0}, "patience is 0", id="no patience"),
        pytest.param({"max_steps": 0}, "max_steps is 0", id="no step"),
        pytest.param({"warmup_steps": -1}, "warmup_steps is -1", id="warm-up"),
        pytest.param({"precision": "float16"}, "precision is 'float16'", id="precision"),
        pytest.param({"seed": -1}, "seed is -1", id="seed"),
        pytest.param({"min_learning_rate": 1.0}, "min_learning_rate is 1.0", id="minimum"),
        pytest.param({"order": "random"}, "order is 'random': .*global, blocks", id="order"),
        pytest.param(
            {"order": "blocks", "block_size": 0}, "block_size is 0: .*at least 1", id="no block"
        ),
        pytest.param({"order": "blocks", "block_size": 2.5}, "block_size is 2.5", id="half"),
        pytest.param({"order": "blocks", "block_size": True}, "block_size is True", id="one"),
        pytest.param(
            {"order": "global", "block_size": 16},
            "order is global and block_size is 16",
            id="block size for nothing",
        ),
        pytest.param(
            {"order": "blocks", "partitions": 4},
            "order is blocks and partitions is 4: the order partitions, and no other",
            id="partitions for nothing",
        ),
        pytest.param({"rotation": 1.5}, "rotation is 1.5: .*between 0 and 1", id="rotation"),
        pytest.param({"partitions": 0}, "partitions is 0: .*at least 1", id="no partition"),
    ],
)
def test_options_that_break_a_rule_are_refused(options: dict[str, object], message: str) -> None:
    """The error is one line with the option, its value and the rule."""
    with pytest.raises(ConfigError, match=message) as caught:
        TrainingConfig(**options)
    assert "\n" not in str(caught.value)


def test_milestones_may_be_a_list() -> None:
    """TOML knows no tuples."""
    config = TrainingConfig(schedule="multistep", milestones=[2, 4])  # type: ignore[arg-type]

    assert config.milestones == (2, 4)


def test_a_configuration_survives_its_file() -> None:
    """What is written as TOML reads back as the same configuration."""
    config = TrainingConfig(
        schedule="multistep", milestones=(2, 4), adam_epsilon=1e-8, patience=3, compile=True
    )

    read = tomllib.loads(to_toml({"training": config}))

    assert TrainingConfig(**read["training"]) == config


def test_every_option_that_may_be_none_is_none_by_default() -> None:
    """TOML leaves None out, so another default would come back instead of it."""
    config = TrainingConfig()
    written = tomllib.loads(to_toml(config))

    assert {name for name, value in asdict(config).items() if value is None} == set(
        asdict(config)
    ) - set(written)


VALUES = st.recursive(
    st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=("Cs",))),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)
TABLES = st.recursive(
    st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), VALUES, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=3), VALUES | inner, max_size=3),
    max_leaves=6,
)


@given(TABLES)
def test_toml_reads_back_as_it_was_written(table: dict[str, object]) -> None:
    """Whatever plain values are nested, `tomllib` finds them again."""
    assert tomllib.loads(to_toml(table)) == table


def test_toml_of_paths_tuples_and_none() -> None:
    """A path is a string, a tuple is a list, and None is not there."""
    assert to_toml({"store": Path("build/i5"), "gap": None}) == 'store = "build/i5"\n'
    assert tomllib.loads(to_toml({"a": {"b": (1, (Path("c"),)), "d": None}})) == {
        "a": {"b": [1, ["c"]]}
    }


def test_toml_refuses_what_it_cannot_say() -> None:
    """An object of another type is an error with the value."""
    with pytest.raises(ConfigError, match="complex"):
        to_toml({"a": 1j})
