"""What to put in the place of missing inputs: errors of models that were trained with each rule.

    python benchmarks/missing_inputs.py gaps --data DATA --work build/missing --out missing.json
    python benchmarks/missing_inputs.py beijing --data DATA --work build/missing --out missing.json
    python benchmarks/missing_inputs.py late --data DATA --work build/missing --out missing.json
    python benchmarks/missing_inputs.py table --out missing.json

`gaps` removes 8 % of a month of speeds on Interstate 5, a quarter each in gaps of 1, 6, 36 and 288
steps (5 minutes, half an hour, 3 hours, a day) of random sensors, and trains on the rest. `beijing`
forecasts PM2.5 from 11 channels of air quality and weather that really have gaps. `late` trains on
the month without gaps, and removes the newest row of each test window, or the newest half hour: of
all sensors, or of a random fifth. Errors are those of observed test targets. A result that the
output has already is skipped. `table` prints the errors, means over the seeds.

Rules: mean (0 in standardised inputs), last (the sensor's last reading in the window, else its
typical one), typical (always its typical one), shifted (typical, and as far from it as the last
reading was), fading (pgti's: the same, but that distance shrinks by a tenth at each step).

DATA holds pems_i5nb_oct2025.npz and beijing_prsa.npz.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import pgti
from pgti.batching import Batch, filling
from pgti.batching.filling import fill_missing
from pgti.run.run import Run
from pgti.store import TypicalReadings

SHARE = 0.08
GAPS = (1, 6, 36, 288)
EPOCHS, STRIDE, BATCH = 6, 6, 32
MODELS = ("stid", "gru")
SEEDS = (0, 1)

Rule = Callable[[Tensor, Tensor, Tensor, Tensor], None]


def fill_mean(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """Leave 0."""


def fill_last(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """The last reading, else the typical one."""
    known = torch.zeros_like(mask[:, 0])
    for step in range(x.shape[1]):
        filled = torch.where(known, x[:, max(0, step - 1)], typical[bins[:, step]])
        x[:, step].copy_(torch.where(mask[:, step], x[:, step], filled))
        known = known | mask[:, step]


def fill_typical(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """The typical reading, whatever was read last."""
    x.copy_(torch.where(mask, x, typical[bins]))


def fill_shifted(x: Tensor, mask: Tensor, typical: Tensor, bins: Tensor) -> None:
    """The typical reading, plus how far the last one was from its own."""
    with patch.object(filling, "_FADING", 1.0):
        fill_missing(x, mask, typical, bins)


RULES: dict[str, Rule] = {
    "mean": fill_mean,
    "last": fill_last,
    "typical": fill_typical,
    "shifted": fill_shifted,
    "fading": fill_missing,
}


def remove_gaps(values: NDArray[np.float32], seed: int = 0) -> None:
    """Write NaN over random gaps of [T, N] readings, until each length has its part of SHARE."""
    generator, removed = np.random.default_rng(seed), np.zeros(values.shape, dtype=np.bool_)
    for number, length in enumerate(GAPS, start=1):
        while removed.mean() < SHARE * number / len(GAPS):
            sensors = generator.integers(values.shape[1], size=64 // min(64, length) + 1)
            starts = generator.integers(-length + 1, len(values), size=len(sensors))
            for sensor, start in zip(sensors, starts, strict=True):
                removed[max(0, start) : start + length, sensor] = True
    values[removed] = np.nan


def store_of(study: str, data: Path, work: Path) -> Path:
    """The store of a study, ingested once."""
    path = work / f"{study}-store"
    if path.exists():
        return path
    if study == "beijing":
        with np.load(data / "beijing_prsa.npz", allow_pickle=False) as archive:
            codes, scale = archive["x_scaled"], archive["scale"]
            channels, ids = archive["features"].tolist(), archive["station"].tolist()
        values = np.where(codes == np.iinfo(np.int16).min, np.nan, codes / scale)
        start, interval = "2013-03-01T00:00", "1h"
    else:
        with np.load(data / "pems_i5nb_oct2025.npz", allow_pickle=False) as archive:
            values = archive["speed_x10"].astype(np.float32) / 10
            channels, ids = ["speed"], archive["station"].astype(str).tolist()
        if study == "gaps":
            remove_gaps(values)
        values, start, interval = values[..., None], "2025-10-01T00:00", "5min"
    pgti.ingest(
        values,
        path,
        channels=tuple(channels),
        node_ids=tuple(ids),
        start=start,
        interval=interval,
    )
    return path


def windows_of(study: str, **options: Any) -> dict[str, Any]:
    """Options of the windows of a study."""
    targets = ("PM2.5",) if study == "beijing" else ()
    return {"stride": STRIDE, "targets": targets, **options}


def train(
    study: str, args: argparse.Namespace, model: str, seed: int, name: str, **windows: Any
) -> Run:
    """Train on a study's store, or open the run that did."""
    path = args.work / f"{study}-{model}-{seed}-{name}"
    store = store_of(study, args.data, args.work)
    return pgti.train(
        store,
        path,
        model=model,
        windows=windows_of(study, **windows),
        epochs=EPOCHS,
        batch_size=BATCH,
        learning_rate=0.002,
        val_windows=200,
        seed=seed,
        progress=False,
        resume=path.exists(),
    )


