"""`pgti plan`: a job of many ranks without its processes."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from pgti.cli.flags import JsonFlag
from pgti.cli.output import build_table, log, print_results
from pgti.cli.run_options import RunFlags, run_config
from pgti.display import count_of
from pgti.errors import RunError

if TYPE_CHECKING:
    from pgti.run.planning import PlanResult
    from pgti.run.results import Spread
    from pgti.run.simulated_rank import SimulatedRank

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
    json: JsonFlag = False,
) -> None:
    """Compute what the ranks of a job would do in an epoch.

    Windows, traffic and memory: the schedule of all ranks is computed, and each window's use is
    counted. Some ranks are simulated: each takes batches from its real loader and sends what
    training sends, without any other rank, and the bytes that it sent are compared with those of
    the schedule. Nothing is trained.

    Args:
        store: The store to train on.
        world_size: Number of ranks, up to 4096.
        options: Options of the run, as for pgti train.
        ranks: Comma-separated ranks to simulate; the first, the middle and the last if not given.
        epoch: Which epoch, from 0.
        batches: Maximum number of batches of a simulation, from the end of the epoch; as many as
            take seconds if not given.
    """
    from pgti.run.build import resolve_model
    from pgti.run.planning import plan
    from pgti.run.results import to_json
    from pgti.training.orders import PartitionsOrder

    flags = options or {}
    config = run_config(store, flags)
    config = replace(config, device="cpu", model=resolve_model(config.model))
    config = config.resolved(world_size)
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
    tables = (
        _schedule_table(result),
        *_halo_tables(result),
        _bytes_table(result),
        _rank_table(result),
    )
    print_results(to_json(result), *(each for each in tables if each.row_count), as_json=json)
    log(result.machine.summary)
    for line in result.left_out:
        log(f"left out: {line}")
    if not result.is_sound:
        raise RunError(
            f"the plan of {count_of(world_size, 'rank')} contradicts itself: see the lines marked "
            "NO"
        )


def _schedule_table(result: "PlanResult") -> Table:
    schedule, held = result.schedule, result.held_bytes
    rank = "rank" if result.halo is None else "group"
    low, median, high = (
        f"{size / _MIB:,.1f}" for size in (held.minimum, held.median, held.maximum)
    )
    where = "on a rank's device" if result.batching == "device" else "by a rank"
    rows = {
        "training windows taken once, never, repeatedly; exact?": f"{schedule.taken_once:,}, "
        f"{schedule.never_taken:,}, {schedule.taken_repeatedly:,}; "
        f"{'yes' if schedule.taken_once == schedule.windows else 'NO'}",
        f"batches and steps of every {rank}": f"{schedule.batches:,} and {schedule.steps:,}",
        f"windows of a {rank} in a batch": _counts(schedule.windows_per_batch),
        f"windows of a {rank} in the epoch": _counts(schedule.windows_per_rank),
        f"{rank}s without a window in a batch": _counts(schedule.idle_per_batch),
        f"{rank}s without a window in the epoch": f"{schedule.idle_ranks:,}",
        f"rows held {where}, MiB": f"{median} ({low} to {high})",
    }
    title = f"epoch {result.epoch} of {count_of(result.world_size, 'rank')}, {result.placement}, "
    return build_table(title + result.order, ("", "median (range)"), rows.items())


def _halo_tables(result: "PlanResult") -> Iterator[Table]:
    """What ranks that share sensors send one another, if any do."""
    halo = result.halo
    if halo is None:
        return
    share = halo.cut_edges / max(1, halo.edges)
    rows = {
        "sensors of a rank": _range_of(halo.parts),
        "their neighbours on other ranks": _range_of(halo.halos),
        "edges between ranks": f"{halo.cut_edges:,} of {halo.edges:,} ({share:.2%})",
        "products with the graph in a step": f"{halo.products:,}",
        "bytes that a rank sends for them in a step": _range_of(halo.step_bytes),
        "bytes that a rank sends for them in the epoch, at most": _range_of(
            [result.schedule.steps * each for each in halo.step_bytes]
        ),
    }
    title = f"sensors split over {len(halo.parts)} ranks; steps of {halo.windows:,} windows a group"
    yield build_table(title, ("", "each rank"), rows.items())


def _range_of(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _bytes_table(result: "PlanResult") -> Table:
    sent, size = result.sent, result.world_size
    total = sum(sent.epoch.values())
    rest = "" if result.halo is None else " but the rows of neighbours"
    rows = [
        *(
            (f"{kind} in a step", f"{each * size:,}", f"{each:,}")
            for kind, each in sent.step.items()
        ),
        (
            "data in a batch, median (range)",
            _counts(sent.data_per_batch),
            f"{sent.data_per_batch_max:,}",
        ),
        ("data before the next epoch", f"{sent.data_moved:,}", f"{sent.data_moved_max:,}"),
        ("data in the epoch", f"{sent.epoch['data']:,}", ""),
        (f"everything in the epoch{rest}", f"{total:,}", f"{sent.epoch_max:,}"),
        ("the paper's baseline: data in a batch", f"{sent.paper_per_batch:,}", ""),
        ("the paper's baseline: data in the epoch", f"{sent.paper_epoch:,}", ""),
    ]
    title = (
        f"bytes sent: {count_of(result.batch_size, 'window')} per batch, {result.parameters:,} "
        "parameters"
    )
    return build_table(title, ("", "all ranks", "one rank at most"), rows)


def _rank_table(result: "PlanResult") -> Table:
    columns = ("rank", "batches", "windows", "sent", "as scheduled", "held", "batch", "total",
               "seconds")  # fmt: skip
    rows = [
        (
            f"{each.rank:,}",
            f"{each.batches:,} of {result.schedule.batches:,}",
            f"{each.windows:,}",
            f"{sum(each.sent.values()):,}",
            _verdict(each),
            *(f"{size / _MIB:,.1f}" for size in (each.memory.held, each.memory.batch)),
            f"{each.memory.own / _MIB:,.1f}",
            f"{each.seconds:,.1f}",
        )
        for each in result.ranks
    ]
    return build_table("simulated ranks; memory in MiB, without activations", columns, rows)


def _verdict(rank: "SimulatedRank") -> str:
    if rank.agrees:
        return "yes"
    wrong = [kind for kind in rank.sent if rank.sent[kind] != rank.expected[kind]]
    return f"NO: {', '.join(wrong or ['windows'])}"


def _counts(spread: "Spread") -> str:
    """Median and range of whole numbers."""
    median = f"{spread.median:,.1f}".removesuffix(".0")
    return f"{median} ({spread.minimum:,} to {spread.maximum:,})"
