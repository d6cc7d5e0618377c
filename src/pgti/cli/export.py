"""`pgti export`: a trained run as a file that forecasts without pgti."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag
from pgti.cli.output import facts_table, log, print_results
from pgti.display import size_text

__all__ = ["export_command"]


def export_command(
    run: Path,
    /,
    *,
    to: Path,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    store: Path | None = None,
    model: str | None = None,
    checkpoint: Literal["best", "last"] = "best",
    json: JsonFlag = False,
) -> None:
    """Export a trained run to a file that forecasts without pgti: .pt2 (torch) or .onnx.

    Args:
        run: Directory of the run.
        to: File to write, .pt2 or .onnx; its description is written beside it, with .json after
            the name.
        overwrite: Replace the files if they exist.
        store: Path of the run's store, if it has moved.
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved. By default pgti finds the run's network among installed modules.
        checkpoint: Parameters to export: the best by validation MAE, or the last.
    """
    from pgti.cli.run_options import allow_own_module
    from pgti.interop.export import TOLERANCE, check_target, export
    from pgti.run import Run

    check_target(to, overwrite=overwrite)
    allow_own_module(model)
    trained = Run.open(run, store=store, model=model, checkpoint=checkpoint, device="cpu")
    log(f"tracing {trained.config.model.name}, which takes up to a few minutes")
    written = export(trained, to, overwrite=overwrite)
    metadata = written.metadata
    tensors = {
        f"{kind} {each['name']}": f"{each['dtype']} [{', '.join(map(_size, each['shape']))}]: "
        f"{each['meaning']}"
        for kind in ("input", "output")
        for each in metadata[f"{kind}s"]
    }
    facts = {
        "file": f"{to}, {size_text(metadata['bytes'])}",
        "description": str(written.metadata_path),
        **tensors,
        "checked": f"forecasts differ from the run's by {written.largest_difference:.1e} of their "
        f"scale at most (limit {TOLERANCE:g})",
    }
    table = facts_table(f"{trained.config.model.name} of {run}", facts)
    print_results({"run": str(run), **metadata}, table, as_json=json)


def _size(size: int | None) -> str:
    return "B" if size is None else str(size)
