"""Exported runs: programs that forecast as the run does, without pgti."""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pgti
from pgti.cli.main import run_command
from pgti.errors import ConfigError, RunError
from pgti.graph import SensorGraph
from pgti.interop.export import TOLERANCE, export
from pgti.interop.export.clock import calendar_feature, day_of_week
from pgti.interop.export.formats import FORMATS
from pgti.models import MODELS
from pgti.run import Run
from pgti.store import TimeAxis, calendar_features
from pgti.store.time_rule import MonthRule

from ..pgt.data_files import needs_pgt
from .exported_runs import HOURLY, make_run, make_series

NAMES = [name for name, entry in MODELS.items() if not entry.library]
# Torch traces for seconds: `make test-slow` has every model in both formats, `make test` a few.
ALL = [pytest.param(*each, marks=pytest.mark.slow) for each in itertools.product(NAMES, FORMATS)]


def operators(path: Path) -> set[str]:
    program = torch.export.load(path)
    return {
        str(node.target)
        for module in program.graph_module.modules()
        if isinstance(module, torch.fx.GraphModule)
        for node in module.graph.nodes
        if node.op == "call_function"
    }


@pytest.mark.parametrize(("name", "suffix"), ALL)
def test_every_model_is_exported(tmp_path: Path, name: str, suffix: str) -> None:
    """With covariates, and missing readings; `export` compares batches of 1 and 3 windows."""
    written = export(make_run(name), tmp_path / f"model{suffix}")
    assert written.largest_difference <= TOLERANCE
    if suffix == ".pt2":
        assert all(each.startswith(("aten.", "<built-in")) for each in operators(written.path))


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "quantiles-bounds": (
        "stid",
        {
            "training": {
                "loss": {"kind": "quantile", "quantiles": (0.1, 0.5, 0.9)},
                "bounds": "flow=0,310;speed=,61",
            }
        },
    ),
    "history": ("linear", {"history": ("1d..2d",)}),
    "recalled-days": ("gru", {"history": ("1d..2d",)}),
    "climatology-mask": ("gru", {"climatology": True, "observed_mask": True}),
    "mean-inputs": ("gru", {"fill": "mean", "inputs": ("speed", "flow"), "history": ("1d..2d",)}),
    "calendar-holidays": (
        "gru",
        {
            "calendar": ("day-of-year", "month-of-year", "day-of-week", "time-of-day"),
            "holidays": ("US",),
        },
    ),
}
"""What a window may hold, on a model of each kind."""
SERIES = ("exact", "zone", "irregular", "undated", "rule")
QUICK_WINDOWS = ("quantiles-bounds",)


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(each, marks=() if each in QUICK_WINDOWS else pytest.mark.slow)
        for each in VARIANTS
    ],
)
def test_every_kind_of_window_is_exported(tmp_path: Path, variant: str) -> None:
    name, options = VARIANTS[variant]
    written = export(make_run(name, **options), tmp_path / "model.pt2")
    assert written.largest_difference <= TOLERANCE
    names = [each["name"] for each in written.metadata["inputs"]]
    assert names[0] == "readings"
    assert ("history" in names) == ("history" in options)
    assert ("holidays" in names) == ("holidays" in options)
    assert len(written.metadata["outputs"]) == 1 + (variant == "quantiles-bounds")


@needs_pgt
@pytest.mark.slow
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("name", ["pgt:A3TGCN2", "pgt:TGCN2"])
def test_layers_of_pgt_are_exported(tmp_path: Path, name: str, suffix: str) -> None:
    written = export(make_run(name), tmp_path / f"model{suffix}")
    assert written.largest_difference <= TOLERANCE


