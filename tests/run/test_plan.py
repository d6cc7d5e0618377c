"""A job without its processes: everything counted is what a job would do."""

import json
import statistics
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pgti.batching import PREFETCH_DEPTH, BatchLoader, WindowConfig, WindowSource, build_loader
from pgti.cli.main import run_command
from pgti.distributed import TrafficCounter, open_fake
from pgti.errors import ConfigError
from pgti.ingestion import ingest
from pgti.models import AbstractModel
from pgti.run import ModelConfig, RunConfig, simulated_rank, train_run
from pgti.run.build import build_forecaster, window_source
from pgti.run.planning import MAX_RANKS, PlanResult, plan
from pgti.run.prepare import prepare
from pgti.run.results import Spread
from pgti.run.schedule import Job, Schedule, count_rows, rows_sent
from pgti.store import Scaler, SeriesStore
from pgti.training import RunDirectory, TrainingConfig
from pgti.windows import (
    EvenSharding,
    PartitionSharding,
    PartitionShuffle,
    Sequential,
    Sharding,
    even_part,
    resident_rows,
)

PLACEMENTS: dict[str, dict[str, Any]] = {
    "replicated": {"order": "global"},
    "replicated blocks": {"order": {"kind": "blocks", "block_size": 4}},
    "partitioned": {"placement": "partitioned", "order": {"kind": "partitions", "partitions": 17,
                                                           "rotation": 0.5}},
    "rows are sent": {"placement": "partitioned", "order": "global"},
}  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 4 sensors and 120 steps: 81 training windows of 3 + 2 rows."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run("simulate", "--sensors", 4, "--steps", 120, "--out", path) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def config_of(store: Path, options: dict[str, Any]) -> RunConfig:
    chosen = {"batch_size": 10, "seed": 5, **options}
    placement = chosen.pop("placement", "replicated")
    batching = chosen.pop("batching", "auto")
    return RunConfig(
        store=store,
        windows=WindowConfig(input_steps=3, horizon=2),
        model=ModelConfig(name="dcrnn", options={"hidden": 2, "layers": 1}),
        training=TrainingConfig(**chosen),
        placement=placement,
        batching=batching,
        device="cpu",
    )


def parts_of(config: RunConfig) -> tuple[WindowSource, range, AbstractModel]:
    """What the windows hold, the training starts and the network."""
    opened = SeriesStore.open(config.store)
    splits = config.windows.splits(opened)
    scaler = Scaler.fit(opened, splits.train_rows(config.windows.spec))
    source = window_source(config, opened, scaler)
    network = build_forecaster(config, source, None).network
    assert isinstance(network, AbstractModel)
    return source, splits.train, network


def planned(store: Path, options: dict[str, Any], world_size: int, **more: Any) -> PlanResult:
    return plan(config_of(store, options), world_size, **more)


def shares_of(options: dict[str, Any], order: Any, world_size: int) -> list[Sharding]:
    if options.get("placement") == "partitioned" and isinstance(order, PartitionShuffle):
        return [PartitionSharding(order, rank, world_size) for rank in range(world_size)]
    return [EvenSharding(rank, world_size) for rank in range(world_size)]


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("world_size", [1, 3, 17])
@pytest.mark.parametrize("batch_size", [3, 27, 200])
def test_the_schedule_is_that_of_the_shares(
    store: Path, placement: str, world_size: int, batch_size: int
) -> None:
    """Asked of every rank for every batch, one by one."""
    options = {**PLACEMENTS[placement], "batch_size": batch_size}
    found = planned(store, options, world_size, ranks=(), epoch=2).schedule
    config = config_of(store, options)
    order = config.training.build_order()
    positions = order.epoch(81, 2)
    batches = [positions[first : first + batch_size] for first in range(0, 81, batch_size)]
    taken = [
        [
            len(sharding.local_shard(batch, 81, 2))
            for sharding in shares_of(options, order, world_size)
        ]
        for batch in batches
    ]
    every = [number for counts in taken for number in counts]
    uses = (found.taken_once, found.never_taken, found.taken_repeatedly)
    assert (found.windows, *uses) == (81, 81, 0, 0)
    assert found.batches == found.steps == len(batches)
    assert found.windows_per_batch == Spread.of(every)
    assert found.windows_per_rank == Spread.of(np.sum(taken, axis=0).tolist())
    assert found.idle_per_batch == Spread.of([counts.count(0) for counts in taken])
    assert found.idle_ranks == int((np.sum(taken, axis=0) == 0).sum())
    assert found.windows_per_batch.median == statistics.median(every)


