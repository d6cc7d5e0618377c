"""`pgti plan`: a job of many ranks without its processes."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.output import log, print_json, show
from pgti.cli.run_options import RunFlags, run_config
from pgti.errors import RunError
from pgti.run.build import resolve_model
from pgti.run.planning import PlanResult, plan
from pgti.run.results import Spread, to_json
from pgti.run.simulated_rank import SimulatedRank
from pgti.training.config import PartitionsOrder

__all__ = ["plan_command"]

_MIB = 1 << 20


def plan_command(
    store: Path,
    /,
    *,
    world_size: int,
    options: Annotated[RunFlags | None, Parameter(name="*")] = None,
    ranks: tuple[int, ...] = (),
    epoch: int = 0,
    batches: int | None = None,
    json: bool = False,
) -> None:
    """Compute what the ranks of a job would do in an epoch: windows, traffic and memory.

    The schedule of all ranks is computed, and each window's use is counted. Some ranks are
    simulated: each takes batches from its real loader and sends what training sends, without any
    other rank, and the bytes that it sent are compared with those of the schedule. Nothing is
    trained.

    Args:
        store: The store to train on.
        world_size: Number of ranks, up to 4096.
        options: Options of the run, as for pgti train.
        ranks: Comma-separated ranks to simulate; the first, the middle and the last if not given.
        epoch: Which epoch, from 0.
        batches: Maximum number of batches of a simulation, from the end of the epoch; as many as
            take seconds if not given.
        json: Print one JSON object on standard output.
    """
    flags = options or {}
    config = run_config(store, flags)
    config = replace(config, device="cpu", model=resolve_model(config.model)).resolved()
    order = config.training.order
    if isinstance(order, PartitionsOrder):
        if "training.order.partitions" not in flags and world_size > order.partitions:
            # Each rank owns at least one partition, which the default is too small for.
            order = replace(order, partitions=world_size)
            config = replace(config, training=replace(config.training, order=order))
        log(f"partitions is {order.partitions:,}: train with --order.partitions {order.partitions}")
    result = plan(
        config, world_size, ranks=ranks or None, epoch=epoch, max_batches=batches, log=log
    )
    for table in (_schedule_table(result), _bytes_table(result), _rank_table(result)):
        if table.row_count:
            show(table)
    if json:
        print_json(_content(result))
    log(result.machine.summary)
    for line in result.left_out:
        log(f"left out: {line}")
    if not result.is_sound:
        raise RunError(
            f"the plan of {world_size} ranks contradicts itself: see the lines marked NO"
        )


def _content(result: PlanResult) -> dict[str, Any]:
    """The result as JSON, with what follows from its fields."""
    content: dict[str, Any] = to_json(result)
    content["schedule"]["coverage"]["is_exact"] = result.schedule.coverage.is_exact
    for entry, rank in zip(content["ranks"], result.ranks, strict=True):
        entry["agrees"] = rank.agrees
        entry["memory"]["own"] = rank.memory.own
    return content


def _schedule_table(result: PlanResult) -> Table:
    schedule, coverage = result.schedule, result.schedule.coverage
    table = Table(
        title=f"epoch {result.epoch} of {result.world_size:,} ranks, {result.placement}, "
        f"{result.order}",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("median (range)", justify="right")
    exact = "yes" if coverage.is_exact else "NO"
    held = [
        f"{size / _MIB:,.1f}"
        for size in (result.held_bytes.median, result.held_bytes.minimum, result.held_bytes.maximum)
    ]
    rows = {
        "training windows taken once, never, repeatedly; exact?": f"{coverage.once:,}, "
        f"{coverage.never:,}, {coverage.repeatedly:,}; {exact}",
        "batches and steps of every rank": f"{schedule.batches:,} and {schedule.steps:,}",
        "windows of a rank in a batch": _counts(schedule.windows_per_batch),
        "windows of a rank in the epoch": _counts(schedule.windows_per_rank),
        "ranks without a window in a batch": _counts(schedule.idle_per_batch),
        "ranks without a window in the epoch": f"{schedule.idle_ranks:,}",
        "rows held by a rank, MiB": f"{held[0]} ({held[1]} to {held[2]})",
    }
    for row in rows.items():
        table.add_row(*row)
    return table


def _bytes_table(result: PlanResult) -> Table:
    sent, size = result.sent, result.world_size
    table = Table(
        title=f"bytes sent: {result.batch_size:,} windows per batch, "
        f"{result.parameters:,} parameters",
        title_justify="left",
    )
    table.add_column("")
    table.add_column("all ranks", justify="right")
    table.add_column("one rank at most", justify="right")
    step = {kind: getattr(sent.step, kind) for kind in ("gradients", "counts", "control")}
    for kind, num_bytes in step.items():
        table.add_row(f"{kind} in a step", f"{num_bytes * size:,}", f"{num_bytes:,}")
    data = _counts(sent.data_per_batch)
    table.add_row("data in a batch, median (range)", data, f"{sent.data_per_batch_max:,}")
    table.add_row("data before the next epoch", f"{sent.data_moved:,}", f"{sent.data_moved_max:,}")
    table.add_row("data in the epoch", f"{sent.epoch['data']:,}", "")
    total = sum(sent.epoch.values())
    table.add_row("everything in the epoch", f"{total:,}", f"{sent.epoch_max:,}")
    table.add_row("the paper's baseline: data in a batch", f"{sent.paper_per_batch:,}", "")
    table.add_row("the paper's baseline: data in the epoch", f"{sent.paper_epoch:,}", "")
    return table


def _rank_table(result: PlanResult) -> Table:
    table = Table(title="simulated ranks; memory in MiB", title_justify="left")
    for name in ("rank", "batches", "windows", "sent", "as scheduled", "held", "batch", "total",
                 "seconds"):  # fmt: skip
        table.add_column(name, justify="right")
    for each in result.ranks:
        memory = each.memory
        table.add_row(
            f"{each.rank:,}",
            f"{each.batches:,} of {result.schedule.batches:,}",
            f"{each.windows:,}",
            f"{sum(each.sent.values()):,}",
            _verdict(each),
            *(f"{size / _MIB:,.1f}" for size in (memory.held, memory.batch, memory.own)),
            f"{each.seconds:,.1f}",
        )
    return table


def _verdict(rank: SimulatedRank) -> str:
    if rank.agrees:
        return "yes"
    wrong = [kind for kind in rank.sent if rank.sent[kind] != rank.expected[kind]]
    return f"NO: {', '.join(wrong or ['windows'])}"


def _counts(spread: Spread) -> str:
    """Median and range of whole numbers."""
    median = f"{spread.median:,.1f}".removesuffix(".0")
    return f"{median} ({spread.minimum:,} to {spread.maximum:,})"