@pytest.mark.parametrize("kind", [pytest.param(each, marks=pytest.mark.slow) for each in SERIES])
def test_every_kind_of_series_is_exported(tmp_path: Path, kind: str) -> None:
    """Exact readings are float64; times are wall clock, by any rule, or unknown."""
    axis = HOURLY
    if kind == "zone":  # the clock goes forward on 2025-03-30
        axis = TimeAxis(num_steps=120, start_seconds=1_743_000_000, interval_seconds=3600,
                        time_zone="Europe/Berlin")  # fmt: skip
    if kind == "irregular":
        seconds = 1_740_700_800 + np.cumsum(np.where(np.arange(120) % 7, 3600, 7200))
        axis = TimeAxis(num_steps=120, start_seconds=int(seconds[0]), interval_seconds=3600,
                        seconds=seconds.astype(np.int64))  # fmt: skip
    if kind == "undated":
        axis = TimeAxis(num_steps=120)
    if kind == "rule":
        axis = TimeAxis(num_steps=120, start_seconds=0, interval_seconds=30 * 86_400,
                        rule=MonthRule(months=1))  # fmt: skip
    run = make_run("linear", make_series(axis, exact=kind == "exact"), history=("24",))
    written = export(run, tmp_path / "model.pt2")
    assert written.largest_difference <= TOLERANCE
    inputs = {each["name"]: each["dtype"] for each in written.metadata["inputs"]}
    assert ("times" in inputs) == (kind != "undated")
    assert inputs["readings"] == ("float64" if kind == "exact" else "float32")


def test_a_large_graph_is_no_matrix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its products gather rows: the program holds no number for each pair of sensors."""
    monkeypatch.setattr("pgti.nn.sparse_product._EXPORTED_DENSE", 0)
    sensors = np.arange(20)
    ring = SensorGraph.from_edges(20, sensors, (sensors + 1) % 20)
    written = export(make_run("tgcn", make_series(graph=ring)), tmp_path / "model.pt2")
    program = torch.export.load(written.path)
    assert (20, 20) not in [tuple(each.shape) for each in program.state_dict.values()]
    used = operators(written.path)
    assert "aten.index_select.default" in used
    assert not any("add" in each and ("index" in each or "scatter" in each) for each in used)


def test_the_calendar_is_that_of_stores() -> None:
    """Of 800 years around 1970, to the bit."""
    random = np.random.default_rng(2)
    times = np.sort(random.choice(25_000_000_000, 5000, replace=False)) - 12_500_000_000
    axis = TimeAxis(num_steps=5000, start_seconds=int(times[0]), interval_seconds=60, seconds=times)
    rows, given = np.arange(5000), torch.from_numpy(times)
    for name in ("time-of-day", "day-of-week", "day-of-year", "month-of-year"):
        expected = calendar_features(axis, (name,), rows)[..., 0]
        assert np.array_equal(calendar_feature(name, given).numpy(), expected), name
    assert np.array_equal(day_of_week(given).numpy(), axis.day_of_week(rows))


WITHOUT_PGTI = """
import sys
sys.modules["pgti"] = None
import json, numpy as np
path, kind = sys.argv[1:]
readings = np.full((4, 3, 7, 3), np.nan, dtype=np.float32)
readings[:, 0] = 60.0
times = np.int64(1_740_700_800) + 3600 * np.arange(5) + np.zeros((4, 1), dtype=np.int64)
future = np.full((4, 2, 7, 1), 2.0, dtype=np.float32)
arrays = {"readings": readings, "times": times, "future": future}
if kind == "onnx":
    import onnxruntime
    session = onnxruntime.InferenceSession(path)
    metadata = json.loads(session.get_modelmeta().custom_metadata_map["pgti"])
    (forecast,) = session.run(["forecast"], arrays)
else:
    import torch
    extra = {"metadata.json": ""}
    program = torch.export.load(path, extra_files=extra)
    metadata = json.loads(extra["metadata.json"])
    with torch.no_grad():
        tensors = [torch.from_numpy(arrays[each["name"]]) for each in metadata["inputs"]]
        forecast = program.module()(*tensors).numpy()
