"""What known weather is worth: PM2.5 of Beijing 24 hours ahead, with covariates and without.

    python benchmarks/covariates.py run --data DATA --work build/covariates
    python benchmarks/covariates.py table --work build/covariates

Twelve stations, 35,064 hours, eleven channels; temperature, pressure, dew point, rain and wind are
marked as known in advance. They are what was observed: the weather of a perfect forecast, which no
operator has. Every model sees the past of all eleven channels, with covariates and without.
Training, validation and test are 70, 10 and 20 % of the hours. A result that is there is skipped.

DATA holds beijing_prsa.npz.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

import pgti

KNOWN = ("TEMP", "PRES", "DEWP", "RAIN", "WSPM")
WINDOWS: dict[str, Any] = {"input_steps": 24, "horizon": 24, "stride": 6, "targets": ("PM2.5",)}
TRAINING: dict[str, Any] = {"epochs": 24, "batch_size": 32, "learning_rate": 0.002}
MODELS: dict[str, dict[str, Any]] = {
    "linear": {},
    "stid": {},
    "gru": {"hidden": 32, "layers": 1},
    "dcrnn": {"hidden": 16, "layers": 1},
}
BASELINES = ("persistence", "historical-average", "seasonal-naive", "ridge", "lightgbm")
SEEDS = (0, 1, 2)
STEPS = (1, 6, 12, 24)


def make_store(data: Path, path: Path) -> Path:
    """The store, ingested once; sensors have edges to their four nearest."""
    if path.exists():
        return path
    with np.load(data / "beijing_prsa.npz", allow_pickle=False) as archive:
        codes, scale, ids = archive["x_scaled"], archive["scale"], archive["station"].tolist()
        channels = tuple(archive["features"].tolist())
        places = np.stack([archive["lat_approx"], archive["lon_approx"]], axis=1)
    values = np.where(codes == np.iinfo(np.int16).min, np.nan, codes / scale)
    table = path.with_suffix(".csv")
    rows = [f"{name},{lat},{lon}" for name, (lat, lon) in zip(ids, places, strict=True)]
    table.write_text("\n".join(["sensor_id,latitude,longitude", *rows]) + "\n")
    pgti.ingest(
        values,
        path,
        channels=channels,
        node_ids=tuple(ids),
        start="2013-03-01T00:00",
        interval="1h",
        known_future=KNOWN,
        graph=table,
        neighbours=4,
    )
    return path


def run_all(data: Path, work: Path, seeds: int) -> None:
    """Train and test every model, without covariates and with them."""
    work.mkdir(parents=True, exist_ok=True)
    store = make_store(data, work / "store")
    for seed in SEEDS[:seeds]:
        for model, options in MODELS.items():
            for covariates in (False, True):
                result = work / f"{model}-{'with' if covariates else 'without'}-{seed}.json"
                if result.exists():
                    continue
                began = time.perf_counter()
                run = pgti.train(
                    store,
                    work / result.stem,
                    model=model,
                    model_options=options,
                    windows={**WINDOWS, "covariates": covariates},
                    schedule="cosine",
                    seed=seed,
                    device="cpu",
                    overwrite=True,
                    progress=False,
                    **TRAINING,
                )
                test = run.evaluate("test").to_dict()
                test["seconds"] = round(time.perf_counter() - began)
                test["best_epoch"] = int(run.history["epoch"][run.history["val_mae"].argmin()])
                result.write_text(json.dumps(test, indent=1))
                print(result.stem, test["test"]["mae"]["mean"], test["seconds"], flush=True)
    baselines = work / "baselines.json"
    if not baselines.exists():
        run = pgti.Run.open(work / f"{next(iter(MODELS))}-without-0")
        baselines.write_text(json.dumps(run.evaluate("test", baselines=BASELINES).to_dict()))


def numbers(errors: dict[str, Any]) -> list[float]:
    """MAE at the steps of the table, and MAE and RMSE over all of them."""
    mae = [errors["mae"][str(step)] for step in STEPS]
    return [*mae, errors["mae"]["mean"], errors["rmse"]["mean"]]


def print_table(work: Path) -> None:
    """Means over seeds, with half the range of several, and the best epoch of each seed."""
    heads = [f"MAE {step} h" for step in STEPS] + ["MAE, all steps", "RMSE, all steps"]
    print("| model | covariates | best epochs | seconds |", " | ".join(heads), "|")
    print("|---|---|---|---|" + "---|" * len(heads))
    for model in MODELS:
        for how in ("without", "with"):
            paths = [work / f"{model}-{how}-{seed}.json" for seed in SEEDS]
            results = [json.loads(path.read_text()) for path in paths if path.exists()]
            if not results:
                continue
            rows = [numbers(each["test"]) for each in results]
            epochs = ", ".join(str(each["best_epoch"]) for each in results)
            seconds = round(np.mean([each["seconds"] for each in results]))
            halves = np.ptp(rows, axis=0) / 2
            cells = [
                f"{mean:.2f} ± {half:.2f}" if len(rows) > 1 else f"{mean:.2f}"
                for mean, half in zip(np.mean(rows, axis=0), halves, strict=True)
            ]
            print(f"| {model} | {how} | {epochs} | {seconds} |", " | ".join(cells), "|")
    errors = json.loads((work / "baselines.json").read_text())["test"]
    for name in BASELINES:
        row = numbers(errors[name])
        print(f"| {name} | - | - | - |", " | ".join(f"{value:.2f}" for value in row), "|")


def main() -> None:
    """Run, or print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("run", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=len(SEEDS))
    args = parser.parse_args()
    if args.what == "table":
        print_table(args.work)
    else:
        run_all(args.data, args.work, args.seeds)


if __name__ == "__main__":
    main()
