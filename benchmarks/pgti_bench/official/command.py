"""`pgti-bench official`: training steps beside those of the released codes."""

import os
from typing import Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_results
from pgti.run.results import to_json
from pgti_bench.official.measure import OfficialOptions, measure_official
from pgti_bench.official.rivals import RIVALS
from pgti_bench.output import binary_size, finish, milliseconds, number

__all__ = ["official_command"]

_DEFAULTS = OfficialOptions()


def official_command(
    *,
    models: tuple[str, ...] = ("all",),
    options: Annotated[OfficialOptions, Parameter(name="*")] = _DEFAULTS,
    json: bool = False,
) -> None:
    """Time a training step of every model beside its function as the released code computes it.

    Both have the same weights, and their forecasts are compared before they are timed, in turn.

    Args:
        models: Comma-separated models; all takes every one that has a rival.
        options: What to measure.
        json: Print one JSON object on standard output, and no tables.
    """
    names = tuple(RIVALS) if models == ("all",) else models
    result = measure_official(names, options, load=os.getloadavg()[0], log=log)
    table = Table(title="training steps beside released code", title_justify="left")
    table.add_column("model", no_wrap=True)
    for title in ("ms", "official ms", "official / pgti", "peak", "official peak", "difference"):
        table.add_column(title, justify="right")
    table.add_column("computed as")
    for each in result.models:
        table.add_row(
            each.model,
            milliseconds(each.own_seconds)[0],
            milliseconds(each.official_seconds)[0],
            number(each.ratio, digits=2),
            binary_size(each.own_peak_bytes),
            binary_size(each.official_peak_bytes),
            f"{each.difference:.0e}",
            each.code,
        )
    print_results(to_json(result), table, as_json=json)
    log(f"load before: {result.load:.1f}; ratios: median, and the range of {options.rounds} rounds")
    finish("Official", result.machine, ())