class Greedy(EvenSharding):
    """Rank 0 takes one window more than is its own."""

    def shard(self, rank: int, positions: np.ndarray, num_windows: int, epoch: int) -> np.ndarray:
        """As of an even share, and one more."""
        part = even_part(len(positions), self.world_size, rank)
        return positions[part.start : part.stop + (rank == 0)]


class Lazy(EvenSharding):
    """Rank 1 takes nothing."""

    def shard(self, rank: int, positions: np.ndarray, num_windows: int, epoch: int) -> np.ndarray:
        """As of an even share, or nothing."""
        return super().shard(rank, positions, num_windows, epoch)[: 0 if rank == 1 else None]


@pytest.mark.parametrize(
    ("sharding", "once", "never", "repeatedly"), [(Greedy, 17, 0, 3), (Lazy, 13, 7, 0)]
)
def test_windows_that_are_taken_twice_or_not_at_all_are_counted(
    monkeypatch: pytest.MonkeyPatch,
    sharding: type[Sharding],
    once: int,
    never: int,
    repeatedly: int,
) -> None:
    """20 windows on 3 ranks, 8 at a time: twice 3 + 3 + 2, and 2 + 1 + 1."""
    monkeypatch.setattr(Job, "sharding", lambda job, rank: sharding(rank, job.world_size))
    found = Schedule(job_of(20, batch_size=8, world_size=3)).summarize()
    uses = (found.taken_once, found.never_taken, found.taken_repeatedly)
    assert (found.windows, *uses) == (20, once, never, repeatedly)


def job_of(num_windows: int, *, batch_size: int, world_size: int, **more: Any) -> Job:
    values: dict[str, Any] = {
        "order": Sequential(),
        "starts": range(num_windows),
        "offsets": (range(3),),
        "batch_size": batch_size,
        "accumulate": 1,
        "world_size": world_size,
        "placement": "replicated",
        "epoch": 0,
        **more,
    }
    return Job(**values)


def test_rows_that_are_sent_by_hand() -> None:
    """Six windows of 3 rows in time order on two ranks that hold rows 0-3 and 4-7, two at a time.

    Windows 0 and 1: rank 1 lacks rows 1-3. Windows 2 and 3: rank 0 lacks row 4, rank 1 row 3.
    Windows 4 and 5: rank 0 lacks rows 4-6.
    """
    job = job_of(6, batch_size=2, world_size=2, placement="partitioned")
    rows = count_rows(Schedule(job))
    assert rows.held.tolist() == [4, 4]
    assert rows.exchanged[:, 0].tolist() == [3, 1, 0]
    assert rows.exchanged[:, 1].tolist() == [0, 1, 3]
    assert rows.exchanged.sum(axis=1).tolist() == [3, 2, 3]
    assert rows.exchanged.sum(axis=0).tolist() == [4, 4]
    assert rows.exchanged.max() == 3
    assert rows.moved.tolist() == [0, 0]


@given(
    windows=st.dictionaries(st.integers(0, 60), st.integers(-1, 6), max_size=40),
    sizes=st.lists(st.integers(0, 20), min_size=7, max_size=7),
    cuts=st.lists(st.integers(-25, 30), min_size=2, max_size=6, unique=True),
)
def test_rows_sent_are_those_that_others_lack(
    windows: dict[int, int], sizes: list[int], cuts: list[int]
) -> None:
    """Row by row, whatever the parts; a window of no rank (-1) needs nothing."""
    bounds = sorted(cuts)
    offsets = tuple(map(range, bounds[::2], bounds[1::2]))
    sizes[-1] += 91 - min(91, sum(sizes))
    parts = np.append(0, np.cumsum(sizes))
    expected = []
    for source, (first, stop) in enumerate(pairwise(parts)):
        needed = {
            (owner, row)
            for start, owner in windows.items()
            for each in offsets
            for row in range(max(start + each.start, first), min(start + each.stop, stop))
            if owner not in (source, -1)
        }
        expected.append(len(needed))
    starts = np.array(list(windows), dtype=np.int64)
    owners = np.array(list(windows.values()), dtype=np.int64)
    assert rows_sent(starts, owners, parts, offsets).tolist() == expected


