"""`pgti bench dry-run`: a job of many ranks without its processes."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from cyclopts import Parameter
from rich.table import Table

from pgti.bench import Spread, to_json
from pgti.bench.dry_run import DryRunOptions, DryRunResult, dry_run
from pgti.bench.dry_run_walk import WalkedRank
from pgti.cli.bench_output import finish, number
from pgti.cli.model_options import option_value
from pgti.cli.output import log, print_json, show
from pgti.errors import BenchError, ConfigError
from pgti.options import parse_config
from pgti.run import ModelConfig, RunConfig, WindowConfig
from pgti.run.build import build_forecaster, resolve_model, window_source
from pgti.store import Scaler, SeriesStore
from pgti.training import TrainingConfig
from pgti.training.config import PartitionsOrder

__all__ = ["bench_dry_run_command"]

_DEFAULTS = TrainingConfig()
_MIB = 1 << 20


def bench_dry_run_command(
    store: Path,
    /,
    *,
    world_size: int,
    placement: Literal["replicated", "partitioned"] = "replicated",
    model: Annotated[
        dict[str, str] | None,
        Parameter(
            name="--model",
            help="Model, and its options as --model.OPTION VALUE, as in pgti train.",
        ),
    ] = None,
    windows: WindowConfig = WindowConfig(),
    order: Literal["auto", "global", "blocks", "partitions"] = "auto",
    batch_size: int = _DEFAULTS.batch_size,
    accumulate: int = _DEFAULTS.accumulate,
    block_size: int | None = None,
    partitions: int | None = None,
    rotation: float | None = None,
    seed: int = _DEFAULTS.seed,
    ranks: str | None = None,
    epoch: int = 0,
    batches: int | None = None,
    json: bool = False,
) -> None:
    """What the ranks of a job would do in an epoch: windows, bytes and memory, without the job.

    The schedule of all ranks is computed and each window's use counted. Some ranks are walked: each
    takes batches from its real loader and sends what training sends, under a backend that carries
    nothing to anybody, and what it sent is compared with the arithmetic. Nothing is trained.

    Args:
        store: The store to learn from.
        world_size: Ranks of the job, up to 4096.
        placement: Where the training rows are, as in pgti train.
        model: Name of the model, and its options.
        windows: Shape and split of the windows.
        order: Order of the windows, as in pgti train.
        batch_size: Windows of a batch, those of all ranks together.
        accumulate: Batches per optimiser step.
        block_size: Consecutive windows in a block, for the orders blocks and partitions.
        partitions: Parts of the series, for the order partitions: 16, or the world size if that is
            more.
        rotation: How much of each part goes over to its neighbour from epoch to epoch.
        seed: Seed of the order.
        ranks: Ranks to walk, with commas; the first, the middle and the last if not given.
        epoch: Which epoch, from 0.
        batches: Batches of a walk at most, the last ones of the epoch; as many as take seconds if
            not given.
        json: Print one JSON object as the last line of standard output.
    """
    chosen = dict(model or {})
    if order == "auto" and placement == "partitioned":
        order = "partitions"
    order_options = {
        "kind": order,
        "block_size": block_size,
        "partitions": partitions,
        "rotation": rotation,
    }
    config = RunConfig(
        store=store.absolute(),
        windows=windows,
        model=resolve_model(
            ModelConfig(
                name=chosen.pop("name", "dcrnn"),
                options={key.replace("-", "_"): option_value(text) for key, text in chosen.items()},
            )
        ),
        training=parse_config(
            TrainingConfig,
            {
                "order": {
                    name: value for name, value in order_options.items() if value is not None
                },
                "batch_size": batch_size,
                "accumulate": accumulate,
                "seed": seed,
            },
        ),
        placement=placement,
        device="cpu",
    ).resolved()
    options = DryRunOptions(
        world_size=world_size,
        placement=placement,
        training=config.training,
        ranks=None if ranks is None else _numbers(ranks),
        epoch=epoch,
        batches=batches,
    )
    if isinstance(config.training.order, PartitionsOrder):
        options = _with_partitions(options, partitions)
    opened = SeriesStore.open(store)
    splits = windows.splits(opened)
    source = window_source(config, opened, Scaler.fit(opened, splits.train_rows(windows.spec)))
    network = build_forecaster(config, source, None, torch.device("cpu")).network
    result = dry_run(source, splits.train, network, options, log)
    _show(result)
    if json:
        print_json(_content(result))
    finish("", result.machine, result.left_out, None, ())
    if not result.is_sound:
        raise BenchError(
            f"the dry run of {world_size} ranks contradicts itself: see the lines marked NO"
        )


def _with_partitions(options: DryRunOptions, asked: int | None) -> DryRunOptions:
    """Options with as many partitions as ranks at least, where nobody has asked for a number."""
    training, order = options.training, options.training.order
    assert isinstance(order, PartitionsOrder)
    if asked is None and options.placement == "partitioned":
        number_of = max(order.partitions, options.world_size)
        order = replace(order, partitions=number_of)
        options = replace(options, training=replace(training, order=order))
        log(f"partitions is {number_of:,}: none is given, and each rank owns at least one")
    else:
        log(f"partitions is {order.partitions:,}")
    return options


def _numbers(text: str) -> tuple[int, ...]:
    """Ranks with commas between them.

    Raises:
        ConfigError: one is no whole number, or there is none.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words or not all(word.isdecimal() for word in words):
        raise ConfigError(f"ranks is {text!r}: it must be whole numbers with commas, such as 0,17")
    return tuple(int(word) for word in words)