def study_rules(study: str, args: argparse.Namespace) -> None:
    """Train and test with each rule, with and without the mask as inputs."""
    for seed in SEEDS[: args.seeds]:
        for model in MODELS:
            for rule, masked in [
                *((each, False) for each in RULES),
                ("last", True),
                ("mean", True),
            ]:
                name = rule + "+mask" * masked
                key = f"{study}/{model}/{seed}/{name}"
                if key in args.results:
                    continue
                began = time.perf_counter()
                fill = "mean" if rule == "mean" else "last"
                with patch.object(filling, "fill_missing", RULES[rule]):
                    run = train(study, args, model, seed, name, fill=fill, observed_mask=masked)
                    report = run.evaluate("test")
                record(args, key, report, began)


class _Late:
    """A forecaster's `forward` without the newest row of some sensors.

    Args:
        run: whose forecaster it is, on a series without gaps of one channel.
        share: of the sensors whose newest rows are late; drawn anew for each window.
        num_late: rows that are late.
        rule: what stands for their readings.
    """

    def __init__(self, run: Run, share: float, num_late: int, rule: Rule) -> None:
        self._forward, self._axis = run.forecaster.forward, run.store.time_axis
        self._share, self._num_late, self._rule = share, num_late, rule
        rows, scaler = run.splits.train_rows(run.source.spec), run.source.scaler
        self._typical = TypicalReadings.fit(run.store, rows)
        scaled = (self._typical.table - np.float32(scaler.mean)) / np.float32(scaler.std)
        self._table = torch.from_numpy(scaled)

    def __call__(self, batch: Batch, *, step: int | None = None) -> Tensor:
        generator = np.random.default_rng(int(batch.starts[0]))
        late = generator.random((len(batch.starts), batch.x.shape[2])) < self._share
        mask, x = batch.x_mask.clone(), batch.x.clone()
        mask[:, -self._num_late :, :, 0] = torch.from_numpy(~late)[:, None]
        x[..., 0] *= mask[..., 0]
        past = batch.starts[:, None] + np.arange(x.shape[1])
        bins = torch.from_numpy(self._typical.bins(self._axis, past))
        self._rule(x[..., :1], mask, self._table, bins)
        return self._forward(replace(batch, x=x, x_mask=mask), step=step)


def study_late(args: argparse.Namespace) -> None:
    """Train without gaps, then test without the newest row."""
    cases = [("complete", 0.0, 1, "mean")]
    for name, num_late in (("newest row", 1), ("newest half hour", 6)):
        for share in (0.2, 1.0):
            cases += [(f"{name} of {share:.0%}", share, num_late, rule) for rule in RULES]
    for seed in SEEDS[: args.seeds]:
        for model in MODELS:
            run = train("late", args, model, seed, "complete")
            for name, share, num_late, rule in cases:
                key = f"{name}/{model}/{seed}/{rule}"
                if key in args.results:
                    continue
                began = time.perf_counter()
                with patch.object(
                    run.forecaster, "forward", _Late(run, share, num_late, RULES[rule])
                ):
                    report = run.evaluate("test")
                record(args, key, report, began)


def record(args: argparse.Namespace, key: str, report: Any, began: float) -> None:
    """Add a result to the output."""
    summary = report.to_dict()
    args.results[key] = summary | {"seconds": round(time.perf_counter() - began, 1)}
    args.out.write_text(json.dumps(args.results, indent=1))
    print(key, args.results[key]["seconds"], flush=True)


def print_table(results: dict[str, Any]) -> None:
    """MAE and RMSE over all steps of each study and model, a row each, a column for each rule."""
    errors: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for key, result in results.items():
        study, model, _, rule = key.split("/")
        test = result["test"]
        found = errors.setdefault((study, model), {}).setdefault(rule, [])
        found.append((test["mae"]["mean"], test["rmse"]["mean"]))
    rules = list(dict.fromkeys(rule for each in errors.values() for rule in each))
    print("| | model | seeds |", " | ".join(rules), "|")
    print("|---|---|---|" + "---|" * len(rules))
    for (study, model), each in errors.items():
        cells = [
            " / ".join(f"{value:.3f}" for value in np.mean(each[rule], axis=0))
            if rule in each
            else ""
            for rule in rules
        ]
        print(f"| {study} | {model} | {max(map(len, each.values()))} |", " | ".join(cells), "|")


def main() -> None:
    """Run one study, or print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("study", choices=("gaps", "beijing", "late", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=2)
    args = parser.parse_args()
    args.results = json.loads(args.out.read_text()) if args.out.exists() else {}
    if args.study == "table":
        print_table(args.results)
    elif args.study == "late":
        study_late(args)
    else:
        study_rules(args.study, args)


if __name__ == "__main__":
    main()
