"""Published recipes: what their files say, training by one, and published errors beside ours."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti import Run, ingest, train
from pgti.cli.main import run_command
from pgti.datasets import DATASETS, Recipe, find_dataset, find_recipe, recipe_names, recipes_of
from pgti.datasets.recipe import METRICS
from pgti.errors import ConfigError
from pgti.models import num_parameters
from pgti.run import study_processes
from pgti.run.build import resolve_model, shape_of_store
from pgti.run.config import RunConfig
from pgti.run.protocol import windows_of
from pgti.run.recipe import compare_published, note_recipe, options_beside, recipe_config
from pgti.store import SeriesStore

from .made_data import made_store

RECIPES = [find_recipe(name) for name in recipe_names()]
USED = sorted({recipe.dataset for recipe in RECIPES})
FEW_SENSORS = 900  # a step of a larger data set takes minutes on a processor


@pytest.fixture(scope="module")
def small_stores(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, SeriesStore]:
    """A store of a few sensors for each data set that has a recipe."""
    folder = tmp_path_factory.mktemp("small")
    return {
        name: made_store(folder / name, find_dataset(name), num_steps=1500, num_nodes=4)
        for name in USED
    }


@pytest.fixture(scope="module")
def metr_la(tmp_path_factory: pytest.TempPathFactory) -> SeriesStore:
    """A store of METR-LA's sensors, and 300 rows."""
    folder = tmp_path_factory.mktemp("metr-la")
    return made_store(folder / "store", find_dataset("METR-LA"), num_steps=300)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda each: each.name)
def test_the_network_has_the_parameters_of_the_official_one(
    recipe: Recipe, small_stores: Mapping[str, SeriesStore]
) -> None:
    dataset, store = find_dataset(recipe.dataset), small_stores[recipe.dataset]
    windows = windows_of(dataset, store) | recipe.windows
    config = RunConfig(store=store.path).override(
        {"windows": windows, "model": recipe.model, "training": recipe.training}
    )
    shape = replace(
        shape_of_store(store, config.windows, recipe.model_name), num_nodes=dataset.num_nodes
    )
    model = resolve_model(config.model)
    expected = recipe.own_parameters or recipe.parameters
    if expected is not None:
        assert num_parameters(model.name, model.options, shape) == expected
    if recipe.own_parameters is not None:
        assert recipe.parameters != recipe.own_parameters
        assert any("parameters" in line for line in recipe.differs)


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda each: each.name)
def test_a_recipe_says_where_it_was_read(recipe: Recipe) -> None:
    dataset = find_dataset(recipe.dataset)
    assert dataset.protocol is not None
    assert recipe.name.partition("/")[0] == recipe.dataset.lower()
    assert " at " in recipe.source
    if recipe.published is None:
        said = ("errors were not", "errors are not", "errors of the paper's table were not")
        assert any(words in line for words in said for line in recipe.differs)
        return
    assert recipe.published.source
    for metric in METRICS:
        errors = getattr(recipe.published, metric)
        assert set(errors) <= {"mean", "average", *map(str, range(1, 13))}
        by_step = [errors[step] for step in sorted(filter(str.isdigit, errors), key=int)]
        assert by_step == sorted(by_step)  # errors grow with the horizon
        for total in (errors[key] for key in ("mean", "average") if key in errors):
            assert 0 < by_step[0] < total < by_step[-1]
    assert recipe.published.mae


def test_names() -> None:
    assert {"metr-la/dcrnn", "metr-la/dcrnn-authors", "largest-ca/patchstg"} <= set(recipe_names())
    assert find_recipe("METR-LA/DCRNN").name == "metr-la/dcrnn"
    assert {each.dataset for each in recipes_of("PEMS04")} == {"PEMS04"}
    with pytest.raises(ConfigError, match=r"'metr-la/dcrn' is unknown: similar .* metr-la/dcrnn"):
        find_recipe("metr-la/dcrn")
    assert set(USED) <= set(DATASETS)


def test_train_by_a_recipe(metr_la: SeriesStore, tmp_path: Path) -> None:
    run = train(
        metr_la,
        tmp_path / "run",
        recipe="metr-la/stid",
        max_steps=3,
        device="cpu",
        progress=False,
    )
    assert run.config.recipe == "metr-la/stid"
    assert run.config.model.name == "stid"
    assert run.config.windows.calendar == ("time-of-day", "day-of-week")
    assert run.config.training.patience == find_recipe("metr-la/stid").training["patience"]
    with pytest.raises(ConfigError, match=r"not trained by the recipe metr-la/dcrnn: leave recipe"):
        train(metr_la, tmp_path / "run", recipe="metr-la/dcrnn", resume=True, progress=False)
    again = train(metr_la, tmp_path / "run", recipe="metr-la/stid", resume=True, progress=False)
    assert again.config == run.config
    # The weights serve other data, where the recipe says nothing.
    other = train(metr_la, tmp_path / "next", init_from=run, epochs=0, progress=False)
    assert other.config.recipe is None


