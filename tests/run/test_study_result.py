"""The table of a study in every format."""

import csv
import dataclasses
import io
from pathlib import Path

import pytest

from pgti.errors import ConfigError
from pgti.run.results import Machine
from pgti.run.study_result import OverSeeds, StudiedModel, StudyResult

MACHINE = Machine(
    cpu="c", cores=2, threads=1, memory_bytes=1, system="s", libc="", versions={"python": "3"}
)


def errors(*seeds: float) -> dict[str, dict[str, OverSeeds]]:
    """Errors of twelve steps and their mean; MAPE exists at no step but the last."""
    steps = [*map(str, range(1, 13)), "mean"]
    found = {
        metric: {step: OverSeeds.of([factor * seed for seed in seeds]) for step in steps}
        for metric, factor in (("mae", 1), ("rmse", 2), ("mape", 3))
    }
    found["mape"] = {step: value for step, value in found["mape"].items() if step in ("12", "mean")}
    return found


@pytest.fixture(name="result")
def _result() -> StudyResult:
    figures = OverSeeds.of([3, 5])
    return StudyResult(
        store="s",
        interval_seconds=300,
        models=(
            StudiedModel(name="persistence", model="p", seeds=(), parameters=0, errors=errors(2.0)),
            StudiedModel(
                name="my_model", model="gru", seeds=(0, 7), parameters=1234,
                errors=errors(1.0, 1.5), epochs=figures, best_epoch=figures,
                seconds_per_epoch=OverSeeds.of([1000, 2000]),
                peak_pss_bytes=OverSeeds.of([2**20, 2**21]),
            ),
        ),
        test_windows=1000, threads=1, jobs=1, machine=MACHINE, left_out=(),
    )  # fmt: skip


def test_the_best_model_is_the_first_row(result: StudyResult) -> None:
    table = result.to_table()
    assert [row[0] for row in table.rows] == ["my_model", "persistence"]
    assert table.titles[:4] == ("15 min", "30 min", "60 min", "mean")
    assert table.groups == ("MAE",) * 4 + ("RMSE",) * 4 + ("MAPE %",) * 4 + ("",) * 6
    assert table.rows[0] == (
        "my_model", *["1.250 ± 0.354"] * 4, *["2.500 ± 0.707"] * 4,
        "-", "-", "3.750 ± 1.061", "3.750 ± 1.061",
        "2", "4 ± 1", "4 ± 1", "1,500 ± 707", "2 ± 1", "1,234",
    )  # fmt: skip
    assert table.rows[1][-6:] == ("-",) * 6
    assert table.rows[1][1] == "2.000"


def test_markdown(result: StudyResult) -> None:
    heading, rule, *rows = result.to_table().to_markdown().splitlines()
    assert heading.startswith("| model | MAE 15 min | MAE 30 min | MAE 60 min | MAE mean | RMSE 15")
    assert heading.endswith("| seeds | epochs | best epoch | s/epoch | peak MiB | parameters |")
    assert {line.count("|") for line in (heading, rule, *rows)} == {20}
    assert set(rule) == set("| -:")


def test_latex(result: StudyResult) -> None:
    """Every row has as many cells, special characters are escaped, braces are closed."""
    text = result.to_table().to_latex()
    lines = text.splitlines()
    assert lines[1:3] == [r"\begin{tabular}{l" + "r" * 18 + "}", r"\toprule"]
    assert lines[3] == (
        r" & \multicolumn{4}{c}{MAE} & \multicolumn{4}{c}{RMSE} & \multicolumn{4}{c}{MAPE \%} & "
        r"\multicolumn{6}{c}{} \\"
    )
    assert {line.count(" & ") for line in lines[4:] if line.endswith(r"\\")} == {18}
    assert lines[6].startswith(r"my\_model & 1.250 $\pm$ 0.354 & ")
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert text.count("{") == text.count("}")


def test_csv(result: StudyResult, tmp_path: Path) -> None:
    """Unrounded, mean and standard deviation apart; empty where there is no figure."""
    result.write_table(tmp_path / "new/table.csv")
    best, other = csv.DictReader(io.StringIO((tmp_path / "new/table.csv").read_text()))
    assert float(best["mae_3_std"]) == result.models[1].errors["mae"]["3"].std
    assert (best["mae_mean_mean"], best["seeds"], best["parameters"]) == ("1.25", "2", "1234")
    assert (best["peak_mebibytes_mean"], best["seconds_per_epoch_mean"]) == ("1.5", "1500.0")
    assert (best["mape_3_mean"], other["mae_3_std"], other["seeds"]) == ("", "", "")


def test_the_suffix_names_the_format(result: StudyResult, tmp_path: Path) -> None:
    for suffix, start in (
        (".md", "| model |"),
        (".tex", "% \\usepackage"),
        (".csv", "model,mae_3"),
    ):
        path = (tmp_path / "table").with_suffix(suffix)
        result.write_table(path)
        assert path.read_text().startswith(start)
    with pytest.raises(ConfigError, match=r"table\.xlsx must end in \.md, \.csv or \.tex"):
        result.write_table(tmp_path / "table.xlsx")


def test_a_result_shows_itself_in_a_few_lines(result: StudyResult) -> None:
    lines = repr(result).splitlines()
    assert lines[0] == "study of s, 1,000 test windows: MAE"
    assert lines[1].split() == ["15", "min", "30", "min", "60", "min", "mean"]
    assert lines[2].startswith("my_model     1.250 ± 0.354")
    assert len(lines) == 4


@pytest.mark.parametrize(
    ("horizon", "shown"), [(2, ["2"]), (4, ["3", "4"]), (24, ["3", "6", "12", "24"])]
)
def test_steps_of_the_literature_and_the_last_are_shown(
    result: StudyResult, horizon: int, shown: list[str]
) -> None:
    errors_of = {step: OverSeeds.of([1.0]) for step in [*map(str, range(1, horizon + 1)), "mean"]}
    model = StudiedModel(
        name="m", model="m", seeds=(1,), parameters=1,
        errors=dict.fromkeys(("mae", "rmse", "mape"), errors_of),
    )  # fmt: skip
    table = dataclasses.replace(result, models=(model,), interval_seconds=None).to_table()
    assert list(table.titles[: len(shown)]) == [f"step {step}" for step in shown]
    assert table.titles[len(shown)] == "mean"