@pytest.mark.parametrize("rotation", [0.0, 0.5, 1.0])
def test_rows_that_move_on_are_those_that_are_new(rotation: float) -> None:
    """Each rank receives what it will hold and does not hold now."""
    order = PartitionShuffle(0, 8, 4, rotation)
    job = job_of(90, batch_size=10, world_size=5, order=order, placement="partitioned", epoch=3)
    rows = count_rows(Schedule(job))
    sharding = PartitionSharding(order, 0, 5)
    new = 0
    for rank in range(5):
        before, after = (
            {
                row
                for each in resident_rows(sharding, rank, job.starts, range(3), epoch)
                for row in each
            }
            for epoch in (3, 4)
        )
        assert rows.held[rank] == len(before)
        new += len(after - before)
    assert rows.moved.sum() == new
    assert (new > 0) == (rotation > 0)


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("world_size", [2, 17])
@pytest.mark.parametrize(
    ("accumulate", "batches", "taken"), [(1, None, 9), (2, None, 9), (1, 4, 4), (2, 4, 5)]
)
def test_simulated_ranks_send_what_the_schedule_says(
    store: Path,
    placement: str,
    world_size: int,
    accumulate: int,
    batches: int | None,
    taken: int,
) -> None:
    """All of them, over the epoch or its end, which whole steps are taken of."""
    options = {**PLACEMENTS[placement], "accumulate": accumulate}
    ranks = tuple(range(world_size))
    result = planned(store, options, world_size, ranks=ranks, max_batches=batches)
    assert [each.rank for each in result.ranks] == list(ranks)
    for each in result.ranks:
        assert each.batches == taken
        assert dict(each.sent) == dict(each.expected)
        assert each.has_its_windows
    assert result.is_sound
    assert result.left_out == ()
    if batches is None:
        assert sum(each.windows for each in result.ranks) == 81
        total: Counter[str] = sum((Counter(each.sent) for each in result.ranks), Counter())
        assert dict(total) == {kind: size for kind, size in result.sent.epoch.items() if size}
        assert result.sent.epoch_max == max(sum(each.sent.values()) for each in result.ranks)
        assert ("data" in total) == (options.get("placement") == "partitioned")


