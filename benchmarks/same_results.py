"""Whether two versions of pgti give the same results, to the bit.

    python benchmarks/same_results.py record --python OLD/.venv/bin/python \\
        --data DATA --work build/old --out old.json
    python benchmarks/same_results.py record --python NEW/.venv/bin/python \\
        --data DATA --work build/new --out new.json
    python benchmarks/same_results.py compare old.json new.json

`record` ingests three real data sets, trains small models on them for 30 steps (in one process, on
two ranks, stopped and resumed), evaluates them and forecasts, all through the command line of the
given interpreter's pgti, and writes {case: {part: digest}}. A case that the output has already is
skipped, unless --fresh is given. `compare` tells which cases differ in which parts, and exits with
1 if any does. Digests compare on one machine only, with the same torch.

DATA holds raw/chickenpox.json, raw/metr-la-week and pems_i5nb_oct2025.npz.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

TRAINING = "--batch-size 16 --val-windows 16 --test-windows 16"
STEPS = 30
STOP = 15  # where a run that is resumed stops first
TIMEOUT = 600  # seconds for one command
TOLD = 6  # parts that are named where a case differs

# How a data set is ingested, the windows that are made of it and those forecast.
DATA = {
    "chickenpox": (
        "{data}/raw/chickenpox.json --start 2005-01-03T00:00 --interval 7d",
        "--windows.input-steps 4 --windows.horizon 4",
        "--split test",
    ),
    "metr-la": (
        "{data}/raw/metr-la-week/los_speed.csv --graph {data}/raw/metr-la-week/adj_mx.pkl "
        "--channels speed --start 2012-03-01T00:00 --interval 5min",
        "--windows.input-steps 12 --windows.horizon 12",
        "--from 2012-03-07T20:00 --to 2012-03-07T21:00",
    ),
    "i5": (
        "{data}/pems_i5nb_oct2025.npz --values speed_x10 --scale 0.1 --channels speed "
        "--edges edge_src,edge_dst,edge_miles --start 2025-10-01T00:00 --interval 5min",
        "--windows.input-steps 6 --windows.horizon 3 --windows.climatology",
        "--from 2025-10-31T20:00 --to 2025-10-31T21:00",
    ),
}

MODELS = {
    "dcrnn": "--model.hidden 16",
    "stid": "",
    "graph-wavenet": "--model.hidden 8 --model.skip-channels 16 --model.end-channels 32",
    "a3tgcn": "--model.hidden 16",
    "pgt:TGCN2": "--model.hidden 16",
}
OTHER_MODELS = {  # on the smallest data set, in one process
    "agcrn": "--model.hidden 16",
    "gru": "--model.hidden 16",
    "linear": "",
    "mtgnn": "--model.hidden 8 --model.neighbours 5",
    "pgt-dcrnn": "--model.hidden 16",
    "staeformer": "",
    "stgcn": "--model.hidden 16 --model.bottleneck 8",
    "st-llm": "--model.embedding 16 --model.width 32 --model.heads 2 --model.gpt-layers 2",
    "tgcn": "--model.hidden 16",
    "pgt:DCRNN": "--model.hidden 16",
    "pgt:A3TGCN2": "--model.hidden 16",
}

# Data, model, variant, options. The ranks of a variant that begins with "two" are two; one that
# ends with "resumed" stops half-way first.
CASES = [
    *((data, model, "one", "") for data in DATA for model in MODELS),
    *((data, model, "resumed", "") for data in DATA for model in ("dcrnn", "graph-wavenet")),
    *(("chickenpox", model, "one", "") for model in OTHER_MODELS),
    ("metr-la", "stid", "accumulated", "--accumulate 2"),
    ("metr-la", "dcrnn", "batching-standard", "--batching standard"),
    ("metr-la", "dcrnn", "batching-device", "--batching device"),
    ("metr-la", "stid", "strided", "--windows.stride 3 --windows.gap 23"),
    ("metr-la", "dcrnn", "scheduled-sampling", "--model.scheduled-sampling true"),
    ("metr-la", "stid", "bfloat16", "--precision bfloat16"),
    ("metr-la", "graph-wavenet", "seed-1", "--seed 1"),
    *((data, model, "two-replicated", "") for data in DATA for model in MODELS),
    *(
        (data, model, "two-partitioned", "--placement partitioned")
        for data in DATA
        for model in MODELS
        # A rank has no window of an epoch's last step here, and pgti has refused to go on: the
        # gradients of the skip biases were one tensor on the other rank, and were scaled as often.
        if (data, model) != ("chickenpox", "graph-wavenet")
    ),
    ("metr-la", "graph-wavenet", "two-replicated-resumed", ""),
    ("metr-la", "stid", "two-partitioned-resumed", "--placement partitioned"),
]

Digests = dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Recorder:
    """Runs one version of pgti in one directory."""

    python: Path
    data: Path
    work: Path

    def ingest(self, data: str) -> Digests:
        """Make the store of a data set anew."""
        store = self._emptied("stores", data)
        self._pgti("ingest", *DATA[data][0].format(data=self.data).split(), "--out", store)
        arrays = {name: np.load(store / f"{name}.npy") for name in ("series", "moments")}
        found = {name: digest({name: array}) for name, array in arrays.items()}
        return found | archive_digests("graph", store / "graph.npz")

    def train(self, data: str, model: str, variant: str, options: str) -> Digests:
        """Train; in the main variant, evaluate and forecast with what was trained."""
        _, windows, forecast = DATA[data]
        run = self._emptied("runs", f"{data}-{model}-{variant}")
        tokens: list[str | Path] = ["train", self.work / "stores" / data, "--run-dir", run]
        sizes = (MODELS | OTHER_MODELS)[model]
        tokens += f"--model {model} {sizes} {windows} {TRAINING} {options}".split()
        ranks = ranks_of(variant)
        if variant.endswith("resumed"):
            self._pgti(*tokens, "--max-steps", str(STOP), ranks=ranks)
            tokens.append("--resume")
        self._pgti(*tokens, "--max-steps", str(STEPS), ranks=ranks)
        found = run_digests(run)
        if variant == "one" and model in MODELS:
            said = self._pgti("evaluate", run, "--windows", "16", "--json")
            found |= error_digests("evaluate", json.loads(said.splitlines()[-1]))
            for name, choice in (("forecast", forecast), ("future", "")):
                self._pgti("predict", run, "--out", run / f"{name}.npz", *choice.split())
                found |= archive_digests(name, run / f"{name}.npz")
        return found

    def _emptied(self, *names: str) -> Path:
        """A path of which nothing is left; its parent is there."""
        path = self.work.joinpath(*(re.sub(r"[^\w-]", "-", name) for name in names))
        shutil.rmtree(path, ignore_errors=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _pgti(self, *tokens: str | Path, ranks: int = 1) -> str:
        """What a command says on standard output."""
        launch = f"-m torch.distributed.run --standalone --nproc-per-node {ranks}".split()
        command = [self.python, *(launch if ranks > 1 else []), "-m", "pgti", *tokens]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        environment.pop("PYTHONPATH", None)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        place = {"env": environment, "cwd": self.work}
        return subprocess.run(command, check=True, timeout=TIMEOUT, **pipes, **place).stdout


def ranks_of(variant: str) -> int:
    """How many ranks train."""
    return 2 if variant.startswith("two") else 1


def run_digests(run: Path) -> Digests:
    """Digests of what a training leaves: checkpoints, losses, errors on the test windows."""
    found = {}
    for name in ("best", "last"):
        content = torch.load(run / "checkpoints" / f"{name}.pt", weights_only=True)
        found[f"{name}.network"] = digest({n: t.numpy() for n, t in content["network"].items()})
        found[f"{name}.optimizer"] = digest(tensors(content["optimizer"]))
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    kept = [[line.get(key) for key in ("step", "loss", "train_loss", "val")] for line in lines]
    found["losses"] = text_digest(kept)
    return found | error_digests("test", json.loads((run / "test.json").read_text()))


def error_digests(prefix: str, content: dict[str, Any]) -> Digests:
    """Digests of the errors of each forecaster."""
    errors = {name: value for name, value in content.items() if isinstance(value, dict)}
    return {f"{prefix}.{name}": text_digest(value) for name, value in errors.items()}


def archive_digests(prefix: str, path: Path) -> Digests:
    """Digests of the arrays of an npz file."""
    with np.load(path, allow_pickle=False) as archive:
        return {f"{prefix}.{name}": digest({name: archive[name]}) for name in archive.files}


def tensors(content: object, path: str = "") -> dict[str, np.ndarray]:
    """The tensors of nested dicts and lists, named by their way there."""
    if isinstance(content, torch.Tensor):
        return {path: content.numpy()}
    pairs = enumerate(content) if isinstance(content, list) else ()
    pairs = content.items() if isinstance(content, dict) else pairs
    return {k: v for name, value in pairs for k, v in tensors(value, f"{path}.{name}").items()}


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A digest of names, types, shapes and bytes."""
    total = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        total.update(f"{name} {array.dtype} {array.shape}\n".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def text_digest(content: object) -> str:
    """A digest of plain values; floats count with all their digits."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def is_chosen(name: str, only: list[str]) -> bool:
    """Whether a case is asked for."""
    return not only or any(part in name for part in only)


def record(given: argparse.Namespace) -> bool:
    """Record what is missing; whether all of it succeeded."""
    work = given.work.resolve()
    recorder = Recorder(python=given.python.absolute(), data=given.data.resolve(), work=work)
    work.mkdir(parents=True, exist_ok=True)
    known = json.loads(given.out.read_text()) if given.out.exists() else {}
    began, failed = time.perf_counter(), 0

    def is_missing(name: str) -> bool:
        return is_chosen(name, given.only) and (given.fresh or name not in known)

    def keep(name: str, found: Digests) -> None:
        known[name] = found
        partial = given.out.with_suffix(".partial")
        partial.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
        partial.replace(given.out)
        print(f"{time.perf_counter() - began:6.1f} s  {name}", flush=True)

    missing = {name: case for case in CASES if is_missing(name := "/".join(case[:3]))}
    needed = {data for data, *_ in missing.values()}
    for data in DATA:
        if data in needed or is_missing(f"{data}/store"):
            keep(f"{data}/store", recorder.ingest(data))
    for ranks in (1, 2):
        of_ranks = {name: case for name, case in missing.items() if ranks_of(case[2]) == ranks}
        with ThreadPoolExecutor(max(1, given.jobs // ranks)) as pool:
            futures = {pool.submit(recorder.train, *case): name for name, case in of_ranks.items()}
            for future in as_completed(futures):
                try:
                    keep(futures[future], future.result())
                except (subprocess.SubprocessError, OSError, LookupError) as error:
                    failed += 1
                    told = f"{error}\n{getattr(error, 'stderr', None) or ''}"[:3000]
                    print(f"failed: {futures[future]}: {told}", file=sys.stderr, flush=True)
    print(f"{len(missing)} trainings in {time.perf_counter() - began:.0f} s, {failed} failed")
    return failed == 0


def compare(given: argparse.Namespace) -> bool:
    """Print which cases are equal; whether all of them are."""
    first, second = (json.loads(path.read_text()) for path in (given.first, given.second))
    names = [name for name in sorted(first | second) if is_chosen(name, given.only)]
    width, equal = max(map(len, names), default=0), 0
    for name in names:
        a, b = first.get(name), second.get(name)
        if a is None or b is None:
            verdict = f"only in {given.second if a is None else given.first}"
        else:
            parts = [part for part in sorted(a | b) if a.get(part) != b.get(part)]
            told = [part if part in a and part in b else f"{part} (in one only)" for part in parts]
            more = f" and {len(told) - TOLD} more" if len(told) > TOLD else ""
            verdict = f"different: {', '.join(told[:TOLD])}{more}" if told else "equal"
        equal += verdict == "equal"
        print(f"{name:{width}}  {verdict}")
    print(f"{equal} of {len(names)} cases are equal")
    return 0 < equal == len(names)


def main() -> None:
    """Record or compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="run everything and write the digests")
    recording.set_defaults(action=record)
    for name, meaning in (
        ("python", "interpreter of the pgti to run"),
        ("data", "directory of the data sets"),
        ("work", "directory for stores and runs"),
        ("out", "file of the digests"),
    ):
        recording.add_argument(f"--{name}", type=Path, required=True, help=meaning)
    recording.add_argument("--jobs", type=int, default=2, help="processes at a time")
    recording.add_argument("--fresh", action="store_true", help="record known cases again")
    comparing = commands.add_parser("compare", help="tell two files of digests apart")
    comparing.set_defaults(action=compare)
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    for command in (recording, comparing):
        command.add_argument("--only", nargs="+", default=[], metavar="SUBSTRING")
    given = parser.parse_args()
    sys.exit(0 if given.action(given) else 1)


if __name__ == "__main__":
    main()
