"""`pgti-bench gpu-check`: is everything right and fast on this GPU?"""

import json as json_text
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.run.results import to_json
from pgti.storage.atomic import reraise_os_errors, write_atomically
from pgti_bench.errors import DifferenceError
from pgti_bench.gpu_check.parts import PARTS
from pgti_bench.gpu_check.runner import run_check

__all__ = ["gpu_check_command"]


def gpu_check_command(
    *,
    out: Annotated[Path, Parameter(name="--out-dir")] = Path("build/gpu-check"),
    parts: tuple[str, ...] = ("all",),
    rehearse: bool = False,
    scratch: Path | None = None,
    json: bool = False,
) -> None:
    """Check correctness and measure speed on one GPU, in under 8 minutes.

    Writes gpu-check.md, the tables that docs/performance.md shows, and gpu-check.json. Ends with
    exit code 1 if something is wrong.

    Args:
        out: Directory for the two files.
        parts: Comma-separated parts; all takes every one.
        rehearse: Run on the CPU, at small sizes: shows that the check works, and nothing of a GPU.
        scratch: Directory for stores and runs, about 6 GB; a temporary one by default.
        json: Print one JSON object on standard output, and no tables.

    Raises:
        ConfigError: there is no such part, or no GPU.
        DifferenceError: something is wrong.
    """
    with reraise_os_errors(f"{out} cannot be created"):
        out.mkdir(parents=True, exist_ok=True)
    names = tuple(PARTS) if parts == ("all",) else parts
    result = run_check(names, is_rehearsal=rehearse, scratch=scratch, log=log_line)
    content = to_json(result)
    write_atomically(out / "gpu-check.json", json_text.dumps(content, indent=1).encode())
    write_atomically(out / "gpu-check.md", result.markdown().encode())
    table = Table(title="rehearsal on a CPU" if rehearse else result.device, title_justify="left")
    for title in ("part", "check", "outcome", "figures"):
        table.add_column(title)
    for check in result.checks:
        figures = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in check.figures.items()
            if value is not None
        )
        table.add_row(check.part, check.name, check.outcome, figures or check.message)
    print_results(content, table, as_json=json)
    log_line(f"the tables are in {out / 'gpu-check.md'}, the figures in {out / 'gpu-check.json'}")
    if result.failures:
        first = result.failures[0]
        raise DifferenceError(
            f"{len(result.failures)} of {len(result.checks)} checks failed, the first one: "
            f"{first.part}, {first.name}: {first.message or dict(first.figures)}"
        )