assert metadata["targets"][0] == {"name": "speed", "unit": "mph"}
assert metadata["sensors"][0] == "s0"
assert forecast.shape == (4, 2, 7, 2) and np.isfinite(forecast).all()
print(forecast.sum())
"""


@pytest.mark.parametrize("kind", ["onnx", pytest.param("pt2", marks=pytest.mark.slow)])
def test_a_program_needs_no_pgti(tmp_path: Path, kind: str) -> None:
    """Its description is inside, too; no file names a path of this machine."""
    written = export(make_run("linear"), tmp_path / f"model.{kind}")
    assert str(Path(pgti.__file__).parent).encode() not in written.path.read_bytes()
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_PGTI, str(written.path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert np.isfinite(float(done.stdout))


def test_the_description(tmp_path: Path) -> None:
    written = export(make_run("linear"), tmp_path / "model.pt2")
    described = json.loads(written.metadata_path.read_text())
    assert described == written.metadata
    assert described["sensors"] == [f"s{number}" for number in range(7)]
    assert described["channels"][0] == {"name": "flow", "unit": "veh/h"}
    assert described["future"] == [{"name": "rain", "unit": "mm"}]
    assert (described["input_steps"], described["horizon"]) == (3, 2)
    assert described["interval_seconds"] == 3600
    shapes = {each["name"]: each["shape"] for each in described["inputs"]}
    assert shapes == {"readings": [None, 3, 7, 3], "times": [None, 5], "future": [None, 2, 7, 1]}


class Counts(torch.nn.Module):
    """A network whose code asks for the number of windows."""

    def __init__(self, horizon: int) -> None:
        super().__init__()
        self.horizon, self.scale = horizon, torch.nn.Parameter(torch.ones(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, L, N, C_in] -> [B, H, N, 2]."""
        return self.scale * x[:, -1:, :, :2].expand(len(x), self.horizon, -1, -1)


def with_network(run: Run, network: torch.nn.Module) -> Run:
    run.forecaster.network, run.forecaster.requested = network, ()
    run.forecaster.heads = ()
    return run


def test_refusals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and nothing is written."""
    run, path = make_run("linear"), tmp_path / "model.pt2"
    with pytest.raises(ConfigError, match=r"suffix must be one of \.pt2, \.onnx"):
        export(run, tmp_path / "model.bin")
    with pytest.raises(ConfigError, match="no directory"):
        export(run, tmp_path / "none" / "model.pt2")
    own = with_network(make_run("linear"), Counts(2))
    with pytest.raises(ConfigError, match=r"cannot be exported.*x\.shape\[0\]"):
        export(own, path)
    monkeypatch.setattr("pgti.interop.export.program._FADING", 0.5)
    with pytest.raises(RunError, match="differ from those of the run by"):
        export(run, path)
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    path.write_bytes(b"another")
    with pytest.raises(ConfigError, match=r"model\.pt2 exists.*overwrite=True"):
        export(run, path)
    assert path.read_bytes() == b"another"
    assert export(run, path, overwrite=True).path == path


def test_too_large_for_onnx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgti.interop.export.formats._MOST_BYTES", 1000)
    with pytest.raises(ConfigError, match=r"less than 2 GiB: export to a \.pt2 file"):
        export(make_run("linear"), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
    assert set(FORMATS) == {".pt2", ".onnx"}


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trained run, opened again; the readings of its check are those of the store."""
    store = pgti.simulate(tmp_path / "store", sensors=4, steps=120, seed=1)
    windows = {"input_steps": 3, "horizon": 2}
    pgti.train(store, tmp_path / "run", model="linear", epochs=1, windows=windows, progress=False)
    to = tmp_path / "model.pt2"
    assert run_command(["export", str(tmp_path / "run"), "--to", str(to), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["largest_difference"] <= TOLERANCE
    assert run_command(["export", str(tmp_path / "run"), "--to", str(to)]) == 2
    assert "--overwrite" in capsys.readouterr().err
