"""The report of an evaluation: attributes, frame, plain values and what a notebook shows."""

from typing import Any

import pandas as pd
import pytest
import torch

from pgti.errors import ConfigError
from pgti.forecasting import ForecastMetrics, Report, evaluation_report


def evaluated(horizon: int, channels: tuple[str, ...], seed: int = 0) -> dict[str, Any]:
    """A split's content with errors of random forecasts for a model and a baseline."""
    generator = torch.Generator().manual_seed(seed)
    shape = (5, horizon, 3, len(channels))
    metrics = {}
    for name in ("model", "persistence"):
        metrics[name] = ForecastMetrics(horizon, len(channels))
        target = 50 + torch.rand(shape, generator=generator)
        prediction = 50 + torch.rand(shape, generator=generator)
        metrics[name].update(prediction, target, torch.ones(shape, dtype=torch.bool))
    content = evaluation_report(metrics, "model", channels)
    return content | {"windows": 5, "split_windows": 9}


def report_of(
    horizon: int = 12, channels: tuple[str, ...] = ("speed",), splits: tuple[str, ...] = ("test",)
) -> Report:
    return Report(
        {name: evaluated(horizon, channels, seed) for seed, name in enumerate(splits)},
        model="dcrnn",
        units=dict.fromkeys(channels, "mph"),
        interval_seconds=300,
    )


def test_attributes_are_the_means_of_the_model() -> None:
    report = report_of()
    content = report.to_dict()["test"]
    assert (report.mae, report.rmse, report.mape) == (
        content["mae"]["mean"],
        content["rmse"]["mean"],
        content["mape"]["mean"],
    )
    assert report.num_windows == 5
    assert report["test"].mae == report.mae
    assert report.average("mae") == content["mae"]["average"] != report.mae


def test_one_of_several_splits_is_chosen_first() -> None:
    report = report_of(splits=("val", "test"))
    assert report.splits == ("val", "test")
    assert report["val"].mae != report["test"].mae
    with pytest.raises(ConfigError, match=r"has the splits val, test: choose one .*\['val'\]"):
        _ = report.mae
    with pytest.raises(ConfigError, match="split 'train' was not evaluated"):
        _ = report["train"]
    with pytest.raises(ConfigError, match="metric 'mase' was not computed"):
        report["val"].mean("mase")


def test_frame_has_a_row_per_step_or_one_for_all_steps() -> None:
    report = report_of(horizon=3, channels=("flow", "speed"), splits=("val", "test"))
    frame = report.to_frame()
    assert list(frame.columns) == [
        "split", "forecaster", "channel", "horizon", "mae", "rmse", "mape", "count",
    ]  # fmt: skip
    assert len(frame) == 2 * 2 * 3 * 3
    content = report.to_dict()["test"]["persistence"]["channels"]["speed"]
    chosen = frame.query("split == 'test' and forecaster == 'persistence' and channel == 'speed'")
    assert chosen.query("horizon == 2")["mae"].item() == content["mae"]["2"]
    overall = report.to_frame(by_horizon=False)
    assert "horizon" not in overall
    assert len(overall) == 2 * 2 * 3
    chosen = overall.query("split == 'test' and forecaster == 'persistence' and channel == 'speed'")
    assert chosen["rmse"].item() == content["rmse"]["mean"]
    assert chosen["rmse_average"].item() == content["rmse"]["average"]
    assert overall["channel"].isna().sum() == 4


def test_a_single_channel_is_named_in_the_frame() -> None:
    assert set(report_of().to_frame()["channel"]) == {"speed"}


@pytest.mark.parametrize(
    ("horizon", "seconds", "headings"),
    [
        (12, 300, ["15 min", "30 min", "45 min", "60 min", "mean", "average"]),
        (3, 86_400, ["24 h", "48 h", "3 d", "mean", "average"]),
        (7, None, ["step 1", "step 3", "step 5", "step 7", "mean", "average"]),
        (1, 20, ["20 s", "mean", "average"]),
    ],
)
def test_the_last_step_and_the_mean_are_always_shown(
    horizon: int, seconds: int | None, headings: list[str]
) -> None:
    report = Report(
        {"test": evaluated(horizon, ("speed",))},
        model="dcrnn",
        units={"speed": "mph"},
        interval_seconds=seconds,
    )
    assert list(report.shown_steps().values()) == headings
    assert list(report.summary().columns) == headings


@pytest.mark.parametrize("channels", [("speed",), tuple(f"c{index}" for index in range(40))])
def test_a_report_prints_in_a_dozen_lines(channels: tuple[str, ...]) -> None:
    report = report_of(channels=channels, splits=("train", "val", "test"))
    text = repr(report)
    assert len(text.splitlines()) <= 16
    assert "dcrnn on train (5 of 9 windows), val (5 of 9 windows)" in text
    html = report._repr_html_()
    assert "<table" in html
    assert html.count("<tr") <= 16


def test_what_was_never_observed_is_missing() -> None:
    metrics = {"model": ForecastMetrics(2, 1)}
    content = evaluation_report(metrics, "model", ("speed",)) | {"windows": 1, "split_windows": 1}
    report = Report({"test": content}, model="gru", units={"speed": ""})
    assert report.mae is None
    assert report.to_frame()["mae"].isna().all()
    assert pd.isna(report.summary()).all(axis=None)
    assert "-" in repr(report)
