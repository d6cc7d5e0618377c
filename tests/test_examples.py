"""The examples run, on something small."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from pgti import Run, SensorGraph, SeriesStore

EXAMPLES = Path(__file__).parent.parent / "examples"
FEW = ("--steps", "300", "--max-steps", "2", "--batch-size", "4", "--hidden", "2", "--windows", "7")


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def graph_file(path: Path, num_nodes: int = 6) -> Path:
    nodes = np.arange(num_nodes - 1)
    SensorGraph.from_edges(num_nodes, nodes, nodes + 1).save(path)
    return path


def test_pems_california(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From a graph file to a store, a run, metrics and forecasts, which it calls semi-synthetic."""
    main = example("pems_california").main
    graph = graph_file(tmp_path / "graph.npz")
    main([str(graph), "--out", str(tmp_path / "out"), *FEW])
    printed = capsys.readouterr().out
    store = SeriesStore.open(tmp_path / "out" / "store")
    assert store.meta.shape == (300, 6, 1)
    assert store.meta.num_edges == 5
    run = Run.open(tmp_path / "out" / "run")
    assert run.config.training.max_steps == 2
    report = run.evaluate("test", max_windows=7).to_dict()["test"]
    assert "over 7 of 55 test windows (semi-synthetic observations)" in printed
    for name, errors in (("dcrnn", report), ("persistence", report["persistence"])):
        line = next(line for line in printed.splitlines() if line.startswith(name))
        assert line.split()[1:] == [
            f"{errors['mae'][step]:.3f}" for step in ("3", "6", "12", "mean")
        ]
    with np.load(tmp_path / "out" / "run.npz") as forecast:
        assert forecast["forecast"].shape[1:3] == (12, 6)

    main([str(graph), "--out", str(tmp_path / "out"), "--run", "again", *FEW])
    assert "simulating" not in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r"error: .*holds a run already"):
        main([str(graph), "--out", str(tmp_path / "out"), *FEW])


def test_backtest_drift(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three backtests of a synthetic month, and a table of their errors."""
    main = example("backtest_drift").main
    main(["--out", str(tmp_path), "--days", "20", "--folds", "2", "--epochs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert "never" in lines[-4]
    assert lines[-1].startswith("all")
    errors = [float(each) for each in lines[-1].split()[1:]]
    assert len(errors) == 4
    assert all(0 < each < 20 for each in errors)
