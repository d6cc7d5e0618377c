"""What a test's process of Ray does: it trains twice, the second time with a worker that dies."""

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import pgti
from pgti.interop.ray import train_on_ray

OPTIONS: dict[str, Any] = {
    "model_options": {"hidden": 4, "layers": 1},
    "epochs": 2,
    "batch_size": 10,
    "seed": 3,
    "checkpoint_every_steps": 3,
}


def windows() -> pgti.WindowConfig:
    return pgti.WindowConfig(input_steps=3, horizon=2)


def main(storage: Path, store: Path, run: Path, failing_run: Path) -> None:
    """See above."""
    import ray  # noqa: PLC0415 - an extra
    from ray import tune  # noqa: PLC0415 - an extra

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100 << 20)
    shared: dict[str, Any] = {"num_workers": 2, "storage_path": storage, "windows": windows()}
    trained = train_on_ray(store, run, **shared, **OPTIONS)
    evaluated = trained.evaluate().mae
    (storage / "mae").write_text(f"{evaluated}")
    with pytest.raises(pgti.ConfigError, match="partitions is 1 and there are 2 ranks"):
        train_on_ray(
            store,
            storage / "no run",
            placement="partitioned",
            order={"kind": "partitions", "partitions": 1},
            **shared,
        )

    marker = storage / "has failed"

    def failing_once(shape: pgti.ModelShape) -> torch.nn.Module:
        network = pgti.DCRNN(pgti.DCRNNConfig(**OPTIONS["model_options"]), shape)

        def fail(module: object, inputs: object) -> None:
            del module, inputs
            last = failing_run / "checkpoints/last.pt"
            if os.environ.get("RANK") == "1" and last.exists() and not marker.exists():
                marker.touch()
                os._exit(1)

        network.register_forward_pre_hook(fail)
        return network

    options = {**OPTIONS, "model": failing_once}
    del options["model_options"]
    elastic = {**shared, "num_workers": (1, 2)}
    train_on_ray(store, failing_run, max_failures=1, **elastic, **options)
    assert marker.exists()

    def trial(config: dict[str, Any]) -> None:
        one = {**shared, "num_workers": 1}
        train_on_ray(store, storage / "trial", **one, **{**OPTIONS, **config})

    tuned = tune.Tuner(
        tune.with_resources(trial, {"CPU": 0.01}),
        param_space={"seed": 5},
        run_config=tune.RunConfig(storage_path=str(storage)),
    ).fit()
    history = pgti.Run.open(storage / "trial", device="cpu").history
    metrics = tuned[0].metrics
    assert metrics is not None
    assert metrics["mae"] == history["val_mae"].iloc[-1]
    assert metrics["training_iteration"] == 2


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
