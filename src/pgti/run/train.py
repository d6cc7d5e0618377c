"""Training from end to end: check everything, then make the run's directory, then train."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pgti.batching import BatchLoader, choose_batching, make_batcher
from pgti.errors import ConfigError
from pgti.run.build import (
    CUSTOM_MODEL,
    NUM_SLOTS,
    ModelFactory,
    build_forecaster,
    resolve_device,
    resolved_model,
    window_source,
)
from pgti.run.config import ModelConfig, RunConfig, WindowConfig
from pgti.run.run import Run, opened_store
from pgti.series import Scaler, SeriesStore
from pgti.training import (
    AbstractObserver,
    FitResult,
    RunDirectory,
    RunIdentity,
    Trainer,
    TrainingConfig,
)
from pgti.training.run_directory import now
from pgti.windows import GlobalShuffle, Sequential

__all__ = ["train", "train_run"]

AUTO = "auto"


def train(  # noqa: PLR0913 - each names one part of a run
    store: str | Path | SeriesStore,
    run: str | Path,
    *,
    model: str | ModelFactory = "dcrnn",
    model_options: Mapping[str, Any] | None = None,
    windows: WindowConfig | None = None,
    training: TrainingConfig | None = None,
    batching: str = AUTO,
    device: str = "auto",
    resume: bool = False,
    **training_options: Any,  # noqa: ANN401 - checked by TrainingConfig
) -> Run:
    """Train a model on a store and leave a run behind.

    Args:
        store: the store, or its path.
        run: directory to make, or with `resume` to go on in.
        model: name of a model, or a function that makes a network of one's own from the sizes of
            the data (`ModelShape`). The network is called as `network(x, supports)`, x
            [B, L, N, C + F] standardised, and returns [B, H, N, C_out] standardised.
        model_options: options of a named model.
        windows: shape and split of the windows.
        training: options of the training loop.
        batching: "auto", "index", "device" or "standard".
        device: "auto", "cpu" or "cuda".
        resume: go on from the last checkpoint.
        **training_options: single options of `TrainingConfig`, such as `epochs=3`.

    Returns:
        The run, with its best parameters.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    opened = opened_store(store)
    base = TrainingConfig() if training is None else training
    unknown = set(training_options) - set(TrainingConfig.__slots__)
    if unknown:
        raise ConfigError(f"there is no training option {sorted(unknown)[0]!r}")
    config = RunConfig(
        store=opened.path.absolute(),
        windows=WindowConfig() if windows is None else windows,
        model=ModelConfig(
            name=model if isinstance(model, str) else CUSTOM_MODEL,
            options=dict(model_options or {}),
        ),
        training=replace(base, **training_options),
        batching=batching,
        device=device,
    )
    factory = None if isinstance(model, str) else model
    trained, _ = train_run(config, run, store=opened, model=factory, resume=resume)
    return trained


def train_run(
    config: RunConfig,
    path: str | Path,
    *,
    store: SeriesStore | None = None,
    model: ModelFactory | None = None,
    resume: bool = False,
    say: Callable[[str], None] = lambda _: None,
    observers: Callable[[RunDirectory], Sequence[AbstractObserver]] | None = None,
) -> tuple[Run, FitResult]:
    """Train as a configuration says.

    Args:
        config: every option.
        path: directory of the run.
        store: the configuration's store, if it is open already.
        model: makes the network, in place of the configuration's model.
        resume: go on from the last checkpoint.
        say: told, in one line each, what was chosen on the user's behalf.
        observers: makes who is told about the progress.

    Returns:
        The run with its best parameters, and how the training ended.

    Raises:
        PgtiError: if something given cannot be used; nothing is left behind then.
    """
    directory = RunDirectory(Path(path).absolute())
    opened = SeriesStore.open(config.store) if store is None else store
    config = replace(config, model=resolved_model(config.model))
    splits = config.windows.splits(opened)
    scaler = Scaler.fit(opened, splits.train_rows(config.windows.spec))
    source = window_source(config, opened, scaler)
    run = Run(
        config=config,
        store=opened,
        splits=splits,
        source=source,
        forecaster=build_forecaster(config, source, model),
        directory=directory,
    )
    batching, device = config.batching, resolve_device(config.device)
    if batching == AUTO:
        batching, reason = choose_batching(source, device)
        say(reason)
    batcher = make_batcher(batching, source, device, NUM_SLOTS)
    size = config.training.batch_size
    trainer = Trainer(
        run.forecaster,
        training=BatchLoader(batcher, splits.train, size, GlobalShuffle(config.training.seed)),
        validation=BatchLoader(batcher, splits.val, size, Sequential()),
        config=config.training,
        run=directory,
        identity=RunIdentity(fingerprint=opened.fingerprint, settings=config.identity()),
        observers=() if observers is None else observers(directory),
    )
    if resume and RunDirectory.exists(directory.path):
        trainer.restore()  # refuses another store or other options before anything is written
    _write_beginning(run, resume=resume)
    result = trainer.fit(resume=resume)
    directory.update_info(ended=now())
    run.forecaster.network.load_state_dict(directory.load_best().network)
    run.forecaster.eval()
    return run, result


def _write_beginning(run: Run, *, resume: bool) -> None:
    """Make the run's directory, or bring that of a resumed run up to date."""
    text, path = run.config.to_toml(), run.directory.path
    if resume and RunDirectory.exists(path):
        run.directory.write_config(text)
        return
    parameters = sum(parameter.numel() for parameter in run.forecaster.network.parameters())
    info = {
        "store": str(run.store.path.absolute()),
        "fingerprint": run.store.fingerprint,
        "parameters": parameters,
        "windows": {
            "train": len(run.splits.train),
            "val": len(run.splits.val),
            "test": len(run.splits.test),
        },
    }
    RunDirectory.create(path, config=text, info=info)
