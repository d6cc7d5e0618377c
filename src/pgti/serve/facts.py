"""What a server says of its model and of forecasts, as plain values."""

import platform
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd
import torch

import pgti
from pgti.models import num_trainable_parameters
from pgti.serve.options import ServeOptions
from pgti.serve.state import ServedModel

__all__ = ["about_forecasts", "describe_model", "time_text"]


def describe_model(model: ServedModel, options: ServeOptions) -> dict[str, Any]:
    """What `/v1/metadata` answers; see `Metadata`."""
    run = model.run
    meta, source, graph = run.store.meta, run.source, run.store.graph
    coordinates = None if graph.coordinates is None else graph.coordinates.tolist()
    read_options = {name: meta.read_options.get(name) for name in ("scale", "missing")}
    return {
        "run": run.directory.path.resolve().name,
        "model": run.config.model.name,
        "parameters": num_trainable_parameters(run.forecaster.network),
        "epoch": run.epoch,
        "loaded": datetime.fromtimestamp(model.loaded, UTC).isoformat(timespec="seconds"),
        "sensors": list(meta.node_ids),
        "coordinates": coordinates,
        "channels": list(meta.channels),
        "targets": list(source.target_names),
        "known_future": list(meta.known_future),
        "units": dict(zip(meta.channels, meta.units, strict=True)),
        "input_steps": source.spec.input_steps,
        "horizon": source.spec.horizon,
        "history": list(run.config.windows.history),
        "interval_seconds": run.store.time_axis.step_seconds,
        "time_zone": meta.time_zone,
        "intervals": list(model.intervals),
        "quantiles": list(run.forecaster.quantile_levels),
        "read_options": {name: value for name, value in read_options.items() if value},
        "limits": {
            "body_bytes": options.max_body_bytes,
            "readings": options.max_readings,
            "seconds": options.timeout_seconds,
            "waiting": options.max_waiting,
        },
        "versions": {
            "pgti": pgti.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }


def about_forecasts(
    model: ServedModel, frame: pd.DataFrame, *, is_own_layout: bool = False
) -> dict[str, Any]:
    """What an answer says beside the forecasts; see `ForecastAnswer`.

    Args:
        model: that made them.
        frame: of the forecasts.
        is_own_layout: leave out the note on how the columns of a table are read.
    """
    run = model.run
    notes = frame.attrs["notes"]
    if is_own_layout:
        notes = [note for note in notes if " is read as a long table: " not in note]
    return {
        "model": run.config.model.name,
        "epoch": run.epoch,
        "origin": time_text(frame["origin"].iloc[-1]),
        "interval_seconds": run.store.time_axis.step_seconds,
        "time_zone": run.store.meta.time_zone,
        "units": dict(run.source.target_units),
        "notes": list(notes),
    }


def time_text(time: Any) -> str | int:
    """A time of a forecast in ISO 8601, or the number of its row."""
    return time.isoformat() if isinstance(time, pd.Timestamp) else int(time)
