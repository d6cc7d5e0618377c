"""`pgti info`: what a store holds, when, and what is missing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from pgti.cli.main import run_command


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six sensors and two channels over the end of summer time; one sensor is dead."""
    path = tmp_path_factory.mktemp("data")
    index = pd.date_range("2025-10-25 22:00", periods=20, freq="15min", tz="UTC")
    rng = np.random.default_rng(0)
    values = np.stack([rng.normal(60, 5, (20, 6)), rng.normal(900, 90, (20, 6))], axis=2).round(1)
    values[3:7, 1] = np.nan
    values[5, 4, 0] = np.nan
    values[:, 2] = np.nan
    values[0, 0] = 12.5, -3.0
    values[1, 0] = 99.5, 2000.0
    columns = pd.MultiIndex.from_product(
        [[f"s{i}" for i in range(6)], ["speed", "flow"]], names=["sensor", "channel"]
    )
    frame = pd.DataFrame(values.reshape(20, 12), index=index, columns=columns)
    from pgti import ingest  # noqa: PLC0415 - as users do

    ingest(frame, path / "store", units=("mph", ""), time_zone="Europe/Berlin")
    return path / "store"


def info(store: Path, *tokens: str) -> list[str]:
    return ["info", str(store), *tokens]


def test_times_are_local_with_their_offset(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Start and end, on both sides of the change of clocks."""
    assert run_command(info(store, "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["start"] == "2025-10-26T00:00:00+02:00"
    assert facts["end"] == "2025-10-26T03:45:00+01:00"
    assert facts["time_zone"] == "Europe/Berlin"
    assert run_command(info(store)) == 0
    shown = capsys.readouterr().out
    assert "2025-10-26 00:00:00+02:00 to 2025-10-26 03:45:00+01:00, every 15min" in shown
    assert "Europe/Berlin" in shown


def test_ranges_and_what_is_missing(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of each channel in its unit, and the sensors with most of it first."""
    assert run_command(info(store, "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    speed, flow = facts["readings"]
    assert (speed["channel"], speed["unit"]) == ("speed", "mph")
    assert (speed["minimum"], speed["maximum"]) == (12.5, 99.5)
    assert (flow["minimum"], flow["maximum"]) == (-3.0, 2000.0)
    assert speed["missing_fraction"] == pytest.approx(25 / 120)
    assert flow["missing_fraction"] == pytest.approx(24 / 120)
    assert facts["missing_fraction"] == pytest.approx(49 / 240)
    assert facts["most_missing"] == [
        {"sensor": "s2", "missing_fraction": 1.0},
        {"sensor": "s1", "missing_fraction": 0.2},
        {"sensor": "s4", "missing_fraction": 0.025},
    ]
    assert run_command(info(store)) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["speed", "mph", "12.5"] in [row[:3] for row in rows]
    assert ["flow", "-", "-3"] in [row[:3] for row in rows]
    assert ["s2", "100.00%"] in rows
    assert ["missing", "20.42%"] in rows


def test_brief_leaves_the_pass_out(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("the readings were read")

    monkeypatch.setattr("pgti.store.summary.summarize", refuse)
    assert run_command(info(store, "--brief", "--json")) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["missing_fraction"] == pytest.approx(49 / 240)
    assert "readings" not in facts
    assert run_command(info(store, "--brief")) == 0
    assert "sensors with most missing" not in capsys.readouterr().out


def test_a_complete_store_without_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is missing, so no sensors are named; what is unknown is said to be."""
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    out = str(tmp_path / "store")
    assert run_command(["ingest", str(tmp_path / "a.npy"), "--out", out]) == 0
    capsys.readouterr()
    assert run_command(["info", out]) == 0
    shown = capsys.readouterr().out
    assert "times        unknown" in shown
    assert "sensors with most" not in shown
    assert run_command(["info", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["start"], facts["end"], facts["most_missing"]) == (None, None, [])
