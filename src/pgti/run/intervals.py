"""The conformal intervals of a run: calibrated on its validation windows, and stored with it."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from pgti.batching import Batch, WindowSource, build_loader
from pgti.errors import ConfigError, RunError, option
from pgti.forecasting import IntervalForecaster, Observer
from pgti.forecasting.baselines.past_readings import PastReadings
from pgti.forecasting.calibration import Calibration, calibrate, check_levels
from pgti.options import require_type
from pgti.run.loaded import LoadedRun
from pgti.storage import write_atomically
from pgti.training.compatibility import plain_settings

__all__ = ["check_adaptive", "known_levels", "with_intervals"]

_REPLAYED = 1_000
"""Windows before the first forecast whose outcomes adaptive intervals begin with."""


def check_adaptive(levels: Sequence[float], *, adaptive: bool) -> None:
    """Refuse adaptive intervals without levels, and anything but a list of levels.

    Raises:
        ConfigError: saying how to give them.
    """
    kinds = (Sequence, np.ndarray)
    require_type("intervals", levels, kinds, "a list of probabilities, such as (0.8, 0.95)")
    if adaptive and not len(levels):
        raise ConfigError(
            f"adaptive intervals need their probabilities: add {option('intervals', (0.8, 0.95))}"
        )


def known_levels(run: LoadedRun) -> tuple[float, ...]:
    """The probabilities of the intervals that the run was calibrated for; () if it was not."""
    path = run.directory.intervals_file
    stored = _read(path, _key_of(run), _shape_of(run)) if path.exists() else None
    return () if stored is None else tuple(stored.levels)


def with_intervals(
    run: LoadedRun,
    levels: Sequence[float],
    *,
    source: WindowSource,
    first: int,
    adaptive: bool = False,
    observers: Sequence[Observer] = (),
) -> tuple[IntervalForecaster, tuple[str, ...]]:
    """The run's forecaster with intervals, and what is worth knowing about them.

    They are calibrated on all validation windows the first time, and read from the run's directory
    from then on. Every rank calls it, and rank 0 calibrates.

    Args:
        run: the run.
        levels: probabilities to cover.
        source: what the windows to forecast hold.
        first: start of the first of them.
        adaptive: let intervals follow the outcomes of the windows, which come in the order of time;
            those of the windows before the first are counted before it.
        observers: shown the progress of the calibration.

    Raises:
        ConfigError: if a level is none, there are too few validation windows, adaptive intervals
            are asked of several ranks, or the run has some of the sensors only.
        RunError: if the run was not calibrated before, and its rows are gone.
    """
    chosen = check_levels(levels)
    run.require_all_sensors()
    if adaptive and run.communicator.world_size > 1:
        raise ConfigError(
            "adaptive intervals follow time, and ranks divide it among themselves: evaluate on one "
            "process"
        )
    key = _key_of(run)
    found = run.calibrated.get(key)
    if found is None or not set(chosen) <= set(found.levels):
        found = _share_calibration(run, key, chosen, observers)
        run.calibrated.clear()
        run.calibrated[key] = found
    calibration = found.select(chosen)
    forecaster = IntervalForecaster(run.forecaster, calibration, adaptive=adaptive)
    if adaptive:
        _replay(run, forecaster, source, first)
    return forecaster, _notes(calibration)


def _share_calibration(
    run: LoadedRun, key: str, levels: tuple[float, ...], observers: Sequence[Observer]
) -> Calibration:
    """What rank 0 finds or calibrates, on every rank."""
    content = b""
    with run.communicator.raise_together():
        if run.communicator.is_main:
            content = _calibration_of(run, key, levels, observers).to_bytes(key)
    content = run.communicator.broadcast_bytes(content)
    calibration = Calibration.from_bytes(content, key, _shape_of(run))
    assert calibration is not None
    return calibration


def _notes(calibration: Calibration) -> tuple[str, ...]:
    pooled, total = calibration.num_pooled, calibration.counts.size
    if not pooled:
        return ()
    return (
        f"{pooled:,} of {total:,} steps of sensors have too few observed validation targets for "
        f"intervals of {calibration.levels[-1]:g}: those of all sensors at that step stand in",
    )


def _shape_of(run: LoadedRun) -> tuple[int, int, int]:
    meta, targets = run.source.store.meta, run.source.target_indices
    return run.source.spec.horizon, meta.num_nodes, len(targets)


def _key_of(run: LoadedRun) -> str:
    """What a calibration is of: rows, windows, weights and how forecasts are made of them."""
    digest = hashlib.sha256()
    for name, tensor in run.forecaster.network.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.detach().cpu().numpy()).data)
    training = run.config.training
    described = {
        "fingerprint": run.fingerprint,
        "windows": plain_settings(asdict(run.config.windows)),
        "weights": digest.hexdigest(),
        "quantiles": list(training.quantiles),
        "bounds": training.bounds,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _calibration_of(
    run: LoadedRun, key: str, levels: tuple[float, ...], observers: Sequence[Observer]
) -> Calibration:
    """The stored calibration if it has these levels, or a new one with those of both."""
    path = run.directory.intervals_file
    stored = _read(path, key, _shape_of(run))
    if stored is not None and set(levels) <= set(stored.levels):
        return stored
    if run.problem is not None:
        raise RunError(
            f"{run.problem}, and intervals are calibrated on the validation windows: give their "
            f"store with {option('store')}, or evaluate the run where it is, with "
            f"{option('intervals', levels)}, which the run then remembers"
        )
    starts = run.splits.val
    if not len(starts):
        raise ConfigError("the run has no validation windows, on which intervals are calibrated")
    loader = build_loader(
        run.source, starts, run.config.training.evaluated_at_once(1), device=run.device
    )
    for observer in observers:
        observer.begin("calibrating", len(starts))
    both = check_levels({*levels, *(() if stored is None else stored.levels)})
    calibration = calibrate(
        run.forecaster, loader.epoch(0), both, scratch=run.directory.path, observers=observers
    )
    with suppress(RunError, OSError):  # a run that is read-only is calibrated each time
        write_atomically(path, calibration.to_bytes(key))
    return calibration


def _read(path: Path, key: str, shape: tuple[int, int, int]) -> Calibration | None:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    return Calibration.from_bytes(content, key, shape)


def _replay(
    run: LoadedRun, forecaster: IntervalForecaster, source: WindowSource, first: int
) -> None:
    """Let adaptive intervals learn from the windows before the first, none of them trained on.

    Also from those whose horizon ends after the series, of which some outcomes are known.
    """
    starts = np.arange(max(0, first - _REPLAYED), first)
    axis, trained_axis = source.store.time_axis, run.store.time_axis
    if run.problem is None and source.store.path == run.store.path:
        starts = starts[starts > run.splits.train[-1]]
    elif run.problem is None and axis.is_dated and trained_axis.is_dated:
        (last,) = trained_axis.seconds_at(np.array([run.splits.train[-1]]))
        starts = starts[axis.seconds_at(starts) > last]
    holes, is_whole = axis.holes, starts + source.spec.span <= source.store.meta.num_steps
    beyond = starts[~is_whole]
    if len(holes) and not run.config.windows.across_holes:
        beyond = beyond[beyond > holes[-1]]
    whole = run.config.windows.whole(source.store, starts[is_whole])
    size = run.config.training.evaluated_at_once(1)
    if len(whole):
        forecaster.replay(build_loader(source, whole, size, device=run.device).epoch(0))
    if len(beyond):
        loader = build_loader(source, beyond, size, device=run.device, with_targets=False)
        forecaster.replay(_with_known_targets(source, loader.epoch(0)))


def _with_known_targets(source: WindowSource, batches: Iterable[Batch]) -> Iterator[Batch]:
    """Windows whose horizon ends after the series, with the targets that lie in it."""
    readings, spec = PastReadings(source), source.spec
    for batch in batches:
        rows = batch.starts[:, None] + np.arange(spec.input_steps, spec.span)
        values = torch.from_numpy(readings.at(rows)).to(batch.x.device)
        yield replace(batch, y=values.nan_to_num(), y_mask=~values.isnan())
