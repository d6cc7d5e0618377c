"""Training on a Ray cluster: Ray Train starts the workers, which train as the ranks of a job."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pgti.distributed import TIMEOUT_SECONDS, init_communicator
from pgti.errors import ConfigError, MissingExtraError, PeerError, PgtiError, RunError
from pgti.run import Run
from pgti.run.train import train
from pgti.training import Callback, RunDirectory, TrainingStatus

__all__ = ["train_on_ray"]


def train_on_ray(
    store: str | Path,
    run: str | Path,
    *,
    num_workers: int | tuple[int, int],
    use_gpu: bool = False,
    resources_per_worker: Mapping[str, float] | None = None,
    max_failures: int = 0,
    storage_path: str | Path | None = None,
    **options: Any,
) -> Run:
    """Train on the workers of a Ray cluster, as `pgti.train` does on the ranks of a job.

    The caller's machine and those of the workers all see the store and the run under the same
    paths, and have pgti installed. Ray is initialised if it is not.

    Each validation is reported to Ray (`ray.train.report`): its errors by name, such as "mae",
    "epoch", "step", "best_mae", and the paths of the run and of the "checkpoint" with the best
    weights. In a trial of Ray Tune, Tune receives them.

    Args:
        store: the store.
        run: directory to create, or with `resume=True` to continue in.
        num_workers: how many ranks train; or the least and the most of them (a recent Ray):
            Ray starts as many as the cluster has room for, and starts all anew when that changes.
        use_gpu: whether each of them takes a GPU; they train on CPUs otherwise.
        resources_per_worker: what each of them takes of its machine, such as {"CPU": 4}; Ray's
            default if not given, which is one core or one GPU.
        max_failures: how often Ray starts all workers anew after one of them has failed; -1 for
            always. They go on from the last checkpoint.
        storage_path: where Ray keeps its own records of the training, not the run; its default if
            not given.
        **options: those of `pgti.train`, but for `device` and `communicator`.

    Returns:
        The run, with its best parameters, in the caller's process.

    Raises:
        MissingExtraError: if Ray is not installed.
        ConfigError: if `num_workers` is neither a number nor two of them.
        RunError: if there is a run already and `resume` is not given, or a worker died.
        PgtiError: as `pgti.train` raises it on a worker.
    """
    try:
        from ray.train import (  # noqa: PLC0415 - an extra
            FailureConfig,
            RunConfig,
            ScalingConfig,
            TrainingFailedError,
        )
        from ray.train.torch import TorchConfig, TorchTrainer  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("ray", "ray") from None
    _check_workers(num_workers)
    store, run = Path(store).absolute(), Path(run).absolute()
    # The workers resume unasked, because Ray may have started them anew; so it is refused here.
    if RunDirectory.exists(run) and not options.pop("resume", False):
        raise RunError(f"{run} holds a run already: give resume=True or another directory")
    options.pop("resume", None)
    device = "cuda" if use_gpu else "cpu"
    workers: dict[str, Any] = {
        "num_workers": num_workers,
        "use_gpu": use_gpu,
        "resources_per_worker": dict(resources_per_worker) if resources_per_worker else None,
    }
    trainer = TorchTrainer(
        _train_as_worker,
        train_loop_config={"store": store, "run": run, "device": device, "options": options},
        # Counts and texts are on the host also where gradients are on GPUs.
        torch_config=TorchConfig(
            backend="cpu:gloo,cuda:nccl" if use_gpu else "gloo", timeout_s=int(TIMEOUT_SECONDS)
        ),
        scaling_config=ScalingConfig(**workers),
        run_config=RunConfig(
            storage_path=None if storage_path is None else str(Path(storage_path).absolute()),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=_tune_callbacks(),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _reason(error) from error
    model = options.get("model")
    return Run.open(
        run,
        store=store,
        model=None if isinstance(model, str) else model,
        device="auto" if use_gpu else None,  # the caller's machine may have no GPU
    )


def _train_as_worker(config: dict[str, Any]) -> None:
    """One rank: Ray has set the variables of a job and initialised torch's process group."""
    options = config["options"]
    with init_communicator() as communicator:
        train(
            config["store"],
            config["run"],
            device=config["device"],
            resume=True,
            communicator=communicator,
            **{**options, "callbacks": [*options.get("callbacks", ()), _Report()]},
        )


class _Report(Callback):
    """Reports each validation to Ray, which every rank has to do."""

    def on_validation(self, status: TrainingStatus, errors: Mapping[str, float | None]) -> None:
        from ray.train import report  # noqa: PLC0415 - an extra

        report(
            {
                **{name: error for name, error in errors.items() if error is not None},
                "epoch": status.epoch,
                "step": status.step,
                "best_mae": status.best_val_mae,
                "run": str(status.directory),
                "checkpoint": str(RunDirectory(status.directory).best_checkpoint),
            }
        )


def _tune_callbacks() -> list[Any]:
    """What passes reports on to Ray Tune, in one of its trials."""
    try:
        from ray.tune.integration import ray_train  # noqa: PLC0415 - an extra

        make: Any = ray_train.TuneReportCallback
        return [make()]
    except (ImportError, RuntimeError):  # RuntimeError: this is not a trial
        return []


def _check_workers(num_workers: int | tuple[int, int]) -> None:
    """Refuse anything but a number of workers, or the least and the most of them."""
    bounds = num_workers if isinstance(num_workers, tuple) else (num_workers,)
    is_whole = all(type(each) is int for each in bounds) and len(bounds) in (1, 2)
    if not is_whole or not 1 <= bounds[0] <= bounds[-1]:
        raise ConfigError(
            f"num_workers is {num_workers!r}: it must be a whole number of at least 1, or two of "
            "them, the least and the most, as (2, 8)"
        )


def _reason(error: Exception) -> PgtiError:
    """What a worker refused, or else the last line of Ray's account."""
    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, PgtiError) and not isinstance(failure, PeerError):
            return failure
    lines = str(error).split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), type(error).__name__)
    return RunError(f"training on Ray failed: {last}")
