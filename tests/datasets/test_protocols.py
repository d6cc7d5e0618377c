"""The published protocols: windows as the official code makes them, and a run by one of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pgti import Run, ingest, train
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.datasets import DATASETS, Protocol, find_dataset
from pgti.errors import ConfigError
from pgti.ingestion import IngestOptions, open_readings
from pgti.store import SeriesStore
from pgti.windows import WindowSpec, split_by_fractions

PROTOCOLS = {name: each.protocol for name, each in DATASETS.items() if each.protocol is not None}
TEST_FIRST = ("METR-LA", "PEMS-BAY", "PeMS", "PeMS-All-LA", "Windmill-Large", "Chickenpox-Hungary")


def official(protocol: Protocol, *, test_first: bool) -> tuple[int, int, int]:
    """The arithmetic of the official scripts, DCRNN's or that of BasicTS and LargeST."""
    count = protocol.num_steps - (protocol.input_steps + protocol.horizon - 1)
    train_share, val_share, test_share = protocol.fractions
    num_train = round(count * train_share)
    if test_first:
        num_test = round(count * test_share)
        return num_train, count - num_train - num_test, num_test
    num_val = round(count * val_share)
    return num_train, num_val, count - num_train - num_val


@pytest.mark.parametrize("name", PROTOCOLS)
def test_windows_are_those_of_the_official_code(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.num_windows == official(protocol, test_first=name in TEST_FIRST)
    options = protocol.window_options(protocol.num_steps)
    spec = WindowSpec(input_steps=options["input_steps"], horizon=options["horizon"])
    splits = split_by_fractions(protocol.num_steps, spec, options["fractions"])
    counts = tuple(len(each) for each in (splits.train, splits.val, splits.test))
    assert counts == protocol.num_windows
    WindowConfig(**options)
    assert protocol.window_options(999)["fractions"] == protocol.fractions


def test_rows_that_are_cut_first_make_fewer_windows() -> None:
    """STSGCN cuts rows from the front, AGCRN from the end, each part into its own windows."""
    fewer = set()
    for name in ("PEMS03", "PEMS04", "PEMS07", "PEMS08"):
        rows, windows = PROTOCOLS[name].num_steps, PROTOCOLS[name].num_windows
        for cuts in (
            (0, int(rows * 0.6), int(rows * 0.8), rows),
            (0, rows - int(rows * 0.4), rows - int(rows * 0.2), rows),
        ):
            fewer |= {
                count - (stop - start - 23)
                for count, start, stop in zip(windows, cuts, cuts[1:], strict=False)
            }
    assert (min(fewer), max(fewer)) == (8, 19)


def test_windows_that_papers_report() -> None:
    assert PROTOCOLS["METR-LA"].num_windows == (23_974, 3_425, 6_850)
    assert PROTOCOLS["PEMS-BAY"].num_windows == (36_465, 5_209, 10_419)
    assert PROTOCOLS["PeMS"].num_windows == (73_568, 10_510, 21_019)
    splits = split_by_fractions(52_128, WindowSpec(), (0.7, 0.1, 0.2))
    filled = tuple(f"{len(each):,}" for each in (splits.train, splits.val, splits.test))
    assert " / ".join(filled) in PROTOCOLS["PEMS-BAY"].notes[0]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_channels_are_those_of_the_data_set(name: str) -> None:
    dataset, protocol = DATASETS[name], PROTOCOLS[name]
    assert set(protocol.targets) <= set(protocol.inputs) <= set(dataset.channels)
    if dataset.start is None or dataset.interval in ("7d",):
        assert protocol.calendar == ()


def stored(path: Path, dataset: str | None = "PEMS04", *, num_steps: int = 400) -> SeriesStore:
    readings = open_readings(
        np.random.default_rng(3).integers(1, 90, (num_steps, 4, 3)), IngestOptions()
    )
    readings = replace(readings, dataset=dataset)
    channels = ("flow", "occupancy", "speed")
    return ingest(readings, path, channels=channels, start="2018-01-01", interval="5min")


SMALL = {"model": "linear", "epochs": 1, "batch_size": 64, "device": "cpu"}


def test_a_run_by_the_published_protocol(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = stored(tmp_path / "store")
    assert SeriesStore.open(store.path).meta.read_options["dataset"] == "PEMS04"
    run = train(store, tmp_path / "run", protocol="published", **SMALL)
    windows = run.config.windows
    assert (windows.inputs, windows.targets) == (("flow",), ("flow",))
    assert windows.calendar == ("time-of-day", "day-of-week")
    assert windows.fractions == (0.6, 0.2, 0.2)
    assert run.source.shape.input_channels == 3
    log = capsys.readouterr().err
    assert "protocol of PEMS04 (BasicTS and Torch-MTS" in log
    assert (
        "226 / 76 / 75 windows train, validate and test, where the official code has 10,181" in log
    )
    assert "the store has 4 sensors, and PEMS04 307" in log


def test_options_that_are_given_win(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {"horizon": 3, "targets": ("speed",), "inputs": ("speed",)}
    run = train(
        stored(tmp_path / "store"), tmp_path / "run", protocol="pems04", windows=given, **SMALL
    )
    assert (run.config.windows.horizon, run.source.target_names) == (3, ("speed",))
    assert run.config.windows.fractions == (0.6, 0.2, 0.2)
    log = capsys.readouterr().err
    assert "windows.horizon is 3 as given, where the protocol has 12" in log
    assert "is speed as given, where the protocol has flow" in log
    dates = {"val_from": "2018-01-01T20:00", "test_from": "2018-01-02T02:00"}
    run = train(stored(tmp_path / "b"), tmp_path / "c", protocol="PEMS04", windows=dates, **SMALL)
    assert run.config.windows.val_from == dates["val_from"]
    assert "is dates as given" in capsys.readouterr().err


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored(tmp_path / "store")
    words = ["--model", "linear", "--epochs", "1", "--batch-size", "64"]
    words += ["--device", "cpu", "--windows.horizon", "3"]
    command = ["train", str(tmp_path / "store"), "--run", str(tmp_path / "run"), *words]
    assert run_command([*command, "--protocol", "published"]) == 0
    log = capsys.readouterr().err
    assert "--windows.horizon is 3 as given, where the protocol has 12" in log
    assert Run.open(tmp_path / "run").config.windows.inputs == ("flow",)
    assert run_command(["datasets", "PEMS08"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "12 + 12 steps, flow, time-of-day, day-of-week -> flow" in shown
    assert run_command(["datasets", "PEMS08", "--json"]) == 0
    described = json.loads(capsys.readouterr().out)
    assert described["protocol"]["num_windows"] == [10_700, 3_567, 3_566]


def test_what_cannot_be_applied(tmp_path: Path) -> None:
    unnamed = stored(tmp_path / "store", None)
    for name, message in (
        ("published", r"does not say which published data set it is: name it \(protocol='METR-LA'"),
        ("METR-LA", "the protocol of METR-LA has the channel 'speeds'|has the channel"),
        ("METRLA", "data set 'METRLA' is unknown"),
    ):
        if name == "METR-LA":
            unnamed = ingest(np.ones((60, 2)), tmp_path / "one", start="2018-01-01", interval="1h")
        with pytest.raises(ConfigError, match=message):
            train(unnamed, tmp_path / "run", protocol=name, **SMALL)
    assert not (tmp_path / "run").exists()


def test_every_data_set_says_what_it_has() -> None:
    for name, dataset in DATASETS.items():
        if dataset.protocol is not None:
            assert dataset.protocol.source, name
            counts = " / ".join(f"{each:,}" for each in dataset.protocol.num_windows)
            assert counts in dataset.protocol.summary
    assert find_dataset("pems08").protocol.num_windows == (10_700, 3_567, 3_566)
