"""Every command that writes, with what it reads, and the state that it leaves."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import torch

from .walker import Walker

TINY = ("--model", "linear", "--windows.input-steps", "3", "--windows.horizon", "2",
        "--batch-size", "64", "--device", "cpu")  # fmt: skip
CONFIG = """
[windows]
input_steps = 3
horizon = 2

[model]
name = "linear"

[training]
epochs = 1
batch_size = 64
"""
SPACE = "[training.learning_rate]\nlow = 1e-4\nhigh = 1e-1\nlog = true\n"

State: TypeAlias = dict[str, str]
"""What each file holds, by its path."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command line.

    Attributes:
        name: of the case.
        tokens: the command line.
        again: what repeats it after a failure.
        resumes: whether what it has done before it failed may stay: another start goes on there.
    """

    name: str
    tokens: tuple[str, ...]
    again: tuple[str, ...]
    resumes: bool = False


def _command(line: str, *more: str, name: str = "", again: str = "", **options: Any) -> Command:
    tokens = (*line.split(), *more, "--quiet")
    repeated = [each for each in tokens if not again or each != "--overwrite"]
    return Command(
        name=name or tokens[0], tokens=tokens, again=(*repeated, *again.split()), **options
    )


COMMANDS = (
    _command("ingest readings.csv --graph graph.csv --out new/deep/store"),
    _command("ingest finer-grid.csv --graph graph.csv --out store --overwrite", name="overwrite"),
    _command("simulate --sensors 4 --steps 300 --out simulated"),
    _command("append store same-grid.csv", name="append"),
    _command("append store finer-grid.csv", name="append-recoded"),
    _command("train store --run new/run --epochs 2", *TINY, again="--resume", resumes=True),
    _command("train store --run run --epochs 2 --resume", *TINY, name="resume", resumes=True),
    _command("evaluate run --out errors.csv"),
    _command("predict run --out forecasts.csv"),
    _command("predict run --out forecasts.npz", name="predict-npz"),
    _command(
        "fetch chickenpox-hungary --cache cache --out fetched", again="--overwrite", resumes=True
    ),
)
SLOW_COMMANDS = (
    _command("ingest by-sensor.csv --graph graph.csv --out new-store", name="ingest-long"),
    _command("append store corrected.csv --correct", name="append-corrected"),
    _command("train store --run run --epochs 2 --overwrite", *TINY, name="train-overwrite",
             resumes=True),
    _command("evaluate run --out errors.parquet", name="evaluate-parquet"),
    _command("predict run --out forecasts.parquet", name="predict-parquet"),
    _command("report run --out old.html"),
    _command("backtest store --out backtest --folds 2 --epochs 1", *TINY, resumes=True),
    _command("study store linear.toml --seeds 0,1 --workdir work --table table.md", resumes=True),
    _command("tune store --space space.toml --out search --trials 2 --epochs 1", *TINY,
             resumes=True),
    _command("export run --to program.pt2"),
    _command("export run --to program.onnx", name="export-onnx"),
)  # fmt: skip


def make_inputs(walker: Walker) -> None:
    """Write what the commands read."""
    root = walker.root
    (root / "tmp").mkdir(parents=True)
    generator = np.random.default_rng(1)

    def table(name: str, start: str, num_rows: int, decimals: int) -> pd.DataFrame:
        values = generator.uniform(20, 70, (num_rows, 4)).round(decimals)
        times = pd.date_range(start, periods=num_rows, freq="5min", name="time")
        frame = pd.DataFrame(values, index=times, columns=list("abcd"))
        frame.to_csv(root / name)
        return frame

    readings = table("readings.csv", "2025-01-06", 150, 0)
    table("same-grid.csv", "2025-01-06T12:30", 20, 0)
    table("finer-grid.csv", "2025-01-06T12:30", 20, 2)
    table("corrected.csv", "2025-01-06T12:00", 20, 0)
    by_sensor = readings.reset_index().melt("time", var_name="sensor", value_name="speed")
    by_sensor.to_csv(root / "by-sensor.csv", index=False)
    (root / "graph.csv").write_text("from,to,weight\na,b,1\nb,c,0.5\nc,d,2\n")
    (root / "linear.toml").write_text(CONFIG)
    (root / "space.toml").write_text(SPACE)
    (root / "old.html").write_text("an older report")
    for tokens in (
        ("ingest", "readings.csv", "--graph", "graph.csv", "--out", "store"),
        ("train", "store", "--run", "run", "--epochs", "1", *TINY),
    ):
        ended = walker.run(tokens, lists_modules=True)
        assert ended.code == 0, ended.err
        walker.import_all(ended.modules)


_VARIES = re.compile("seconds|started|ended|time|date|per_second|memory|machine|environment|bytes")


def _same_json(value: Any) -> Any:
    """Without what no two runs have in common."""
    if isinstance(value, dict):
        return {name: _same_json(each) for name, each in value.items() if not _VARIES.search(name)}
    return [*map(_same_json, value)] if isinstance(value, list) else value


def _same_state(value: Any) -> Any:
    """A checkpoint's content, its tensors by their numbers, without its times."""
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {
            str(name): _same_state(each)
            for name, each in value.items()
            if not _VARIES.search(str(name))
        }
    return [*map(_same_state, value)] if isinstance(value, list | tuple) else value


_OF_THIS_RUN = ("study.db", "log.txt", "output.txt", "search/report.html", "table.md")
_OF_LIBRARIES = re.compile(r"tmp/\.ses|tmp/torchinductor|cache/.*/tmp\w{8}$")  # ONNX, torch, pooch


def _content(path: Path) -> bytes:
    try:
        return _described(path)
    except (ValueError, RuntimeError):  # damaged
        return path.read_bytes()


def _described(path: Path) -> bytes:
    content = path.read_bytes()
    if str(path).endswith(_OF_THIS_RUN):
        return b""
    if path.suffix == ".pt":
        return json.dumps(_same_state(torch.load(path, weights_only=True))).encode()
    if path.suffix == ".npy":
        return content[128:]  # how many rows the header says, is nobody's concern
    if path.suffix == ".json":
        return json.dumps(_same_json(json.loads(content))).encode()
    if path.suffix == ".jsonl":
        return json.dumps([_same_json(json.loads(line)) for line in content.splitlines()]).encode()
    return content


def state_of(root: Path) -> State:
    """The files below a directory; empty directories as well."""
    return {
        str(path.relative_to(root)): "" if path.is_dir()
        else hashlib.sha256(_content(path)).hexdigest()[:12]
        for path in sorted(root.rglob("*"))
        if not _OF_LIBRARIES.match(str(path.relative_to(root)))
    }  # fmt: skip
