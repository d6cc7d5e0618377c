"""`export`: a trained run as a file that forecasts without pgti."""

import hashlib
import json
import math
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from pgti.batching import WindowSource
from pgti.errors import ConfigError, RunError, option
from pgti.interop.export.check import CheckedWindows
from pgti.interop.export.formats import FORMATS, OPSET, Format, trace
from pgti.interop.export.interface import ProgramInterface
from pgti.interop.export.program import ForecastProgram
from pgti.options import require_path
from pgti.run import Run
from pgti.storage import replace_atomically, write_atomically
from pgti.store import TypicalReadings

__all__ = ["TOLERANCE", "ExportedRun", "export"]

TOLERANCE = 1e-5
"""The most that forecasts of the program may differ from the run's, relative to their scale."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedRun:
    """A file that forecasts as a run does.

    Attributes:
        path: the file.
        metadata_path: its description beside it, JSON.
        metadata: the same.
        largest_difference: of its forecasts from the run's, relative to their scale; see `export`.
    """

    path: Path
    metadata_path: Path
    metadata: dict[str, Any]
    largest_difference: float


def export(run: Run | str | Path, path: str | Path, *, overwrite: bool = False) -> ExportedRun:
    """Write a run as a program that needs no pgti, and check it.

    The program takes raw readings in original units, NaN where missing, and times as whole numbers,
    and returns forecasts in original units: scaling, filling, calendar features, features of the
    sensors and the graph are inside. `docs/export.md` describes what it takes. Batches may have any
    number of windows. The file is loaded again, and its forecasts of three windows, some of whose
    readings are missing, are compared with the run's, in a batch of three and in one of one: they
    must not differ by more than 1e-5 of the scale of a target, which is the larger of the standard
    deviation of its training readings and its largest forecast there.

    Args:
        run: a run, or its directory.
        path: the file: .pt2 for `torch.export`, .onnx for ONNX. A description with the same name
            and .json after it is written beside it.
        overwrite: replace the files if they exist.

    Returns:
        What was written.

    Raises:
        ConfigError: if the suffix is another, the file exists, or the network cannot be exported.
        MissingExtraError: if ONNX is asked for and the extra `export` is not installed.
        RunError: if the program does not forecast what the run does, or cannot be written; nothing
            is written then.
    """
    target = require_path("path", path)
    kind = check_target(target, overwrite=overwrite)
    described = _description_of(target)
    opened = run if isinstance(run, Run) else Run.open(run, device="cpu")
    opened.require_all_sensors()
    source, name = _complete(opened), opened.config.model.name
    interface = ProgramInterface.of_run(source, opened.forecaster)
    windows = CheckedWindows(source, opened.forecaster, interface)
    metadata = _describe(opened, interface, target.suffix)
    with replace_atomically(target) as partial:
        try:
            program = ForecastProgram(source, opened.forecaster, interface)
            traced = trace(program, list(windows.inputs.values()))
            kind.save(traced, interface, partial, json.dumps(metadata))
        except (ConfigError, OSError):
            raise
        except Exception as error:
            raise ConfigError(_refusal(name, error)) from error
        difference = _compare(kind, partial, windows)
        if not difference <= TOLERANCE:
            raise RunError(
                f"forecasts of the exported {name} differ from those of the run by "
                f"{difference:.2g} of their scale, and the limit is {TOLERANCE:g}: nothing is "
                "written"
            )
        content = partial.read_bytes()
        metadata |= {
            "file": target.name,
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "largest_difference": difference,
        }
    write_atomically(described, (json.dumps(metadata, indent=2) + "\n").encode())
    return ExportedRun(
        path=target, metadata_path=described, metadata=metadata, largest_difference=difference
    )


def check_target(path: Path, *, overwrite: bool) -> Format:
    """The format of a file; refuse at once what cannot be written.

    Raises:
        ConfigError, MissingExtraError: as `export`.
    """
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"{option('path', flag='to')} is {str(path)!r}: its suffix must be one of "
            f"{', '.join(FORMATS)}"
        )
    for each in (path, _description_of(path)):
        if each.exists() and not overwrite:
            raise ConfigError(
                f"{each} exists: choose another name, or replace it with "
                f"{option('overwrite', value=True)}"
            )
    if not path.parent.is_dir():
        raise ConfigError(f"there is no directory {path.parent}: create it, or choose another")
    kind = FORMATS[path.suffix]
    kind.check()
    return kind


def _description_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _complete(run: Run) -> WindowSource:
    """The run's source with what fills missing readings, which training without any did not ask."""
    source = run.source
    if source.typical is None and source.fill == "last":
        rows = run.splits.train_rows(source.spec)
        source = replace(source, typical=TypicalReadings.fit(run.store, rows))
    return source


def _compare(kind: Format, path: Path, windows: CheckedWindows) -> float:
    """The largest difference of what the file forecasts, in batches of two sizes."""
    call, arrays = kind.load(path), list(windows.inputs.values())
    one = slice(1)
    differences = (
        windows.difference(call(arrays)),
        windows.difference(call([each[one] for each in arrays]), one),
    )
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def _refusal(name: str, error: Exception) -> str:
    """Why a network cannot be exported, in one line."""
    reason = " ".join(str(error).strip().split("\n\n")[0].split())[:300] or type(error).__name__
    remedy = ""
    if "dynamic" in reason and "constant" in reason:
        remedy = "; its code asks for the size of a batch: use x.shape[0] in place of len(x)"
    return f"the network {name} cannot be exported: {reason}{remedy}"


def _describe(run: Run, interface: ProgramInterface, suffix: str) -> dict[str, Any]:
    """What users of the file need to know."""
    source, meta = run.source, run.store.meta
    axis = run.store.time_axis
    uses_onnx = suffix == ".onnx"
    described = {
        "pgti": version("pgti"),
        "format": {"name": suffix[1:], **({"opset": OPSET} if uses_onnx else {})},
        "torch": torch.__version__,
        "model": run.config.model.name,
        "series": meta.fingerprint,
        "inputs": [each.to_plain() for each in interface.inputs],
        "outputs": [each.to_plain() for each in interface.outputs],
        "input_steps": source.spec.input_steps,
        "horizon": source.spec.horizon,
        "interval_seconds": axis.interval_seconds,
        "time_zone": axis.time_zone,
        "clock": "times are wall-clock seconds: the clock of time_zone, counted as if it were UTC",
        "calendar": list(source.calendar),
        "holidays": [each.partition(":")[2] for each in interface.holidays],
        "history_rows": source.spec.history_offsets.tolist(),
        "sensors": list(meta.node_ids),
        "channels": [_channel(meta, index) for index in interface.channels],
        "future": [_channel(meta, index) for index in source.known_indices],
        "targets": [_channel(meta, index) for index in source.target_indices],
        "quantiles": list(run.forecaster.quantile_levels),
        "missing": "NaN",
        "fill": source.fill,
    }
    plain: dict[str, Any] = json.loads(json.dumps(described))  # lists for tuples, as users read it
    return plain


def _channel(meta: Any, index: int) -> dict[str, str]:
    return {"name": meta.channels[index], "unit": meta.units[index]}
