"""Count the kernels that a GPU would start in a training step of every model; without a GPU.

A step runs on a fake GPU (`pgti_bench.fake_device`): what is counted is what the host would launch,
not how long it takes. Beside it is the same step in the pieces of a CPU: sparse products, and
layers that compute some rows at a time.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.table import Table

from pgti.cli.output import log as log_line
from pgti.cli.output import print_results
from pgti.errors import ConfigError
from pgti.models import MODELS
from pgti.nn.limits import CPU_LIMITS, DenseLimits
from pgti.run.results import to_json
from pgti.training import TrainingConfig
from pgti.training.config import Precision
from pgti_bench.fake_device import FakeStepSpec, count_launches
from pgti_bench.launches import Launches

__all__ = ["HOST_SECONDS_PER_LAUNCH", "LaunchCount", "LaunchesResult", "count_models"]

HOST_SECONDS_PER_LAUNCH = 6e-6
"""An estimate for eager torch on a server: its dispatch, autograd and the launch itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchCount:
    """The launches of one training step.

    Attributes:
        model: its name, with default options.
        sensors: of the graph.
        total: all launches.
        dense: products of dense matrices.
        sparse: products with sparse matrices.
        copies: copies, casts and concatenations.
        elementwise: the rest.
        in_pieces: all launches in the pieces of a CPU; None if they were not counted.
    """

    model: str
    sensors: int
    total: int
    dense: int
    sparse: int
    copies: int
    elementwise: int
    in_pieces: int | None

    @property
    def host_milliseconds(self) -> float:
        """An estimate: what the host needs to launch them one by one."""
        return 1e3 * self.total * HOST_SECONDS_PER_LAUNCH


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchesResult:
    """The result of `count_models`.

    Attributes:
        batch_size: windows of a step, of 12 steps in and out.
        precision: of the step.
        counts: by model, then by graph.
    """

    batch_size: int
    precision: str
    counts: tuple[LaunchCount, ...]


def count_models(
    models: Sequence[str],
    sensors: Sequence[int],
    *,
    batch_size: int = 64,
    precision: Precision = "float32",
    in_pieces: bool = False,
    log: Callable[[str], None] = lambda _: None,
) -> LaunchesResult:
    """Count the launches of a training step: forward, backward, clipping, Adam.

    Args:
        models: their names.
        sensors: sizes of the graphs; each sensor has edges to eight others.
        batch_size: windows.
        precision: of the step.
        in_pieces: count those in the pieces of a CPU too.
        log: receives one line for each thing that is done.

    Raises:
        ConfigError: there is no such model.
    """
    own = [name for name, entry in MODELS.items() if not entry.library]
    for name in models:
        if name not in own:
            raise ConfigError(f"there is no model {name!r}: it is one of {', '.join(own)}")
    counts = []
    for name in models:
        for num_nodes in sensors:
            spec = FakeStepSpec(
                model=name,
                num_nodes=num_nodes,
                batch_size=batch_size,
                training=TrainingConfig(precision=precision),
            )
            found = count_launches(spec)
            log(f"{name} at {num_nodes:,} sensors: {found}")
            counts.append(_count(spec, found, _in_pieces(spec).total if in_pieces else None))
    return LaunchesResult(batch_size=batch_size, precision=precision, counts=tuple(counts))


def _count(spec: FakeStepSpec, found: Launches, in_pieces: int | None) -> LaunchCount:
    return LaunchCount(
        model=spec.model,
        sensors=spec.num_nodes,
        total=found.total,
        dense=found.by_kind["dense"],
        sparse=found.by_kind["sparse"],
        copies=found.by_kind["copies"],
        elementwise=found.by_kind["elementwise"],
        in_pieces=in_pieces,
    )


def _in_pieces(spec: FakeStepSpec) -> Launches:
    return count_launches(spec, limits=CPU_LIMITS, dense=DenseLimits())


def launches_command(
    *,
    models: tuple[str, ...] = ("all",),
    sensors: tuple[int, ...] = (207, 11_160),
    batch_size: int = 64,
    precision: Precision = "float32",
    in_pieces: bool = False,
    json: bool = False,
) -> None:
    """Count the kernels that a GPU would start in a training step; needs no GPU.

    Args:
        models: Comma-separated models; all takes every one.
        sensors: Comma-separated sizes of the graph.
        batch_size: Windows of a step.
        precision: Precision of the step.
        in_pieces: Count the same step in sparse products and the pieces of a CPU, for comparison.
        json: Print one JSON object on standard output, and no table.
    """
    own = sorted(name for name, entry in MODELS.items() if not entry.library)
    result = count_models(
        own if models == ("all",) else models,
        sensors,
        batch_size=batch_size,
        precision=precision,
        in_pieces=in_pieces,
        log=log_line,
    )
    title = f"launches of a step, batch size {batch_size}, {precision}, counted without a GPU"
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    columns = ["sensors", "launches", "dense", "sparse", "copies", "elementwise"]
    columns += ["in pieces"] if in_pieces else []
    for column in (*columns, "host ms, estimated"):
        table.add_column(column, justify="right")
    for each in result.counts:
        numbers = [each.sensors, each.total, each.dense, each.sparse, each.copies, each.elementwise]
        if each.in_pieces is not None:
            numbers.append(each.in_pieces)
        table.add_row(
            each.model, *(f"{value:,}" for value in numbers), f"{each.host_milliseconds:.1f}"
        )
    print_results(to_json(result), table, as_json=json)