def test_the_command_prints_published_errors_beside_ours(
    metr_la: SeriesStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With their deviation, unless a note says that they do not compare."""
    run = tmp_path / "run"
    command = ["train", str(metr_la.path), "--run", str(run), "--recipe", "metr-la/stid"]
    options = ["--max-steps", "3", "--device", "cpu", "--learning-rate", "0.5"]
    assert run_command([*command, *options, "--json"]) == 0
    output, log = capsys.readouterr()
    content = json.loads(output)["published"]
    assert content["recipe"] == "metr-la/stid"
    published = find_recipe("metr-la/stid").published
    assert published is not None
    error = content["errors"]["mae"]["12"]
    test = json.loads(output)["test"]["mae"]["12"]
    assert (error["published"], error["ours"]) == (published.mae["12"], test)
    assert error["deviation_percent"] == pytest.approx(100 * (test / published.mae["12"] - 1))
    assert "--learning-rate 0.5 in place of 0.002 in the recipe metr-la/stid" in log
    assert any("in place of 0.002" in line for line in content["notes"])
    assert run_command(["evaluate", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["published"] == content
    assert run_command(["evaluate", str(run), "--windows", "5", "--json"]) == 0
    assert "published" not in json.loads(capsys.readouterr().out)
    assert run_command(["evaluate", str(run)]) == 0
    output = capsys.readouterr().out
    assert "may not compare" in output
    assert "deviation" not in output
    monkeypatch.setattr("pgti.run.recipe.note_differences", lambda *_: ())
    assert run_command(["evaluate", str(run)]) == 0
    output = capsys.readouterr().out
    assert "deviation" in output
    assert "may not compare" not in output


def test_the_options_of_a_recipe_leave_no_note(metr_la: SeriesStore) -> None:
    recipe = find_recipe("metr-la/dcrnn-authors")
    config = recipe_config(recipe, metr_la)
    assert list(options_beside(recipe, metr_la, config)) == []
    seeded = config.override({"training": {"seed": 3, "deterministic": True}})
    assert list(options_beside(recipe, metr_la, seeded)) == []
    other = config.override({"training": {"patience": 1}, "model": {"hidden": 32}})
    assert len(list(options_beside(recipe, metr_la, other))) == 2
    few = config.override({"windows": {"calendar": ("day-of-week",)}})
    (line,) = options_beside(recipe, metr_la, few)
    assert " in place of time-of-day in the recipe" in line
    notes = note_recipe(metr_la, config)
    assert any("windows train, validate and test" in line for line in notes)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--recipe", "metr-la/dcrn"], "similar names are metr-la/dcrnn"),
        (["--recipe", "metr-la"], "is a data set: name one of its recipes, such as metr-la/agcrn"),
        (["--recipe", "pems04/dcrnn"], "is METR-LA: fetch PEMS04"),
        (["--recipe", "metr-la/dcrnn", "--model", "stid"], "trains the model dcrnn"),
        (["--recipe", "metr-la/dcrnn", "--protocol", "published"], "leave --protocol out"),
    ],
)
def test_refusals(
    metr_la: SeriesStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    message: str,
) -> None:
    run = tmp_path / "run"
    assert run_command(["train", str(metr_la.path), "--run", str(run), *options]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert message in error
    assert not run.exists()


def test_a_store_that_names_no_data_set(metr_la: SeriesStore, tmp_path: Path) -> None:
    readings = np.ones((300, metr_la.meta.num_nodes, 1))
    recipe = find_recipe("metr-la/stid")
    options: dict[str, Any] = {"start": "2020-01-01", "channels": ("speed",)}
    own = ingest(readings, tmp_path / "own", interval="5min", **options)
    config = recipe_config(recipe, own)
    assert any("does not say that it is METR-LA" in line for line in note_recipe(own, config))
    assert not any("does not say" in line for line in note_recipe(metr_la, config))
    hourly = ingest(readings, tmp_path / "hourly", interval="1h", **options)
    with pytest.raises(
        ConfigError, match=r"METR-LA \(207 sensors, steps of 5min\).* steps of 1h: "
    ):
        recipe_config(recipe, hourly)


def test_a_file_names_a_recipe(metr_la: SeriesStore, tmp_path: Path) -> None:
    file, run = tmp_path / "own.toml", tmp_path / "run"
    file.write_text('recipe = "metr-la/stid"\n[training]\nmax_steps = 2\nbatch_size = 8\n')
    command = ["train", str(metr_la.path), "--run", str(run), "--config", str(file)]
    assert run_command([*command, "--device", "cpu", "--json"]) == 0
    config = Run.open(run).config
    assert (config.model.name, config.training.batch_size) == ("stid", 8)
    assert config.training.learning_rate == 0.002


def test_a_study_of_recipes(
    metr_la: SeriesStore,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = ["study", str(metr_la.path), "--workdir", str(tmp_path / "work")]
    assert run_command([*command, "--recipes", "metr-la/nowhere"]) == 2
    assert "'metr-la/nowhere' is unknown" in " ".join(capsys.readouterr().err.split())
    errors = {metric: {"3": 3.0, "6": 3.5, "12": 4.0, "mean": 3.4} for metric in METRICS}
    test = {"windows": 5, **errors, "persistence": {"count": 9, **errors}}

    def trained(command: list[str], directory: Path, *_more: object) -> dict[str, Any]:
        directory.mkdir(parents=True)
        file = Path(command[command.index("--config") + 1])
        assert RunConfig.from_toml(file, metr_la.path).recipe in ("metr-la/stid", "metr-la/dcrnn")
        costs = {"seconds": 1.0, "training_seconds": 1.0, "peak_pss_bytes": 1, "parameters": 1}
        return {"test": test, "epochs": 1, "best_epoch": 1, **costs}

    monkeypatch.setattr(study_processes, "run_training", trained)
    options = ["--recipes", "metr-la/stid,metr-la/dcrnn", "--seeds", "0,1", "--json"]
    assert run_command([*command, *options]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {each["name"]: each["recipe"] for each in content["models"]} == {
        "persistence": None,
        "stid": "metr-la/stid",
        "dcrnn": "metr-la/dcrnn",
    }
    published = find_recipe("metr-la/dcrnn").published
    assert published is not None
    error = content["published"]["dcrnn"]["errors"]["mae"]["12"]
    assert (error["published"], error["ours"]) == (published.mae["12"], 4.0)
    assert "windows train, validate and test" in content["published"]["dcrnn"]["notes"][0]
    # A file that names a recipe has its model, and says what it changes.
    file = tmp_path / "own.toml"
    file.write_text('recipe = "metr-la/stid"\n[training]\nbatch_size = 8\n')
    one = ["study", str(metr_la.path), str(file), "--workdir", str(tmp_path / "own")]
    assert run_command([*one, "--seeds", "0", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {each["name"] for each in content["models"]} == {"persistence", "stid"}
    assert "in place of 32" in content["published"]["stid"]["notes"][0]


def test_the_list_of_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(["recipes"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in recipe_names())
    assert run_command(["recipes", "metr-la", "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)["recipes"]
    assert set(content) == {name for name in recipe_names() if name.startswith("metr-la/")}
    assert run_command(["recipes", "metr-la/dcrnn"]) == 0
    shown = capsys.readouterr().out
    assert "scheduled_sampling = true" in shown
    assert f"about {find_recipe('metr-la/dcrnn').estimated_hours:g} hours" in shown
    assert "372,353" in shown
    assert run_command(["recipes", "metr-la/graph-wavenet"]) == 0
    assert "309,400 in the source, 293,688 here" in capsys.readouterr().out


def test_errors_by_the_same_convention_alone_are_compared() -> None:
    ours = {metric: {"3": 5.0, "mean": None, "average": 6.0} for metric in METRICS}
    compared = compare_published("metr-la/stid", ours)
    assert compared is not None
    assert "mean" not in compared.errors["mae"]
    assert "12" not in compared.errors["mae"]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "recipe",
    [each for each in RECIPES if DATASETS[each.dataset].num_nodes < FEW_SENSORS],
    ids=lambda each: each.name,
)
def test_three_steps_at_the_true_size(recipe: Recipe, tmp_path: Path) -> None:
    dataset = find_dataset(recipe.dataset)
    num_steps = 900 if recipe.model_name == "st-balance" else 90
    store = made_store(tmp_path / "store", dataset, num_steps=num_steps)
    run = train(
        store,
        tmp_path / "run",
        recipe=recipe.name,
        max_steps=3,
        batch_size=2,
        eval_batch_size=2,
        device="cpu",
        progress=False,
    )
    assert run.config.recipe == recipe.name