@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_training_sends_what_the_plan_says(
    store: Path, tmp_path: Path, placement: str, accumulate: int
) -> None:
    """The trainer's own line about its first epoch, under a backend that has no other ranks.

    Batches are so large that the rank has windows in all of them: no other rank says that a
    parameter has a gradient.
    """
    options = {**PLACEMENTS[placement], "batch_size": 27, "accumulate": accumulate, "epochs": 2}
    found = planned(store, options, 3, ranks=(0,))
    with open_fake(0, 3) as communicator:
        train_run(config_of(store, options), tmp_path / "run", communicator=communicator)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    epoch = next(line for line in map(json.loads, lines) if line["kind"] == "epoch")
    (simulated,) = found.ranks
    for kind in ("data", "gradients", "counts"):
        assert epoch["sent_bytes"][kind] == simulated.sent[kind], kind
    # Steps send no control; ranks agree on what they write and validate.
    assert simulated.sent["control"] == 0
    assert 0 < epoch["sent_bytes"]["control"] <= 8 * 20


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_ranks_are_simulated_with_the_loader_of_training(
    store: Path, placement: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same order, sharding and batcher."""
    built: list[BatchLoader] = []

    def build(*args: Any, **options: Any) -> BatchLoader:
        built.append(build_loader(*args, **options))
        return built[-1]

    monkeypatch.setattr(simulated_rank, "build_loader", build)
    planned(store, PLACEMENTS[placement], 3, ranks=(1,))
    (loader,) = built
    config = config_of(store, PLACEMENTS[placement])
    opened = SeriesStore.open(store)
    with open_fake(1, 3) as communicator:
        prepared = prepare(config, RunDirectory(Path("nowhere")), opened, None, None, communicator)
    assert repr(loader.order) == repr(prepared.training.order)
    assert type(loader.sharding) is type(prepared.training.sharding)
    assert loader.batch_size == prepared.training.batch_size
    if config.placement == "partitioned":  # training is free to choose another replicated batching
        assert type(loader.batcher) is type(prepared.training.batcher)
        assert type(loader.batcher.rows) is type(prepared.training.batcher.rows)
        assert (
            loader.batcher.prefetch_depth
            == prepared.training.batcher.prefetch_depth
            == PREFETCH_DEPTH
        )


def test_figures_by_hand(store: Path) -> None:
    """Batches of 10 windows in 9 steps; the network has 4 sensors and a time of day."""
    options = {**PLACEMENTS["partitioned"], "accumulate": 2}
    source, _, network = parts_of(config_of(store, options))
    numbers = [each.numel() for each in network.parameters()]
    result = planned(store, options, 2)
    assert result.parameters == sum(numbers)
    assert result.sent.step["gradients"] == 4 * sum(numbers)
    message = 8 * (1 + 6 + len(numbers))  # the count, reasons to stop, who has a gradient
    assert result.sent.step["counts"] == message
    assert result.schedule.steps == 5
    assert result.sent.epoch["counts"] == 2 * 5 * message
    assert result.sent.epoch["gradients"] == 2 * 5 * 4 * sum(numbers)
    assert result.sent.paper_per_batch == 10 * 5 * 4 * 2 * 8
    assert result.sent.paper_epoch == 81 * 5 * 4 * 2 * 8
    # Nine partitions of 5 windows, and four of 5 and four of 4; each with the 4 rows behind them.
    row = 4 * source.store.raw.dtype.itemsize
    assert (result.held_bytes.maximum, result.held_bytes.minimum) == (49 * row, 40 * row)
    assert [each.rank for each in result.ranks] == [0, 1]
    for each in result.ranks:
        memory = each.memory
        assert memory.held >= result.held_bytes.minimum
        assert memory.mapped == 0
        assert memory.fetched == 3 * 10 * 5 * row
        assert memory.parameters == 4 * sum(numbers)
        assert memory.gradients == memory.optimizer == 2 * memory.parameters
        features = source.num_input_channels
        most = 10 * 4 * (3 * (4 * features + 1) + 2 * 5) + 10 * 4 * 5 * len(source.calendar)
        assert 0 < memory.batch <= most
        assert memory.own >= memory.held + memory.batch + 5 * memory.parameters


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_rows_on_devices(store: Path, placement: str) -> None:
    """As many bytes are sent; the rows are on the devices, whole or in parts."""
    options = PLACEMENTS[placement]
    on_host = planned(store, options, 3, ranks=(1,))
    on_device = planned(store, {**options, "batching": "device"}, 3, ranks=(1,))
    assert on_device.sent == on_host.sent
    (rank,), (other,) = on_device.ranks, on_host.ranks
    assert rank.has_its_windows
    assert rank.sent["data"] == rank.expected["data"] == other.sent["data"]
    num_bytes = SeriesStore.open(store).num_bytes
    features = 122 * (4 + 8)  # of 120 rows and 2 ahead: the time of day, and which time it is
    if "placement" not in options:
        assert rank.memory.held == num_bytes + features
        assert on_device.held_bytes.minimum == on_device.held_bytes.maximum == num_bytes + features
    else:
        assert rank.memory.held == other.memory.held + features < num_bytes + features
        assert on_device.held_bytes == on_host.held_bytes


def test_a_replicated_rank_maps_the_store(store: Path) -> None:
    (simulated,) = planned(store, {}, 2, ranks=(1,)).ranks
    assert simulated.memory.held == 0
    assert simulated.memory.mapped == SeriesStore.open(store).num_bytes


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_one_rank_sends_nothing(store: Path, placement: str) -> None:
    result = planned(store, PLACEMENTS[placement], 1)
    assert result.is_sound
    assert result.ranks[0].windows == 81
    assert sum(result.sent.epoch.values()) == sum(result.ranks[0].sent.values()) == 0


def test_a_ledger_that_miscounts_is_noticed(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add = TrafficCounter.add
    monkeypatch.setattr(TrafficCounter, "add", lambda self, kind, size: add(self, kind, size + 1))
    result = planned(store, {}, 3)
    assert not any(each.agrees for each in result.ranks)
    assert not result.is_sound


def test_a_rank_that_does_not_fit_is_left_out(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulated_rank, "available_bytes", lambda: 1000)
    result = planned(store, {}, 3, ranks=(1,))
    assert result.ranks == ()
    assert result.is_sound  # what was counted is right
    assert result.left_out[0].startswith("rank 1: it takes 4 windows of a batch and needs 0.0 GiB")


def test_fake_processes_are_gone_afterwards() -> None:
    """Also after an error; one job at a time."""

    def fail() -> None:
        with open_fake(5, 1024) as communicator:
            assert (communicator.rank, communicator.world_size, communicator.is_main) == (
                5,
                1024,
                False,
            )
            communicator.all_reduce_(torch.zeros(3), "metrics")
            assert communicator.traffic.sent_bytes["metrics"] == 12
            with open_fake(0, 2):
                pass

    with pytest.raises(ConfigError, match="in a process group already"):
        fail()
    with open_fake(0, 2) as communicator:
        assert communicator.traffic.sent_bytes["metrics"] == 0
    with pytest.raises(ConfigError, match="rank is 2"), open_fake(2, 2):
        pass


SMALL = ("--windows.input-steps", 3, "--windows.horizon", 2, "--model.hidden", 2,
         "--model.layers", 1, "--batch-size", 10)  # fmt: skip


def test_the_command(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rank owns whole partitions: as many as ranks, unless a number is given."""
    options = (*SMALL, "--placement", "partitioned", "--order", "partitions",
               "--order.rotation", 1, "--ranks", "19, 0",
               "--epoch", 1)  # fmt: skip
    assert run("plan", store, "--world-size", 20, *options, "--json") == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out.strip().splitlines()[-1])
    assert "partitions is 20: train with --order.partitions 20" in captured.err
    assert found["order"].startswith("PartitionShuffle(seed=0, partitions=20,")
    assert found["is_sound"] is True
    assert found["schedule"]["taken_once"] == found["schedule"]["windows"]
    assert [each["rank"] for each in found["ranks"]] == [0, 19]
    for each in found["ranks"]:
        assert each["agrees"] is True
        assert each["sent"] == each["expected"]
        assert each["sent"]["data"] > 0
    assert found["epoch"] == 1
    assert run("plan", store, "--world-size", 2, *options[:-4], "--order.partitions", 5) == 0
    captured = capsys.readouterr()
    assert "partitions is 5:" in captured.err
    assert "as scheduled" in captured.out


