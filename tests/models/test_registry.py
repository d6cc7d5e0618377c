"""Models by name, options by name, and what is said when either is wrong."""

from dataclasses import fields

import pytest

from pgti.errors import ConfigError
from pgti.models import MODELS, DCRNNConfig, ModelShape, build_config, build_model


def shape(**changes: object) -> ModelShape:
    """A consistent shape, changed where asked."""
    sizes: dict[str, object] = {
        "input_steps": 3,
        "horizon": 2,
        "num_nodes": 4,
        "input_channels": 4,
        "target_channels": 2,
        "target_indices": (1, 0),
        "calendar": ("time-of-day", "day-of-week"),
    }
    return ModelShape(**{**sizes, **changes})  # type: ignore[arg-type]


def test_options_reach_the_config() -> None:
    """Given options are taken, others keep their defaults, whole numbers pass for floats."""
    config = build_config("dcrnn", {"hidden": 16, "sampling_decay": 500})
    assert config == DCRNNConfig(hidden=16, sampling_decay=500.0)
    assert isinstance(config, DCRNNConfig)
    assert type(config.sampling_decay) is float


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dcrn", {}, "model 'dcrn' does not exist; did you mean 'dcrnn'"),
        ("zzz", {}, "'zzz' does not exist; choose one of .*dcrnn"),
        ("dcrnn", {"hiden": 3}, "hiden is not an option of dcrnn; did you mean 'hidden'"),
        ("dcrnn", {"zzz": 3}, "zzz is not an option of dcrnn; choose one of hidden, hops, layers"),
        ("dcrnn", {"hidden": "16"}, "hidden is '16': it must be a whole number"),
        ("dcrnn", {"hidden": 16.0}, r"hidden is 16\.0: it must be a whole number"),
        ("dcrnn", {"hidden": True}, "hidden is True: it must be a whole number"),
        ("dcrnn", {"scheduled_sampling": 1}, "scheduled_sampling is 1: it must be true or false"),
        ("dcrnn", {"sampling_decay": "fast"}, "sampling_decay is 'fast': it must be a number"),
        ("dcrnn", {"hidden": 0}, "hidden is 0: it must be at least 1"),
        ("dcrnn", {"layers": -1}, "layers is -1: it must be at least 1"),
        ("dcrnn", {"hops": 0}, "hops is 0: it must be at least 1"),
        ("dcrnn", {"sampling_decay": float("nan")}, "sampling_decay is nan"),
        ("dcrnn", {"sampling_decay": float("inf")}, "sampling_decay is inf: it must be finite"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, object], words: str) -> None:
    """One line: what, the value, the rule."""
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(name, options, shape())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"horizon": 0}, "horizon is 0"),
        ({"calendar": ("time-of-day",) * 4}, "calendar features are 4 of 4"),
        ({"steps_per_day": 0}, "steps_per_day is 0"),
        ({"target_channels": 1}, r"target_indices \(1, 0\) name 2 channels"),
        ({"target_indices": (0, 2)}, r"target_indices are \(0, 2\): .* channels 0 to 1"),
    ],
)
def test_inconsistent_shapes_are_refused(changes: dict[str, object], words: str) -> None:
    """Sizes that contradict one another never reach a model."""
    with pytest.raises(ConfigError, match=words):
        shape(**changes)


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_option_has_a_simple_type_and_a_default(name: str) -> None:
    """What a command line or a TOML file can hold."""
    config = MODELS[name].config
    config()
    assert all(field.type in (int, float, bool, str) for field in fields(config))
