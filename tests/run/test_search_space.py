"""Spaces of a search: what they mean, and what is refused before any trial."""

from pathlib import Path
from typing import Any

import pytest

from pgti.errors import PgtiError
from pgti.run.config import RunConfig
from pgti.run.search_space import SearchSpace
from pgti.store import SeriesStore

from .small_runs import make_config, make_series, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """The same for all tests."""
    return make_store(tmp_path_factory.mktemp("store") / "store", make_series())


def test_a_file_names_options_with_tables_and_dashes(store: SeriesStore, tmp_path: Path) -> None:
    """Dotted names, tables and bare names of the training loop are the same options."""
    path = tmp_path / "space.toml"
    path.write_text(
        '["training.learning-rate"]\nlow = 1e-4\nhigh = 1e-2\nlog = true\n'
        "[model.hidden]\nlow = 2\nhigh = 8\nstep = 2\n"
        "[clip-norm]\nlow = 1\nhigh = 5\n"
        '[training]\nschedule = ["none", { kind = "cosine", min-learning-rate = 1e-5 }]\n'
    )

    space = SearchSpace.of(path)
    found = space.distributions(make_config(store), store, None)

    assert list(found) == [
        "training.learning_rate", "model.hidden", "training.clip_norm", "training.schedule"
    ]  # fmt: skip
    assert (found["training.learning_rate"].log, found["training.learning_rate"].low) == (
        True,
        1e-4,
    )
    assert (found["model.hidden"].step, found["model.hidden"].high) == (2, 8)
    assert type(found["training.clip_norm"]).__name__ == "FloatDistribution"  # as the option is
    cosine = found["training.schedule"].choices[1]
    config = space.configure(make_config(store), {"training.schedule": cosine, "model.hidden": 4})
    assert config.training.schedule.kind == "cosine"
    assert config.training.schedule.min_learning_rate == 1e-5  # type: ignore[union-attr]
    assert config.model.options["hidden"] == 4
    assert config.training.batch_size == 16  # of the base


def test_the_base_is_the_first_trial_where_the_space_has_it(store: SeriesStore) -> None:
    """Its values, but for those that are outside of the space."""
    config = make_config(store)
    space = SearchSpace.of(
        {
            "training.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
            "model.hidden": [4, 8],
            "training.optimizer": ["adam", "rmsprop"],
        }
    )

    found = space.params_of(config, None, space.distributions(config, store, None))

    assert found == {"training.learning_rate": 1e-3, "training.optimizer": "adam"}


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({}, "the space is empty"),
        ({"training.learning_rat": [1, 2]}, r"learning_rat is not an option.*'learning_rate'"),
        ({"model.hiden": [1, 2]}, "hiden is not an option of dcrnn.*'hidden'"),
        ({"colour": [1, 2]}, "colour is not an option of the space"),
        ({"model.hidden": []}, r"model.hidden: choices are \[\]: there must be two at least"),
        ({"model.hidden": [2, 2]}, "choices have 2 twice"),
        ({"model.hidden": {"low": 4, "high": 2}}, "low is 4 and high is 2: low must be less"),
        ({"model.hidden": {"low": 4}}, "model.hidden has no high"),
        ({"model.hidden": {"low": "a", "high": 2}}, "low is 'a': it must be a number"),
        ({"model.hidden": {"low": 2.5, "high": 8.5}}, "model.hidden = 2.5: .*whole number"),
        ({"model.hidden": {"low": 0, "high": 8}}, "the space has model.hidden = 0: "),
        ({"model.hidden": {"low": 2, "hihg": 8}}, "hihg is not an option.*'high'"),
        ({"clip_norm": {"low": 0, "high": 2, "log": True}}, "low is 0 and log is true"),
        ({"clip_norm": {"low": 1, "high": 2, "step": 5}}, "step is 5: it must be above 0 and at"),
        ({"clip_norm": {"low": 1, "high": 2, "step": 1, "log": True}}, "has log and step"),
        ({"clip_norm": {"low": 1, "high": 2, "choices": [1, 2]}}, "has choices and a range"),
        ({"clip_norm": 3}, "clip_norm is 3: it must be a table with low and high, or choices"),
        ({"windows.horizon": [1, 2]}, "the space has windows.horizon: trials with other values"),
        ({"training.optimizer": ["adam", "sgd"]}, "training.optimizer = 'sgd': .*one of adam"),
        ({"windows.input_steps": [3, 500]}, "windows.input_steps = 500: "),
        ({"clip_norm": [1, 2], "training.clip-norm": [1, 2]}, "has training.clip_norm twice"),
    ],
)
def test_refusals(store: SeriesStore, space: dict[str, Any], message: str) -> None:
    """One line with the option, the value and the rule."""
    config: RunConfig = make_config(store)
    with pytest.raises(PgtiError, match=message) as caught:
        SearchSpace.of(space).distributions(config, store, None)
    assert "\n" not in str(caught.value)


def test_an_error_names_the_option_that_it_is_of(store: SeriesStore) -> None:
    """Not the first of the space, which all configurations hold."""
    space = SearchSpace.of({"learning_rate": [1e-4, 1e-2], "model.width": [32, 64]})
    with pytest.raises(PgtiError, match=r"^the space has model.width = 32: model.width is no"):
        space.distributions(make_config(store), store, None)