def test_the_command_fails_where_something_is_wrong(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    add = TrafficCounter.add
    monkeypatch.setattr(TrafficCounter, "add", lambda self, kind, size: add(self, kind, size + 1))
    assert run("plan", store, "--world-size", 2, *SMALL) != 0
    captured = capsys.readouterr()
    assert "NO: gradients, counts" in " ".join(captured.out.split())
    assert captured.err.strip().splitlines()[-1].startswith("pgti: error: the plan of 2 ranks")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--world-size", "0"), "world size is 0"),
        (("--world-size", MAX_RANKS + 1), f"it must be at most {MAX_RANKS}"),
        (("--world-size", "4", "--ranks", "0,4"), "rank is 4: it must be less than"),
        (("--world-size", "4", "--ranks", "first"), '"first" into int'),
        (("--world-size", "4", "--ranks", ","), "--ranks"),
        (("--world-size", "4", "--epoch", "-1"), "epoch is -1"),
        (("--world-size", "4", "--batches", "0"), "batches is 0"),
        (("--world-size", "4", "--batch-size", "0"), "batch_size is 0"),
        (("--world-size", "4", "--placement", "partitioned", "--order", "partitions",
          "--order.partitions", "3"),
         "partitions is 3 and there are 4 ranks"),
        (("--world-size", "4", "--placement", "partitioned", "--order", "blocks"),
         "order is blocks and placement is partitioned"),
        (("--world-size", "4", "--order.partitions", "3"),
         "order.partitions goes with kind partitions, and order is auto"),
        (("--world-size", "4", "--model", "lstm"), "lstm"),
    ],
)  # fmt: skip
def test_refusals(
    store: Path,
    options: tuple[object, ...],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """In one line and exit code 2."""
    assert run("plan", store, *options) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("pgti: error: ")
    assert message in error


def test_a_store_that_is_none_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("plan", tmp_path / "none", "--world-size", 2) == 2
    assert "is not a store" in capsys.readouterr().err


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_a_series_with_holes_is_planned_as_it_is_trained(tmp_path: Path, placement: str) -> None:
    """Windows across missing rows are nobody's; the ranks take and send what the schedule says."""
    index = pd.date_range("2024-01-01", periods=140, freq="1h").delete([20, 50, 51, 52, 56, 90])
    readings = np.random.default_rng(0).normal(size=(len(index), 3)).round(2)
    frame = pd.DataFrame(readings, index=index, columns=["a", "b", "c"])
    store = ingest(frame, tmp_path / "store", gaps="keep")
    splits = WindowConfig(input_steps=3, horizon=2).splits(store)
    assert splits.num_left_out == 15  # 4, 7 about the two holes that lie close, and 4
    for world_size in (1, 3):
        found = planned(tmp_path / "store", PLACEMENTS[placement], world_size)
        assert found.is_sound
        assert found.schedule.taken_once == len(splits.train)