def _content(result: DryRunResult) -> dict[str, Any]:
    """The result as JSON, with what follows from its fields."""
    content: dict[str, Any] = to_json(result)
    content["schedule"]["coverage"]["is_exact"] = result.schedule.coverage.is_exact
    for told, walked in zip(content["ranks"], result.ranks, strict=True):
        told["agrees"] = walked.agrees
        told["memory"]["own"] = walked.memory.own
    return content


def _show(result: DryRunResult) -> None:
    show(_schedule_table(result))
    show(_bytes_table(result))
    if result.ranks:
        show(_rank_table(result))


def _schedule_table(result: DryRunResult) -> Table:
    schedule, coverage = result.schedule, result.schedule.coverage
    table = Table(
        title=f"epoch {result.epoch} of {result.world_size:,} ranks, {result.placement}, "
        f"{result.order}",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("median (least to most)", justify="right")
    exact = "yes" if coverage.is_exact else "NO"
    table.add_row(
        "training windows taken once, never, more often: exact?",
        f"{coverage.once:,}, {coverage.never:,}, {coverage.repeatedly:,}: {exact}",
    )
    table.add_row("batches and steps of every rank", f"{schedule.batches:,} and {schedule.steps:,}")
    table.add_row("windows of a rank in a batch", _counts(schedule.windows_per_batch))
    table.add_row("windows of a rank in the epoch", _counts(schedule.windows_per_rank))
    table.add_row("ranks without a window in a batch", _counts(schedule.idle_per_batch))
    table.add_row("ranks without a window in the epoch", f"{schedule.idle_ranks:,}")
    table.add_row("rows held by a rank, MiB", number(result.held_bytes, _MIB))
    return table


def _bytes_table(result: DryRunResult) -> Table:
    sent = result.sent
    table = Table(
        title=f"bytes sent: {result.batch_size:,} windows a batch, "
        f"{result.parameters:,} parameters",
        title_justify="left",
    )
    table.add_column("what")
    table.add_column("all ranks", justify="right")
    table.add_column("one rank, most", justify="right")
    for kind in ("gradients", "counts", "control"):
        each: int = getattr(sent.step, kind)
        table.add_row(f"{kind} in a step", f"{each * result.world_size:,}", f"{each:,}")
    table.add_row(
        "data in a batch, median (least to most)",
        _counts(sent.data_per_batch),
        f"{sent.data_per_batch_most:,}",
    )
    table.add_row("data before the next epoch", f"{sent.data_moved:,}", f"{sent.data_moved_most:,}")
    total = sum(sent.epoch.values())
    table.add_row("data in the epoch", f"{sent.epoch['data']:,}", "")
    table.add_row("everything in the epoch", f"{total:,}", f"{sent.epoch_most:,}")
    table.add_row("the paper's baseline: data in a batch", f"{sent.paper_per_batch:,}", "")
    table.add_row("the paper's baseline: data in the epoch", f"{sent.paper_epoch:,}", "")
    return table


def _rank_table(result: DryRunResult) -> Table:
    table = Table(title="ranks that were walked; memory in MiB", title_justify="left")
    for name in ("rank", "batches", "windows", "sent", "as computed", "held", "batch", "in all",
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


def _verdict(walked: WalkedRank) -> str:
    if walked.agrees:
        return "yes"
    wrong = [kind for kind in walked.sent if walked.sent[kind] != walked.expected[kind]]
    return f"NO: {', '.join(wrong or ['windows'])}"


def _counts(spread: Spread) -> str:
    """Median and extremes of whole numbers."""
    median = f"{spread.median:,.1f}".removesuffix(".0")
    return f"{median} ({spread.minimum:,} to {spread.maximum:,})"
