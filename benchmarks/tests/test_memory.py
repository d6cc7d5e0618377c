"""What data sets need, the stores that stand for them, and `pgti-bench memory`."""

import json
import re
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti import SensorGraph
from pgti.errors import ConfigError, StoreError
from pgti.run.results import Machine
from pgti.store import SeriesStore, StoreWriter
from pgti_bench.app import run_command
from pgti_bench.cgroup import MemoryGroup
from pgti_bench.errors import BenchError
from pgti_bench.limited_run import LimitedRun, run_limited
from pgti_bench.memory import command as memory_command
from pgti_bench.memory import commands as memory_commands
from pgti_bench.memory import measure as memory_measure
from pgti_bench.memory.commands import MeasuredCommand, MemoryOptions
from pgti_bench.memory.measure import (
    DatasetMemory,
    MemoryResult,
    growth_problems,
    measure_memory,
    unexpected_ends,
)
from pgti_bench.paper_datasets import DATASETS, PAPER_DATASETS, DatasetShape, find_datasets
from pgti_bench.synthetic_stores import (
    Road,
    disk_usage,
    drop_page_cache,
    lengthen,
    read_road,
    synthetic_store,
)

from .in_process_commands import PEAK_BYTES, InProcessCommands

GIB, MIB = 1 << 30, 1 << 20
TINY = DatasetShape(
    name="tiny", title="Tiny", num_steps=160, num_nodes=5, num_features=2, window_steps=3
)
LONG = replace(TINY, name="long", num_steps=9_000, is_sparse=True)
FEW = MemoryOptions(batching=("index",), max_steps=1, batch_size=2, hidden=2, windows=3)


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    return content


def ring(num_nodes: int = 5) -> SensorGraph:
    nodes = np.arange(num_nodes)
    return SensorGraph.from_edges(num_nodes, nodes, (nodes + 1) % num_nodes)


def write_store(path: Path, values: np.ndarray, **options: Any) -> None:
    ids = tuple(f"s{node}" for node in range(values.shape[1]))
    channels = tuple(f"c{channel}" for channel in range(values.shape[2]))
    graph = ring(len(ids))
    with StoreWriter(path, node_ids=ids, channels=channels, graph=graph, **options) as store:
        store.append(values)
        store.finish(start=np.datetime64("2025-01-06T00:00"), interval_seconds=300)


# -- by formula -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "windows", "standard", "unit"),
    [
        ("chickenpox", 514, 657.92, 1e3),
        ("windmill", 17_457, 712.80, 1e6),
        ("metr-la", 34_249, 2.54, GIB),
        ("pems-bay", 52_082, 6.05, GIB),
        ("pems-all-la", 105_097, 102.08, GIB),
        ("pems", 105_097, 419.46, GIB),
    ],
)
def test_standard_batching_needs_what_the_paper_says(
    name: str, windows: int, standard: float, unit: float
) -> None:
    """Its six sizes after preprocessing, to the digits in print."""
    needs = DATASETS[name].needs
    assert needs.windows == windows
    assert round(needs.standard / unit, 2) == standard


def test_index_batching_needs_the_series_once() -> None:
    """PeMS: 17.48 GiB in float64, 8.74 GiB in float32, and 2.19 GiB stored as int16."""
    needs = DATASETS["pems"].needs
    assert round(needs.paper_index / GIB, 2) == 17.48
    assert round(needs.paper_device / GIB, 2) == 8.74
    assert needs.series == 105_120 * 11_160 * 2
    assert round(needs.standard_peak / GIB) == 629
    assert DATASETS["pems-ten-years"].needs.series == 10 * needs.series


def test_windows_are_counted_as_arrays_would_be() -> None:
    """The formula is the size of the arrays that a small series is cut into."""
    shape = TINY
    readings = np.zeros((shape.num_steps, shape.num_nodes, shape.num_features))
    h = shape.window_steps
    starts = range(len(readings) - 2 * h + 1)
    x = np.stack([readings[start : start + h] for start in starts])
    y = np.stack([readings[start + h : start + 2 * h] for start in starts])
    assert shape.needs.standard == x.nbytes + y.nbytes
    assert shape.needs.windows == len(x)
    assert shape.needs.paper_index == readings.nbytes + np.arange(len(x)).nbytes


def test_data_sets_are_chosen_by_name() -> None:
    """Each once, in the order given; a name that is none is refused with those that are."""
    assert [shape.name for shape in find_datasets(["pems", "metr-la", "pems"])] == [
        "pems",
        "metr-la",
    ]
    with pytest.raises(ConfigError, match=r"no data set 'pems-lb'.*metr-la.*pems-ten-years"):
        find_datasets(["pems", "pems-lb"])
    with pytest.raises(ConfigError, match="datasets is empty"):
        find_datasets([])


# -- stores that stand for them -------------------------------------------------------------------


@pytest.mark.parametrize("steps", [24, 25, 40, 61])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_a_longer_store_is_one_with_zeros_written(tmp_path: Path, steps: int, dtype: str) -> None:
    """Bytes, hashes and statistics are those of a store to which zeros were appended."""
    blocks = {"block_readings": 8 * 5 * 2}  # of 8 rows
    generator = np.random.default_rng(steps)
    values = generator.integers(0, 90, size=(21, 5, 2)).astype(np.float32)
    values[3, 1, 0] = np.nan
    if dtype == "float32":
        values += np.float32(np.pi)
    write_store(tmp_path / "short", values, **blocks)
    whole = np.concatenate([values, np.zeros((steps - len(values), 5, 2), dtype=np.float32)])
    write_store(tmp_path / "written", whole, **blocks)

    described = lengthen(tmp_path / "short", steps)
    longer, written = (SeriesStore.open(tmp_path / name) for name in ("short", "written"))
    longer.verify()
    assert longer.meta == described
    assert longer.meta.dtype == dtype
    for name in ("series.npy", "digests.npy", "graph.npz"):
        file = written.path / name
        assert longer.meta.parts[name] == written.meta.parts[name]
        assert (longer.path / name).read_bytes() == file.read_bytes()
    assert replace(longer.meta, parts={}) == replace(written.meta, parts={})
    np.testing.assert_allclose(longer.block_moments, written.block_moments, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(longer.read(0, steps), whole)


def test_a_store_only_gets_longer(tmp_path: Path) -> None:
    """And only where the times of its rows are regular."""
    write_store(tmp_path / "s", np.ones((10, 5, 1), dtype=np.float32))
    before = (tmp_path / "s" / "meta.json").read_bytes()
    with pytest.raises(ConfigError, match=r"num_steps is 10 and .* has 10 regular rows"):
        lengthen(tmp_path / "s", 10)
    assert (tmp_path / "s" / "meta.json").read_bytes() == before


def test_a_sparse_series_takes_little_space(tmp_path: Path) -> None:
    """It has the rows asked for, a simulated beginning, and a hole behind."""
    shape = replace(LONG, num_nodes=200, num_steps=100_000)
    logged: list[str] = []
    store = synthetic_store(shape, tmp_path, log=logged.append)
    assert store.meta.shape == (100_000, 200, 1)
    store.verify()
    assert store.raw[:2016].any(axis=(1, 2)).mean() > 0.9
    assert not store.raw[2016::997].any()
    if disk_usage(store.path) >= store.num_bytes:
        pytest.skip(f"the file system of {tmp_path} knows no holes")
    assert disk_usage(store.path) < store.num_bytes / 10
    assert "sparse: after its first 2,016 steps every observation is 0" in "\n".join(logged)
    assert [path.name for path in tmp_path.iterdir()] == ["long"]


def test_a_store_is_made_once(tmp_path: Path) -> None:
    """The second time it is taken as it is; one of another shape or graph is refused."""
    road = Road(path=Path("ring.csv"), graph=ring(), node_ids=None)
    logged: list[str] = []
    first = synthetic_store(TINY, tmp_path, road, log=logged.append)
    assert first.meta.shape == (160, 5, 1)
    assert first.graph.num_edges == 5
    assert len(logged) == 1
    assert synthetic_store(TINY, tmp_path, road, log=logged.append).fingerprint == first.fingerprint
    assert len(logged) == 1
    with pytest.raises(BenchError, match=r"is a store of \(160, 5, 1\) and tiny is \(161, 5, 1\)"):
        synthetic_store(replace(TINY, num_steps=161), tmp_path)
    both_ways = SensorGraph.from_edges(5, [0, 1, 1], [1, 0, 2])
    other = Road(path=Path("other.csv"), graph=both_ways, node_ids=None)
    with pytest.raises(BenchError, match=r"has 5 edges and other.csv has 3"):
        synthetic_store(TINY, tmp_path, other)
    (tmp_path / "tiny" / "meta.json").write_text("{}")
    with pytest.raises(StoreError):
        synthetic_store(TINY, tmp_path)


def test_a_graph_of_other_sensors_is_left_alone(tmp_path: Path) -> None:
    """A data set whose number of sensors is not the graph's gets a simulated graph."""
    road = Road(path=Path("ring.csv"), graph=ring(7), node_ids=None)
    assert synthetic_store(TINY, tmp_path, road).graph.num_nodes == 5


def test_a_road_is_read_as_ingest_reads_it(tmp_path: Path) -> None:
    """Any graph file will do."""
    ring().save(tmp_path / "graph.npz")
    road = read_road(tmp_path / "graph.npz")
    assert (road.graph.num_nodes, road.graph.num_edges) == (5, 5)


def why_no_group() -> str:
    try:
        with MemoryGroup(64 * MIB):
            return ""
    except BenchError as error:
        return str(error)


NO_GROUP = why_no_group()
needs_group = pytest.mark.skipif(bool(NO_GROUP), reason=NO_GROUP or "there is one")


@needs_group
def test_forgotten_pages_are_charged_to_who_reads_them(tmp_path: Path) -> None:
    """A group that reads a file pays for it only if the system has forgotten it before."""
    system = subprocess.run(
        ["stat", "-f", "-c", "%T", tmp_path], capture_output=True, text=True, check=True
    ).stdout.strip()
    if system in {"tmpfs", "ramfs", "overlayfs"}:
        pytest.skip(f"the pages of {system} cannot be forgotten")
    file = tmp_path / "file"
    file.write_bytes(b"x" * (16 * MIB))
    cached = run_limited(["cat", str(file)], 64 * MIB)
    drop_page_cache(tmp_path)
    forgotten = run_limited(["cat", str(file)], 64 * MIB)
    assert cached.group_peak_bytes is not None
    assert forgotten.group_peak_bytes is not None
    assert forgotten.group_peak_bytes - cached.group_peak_bytes > 12 * MIB


# -- measuring ------------------------------------------------------------------------------------


def measured(
    monkeypatch: pytest.MonkeyPatch,
    commands: InProcessCommands,
    options: MemoryOptions,
    workdir: Path,
    *shapes: DatasetShape,
) -> MemoryResult:
    for module in (memory_measure, memory_commands):
        monkeypatch.setattr(module, "run_limited", commands)
    return measure_memory(shapes, shapes, options, workdir=workdir)


def test_every_command_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training with each batching, then evaluation and forecasts, as a user would type them."""
    commands = InProcessCommands()
    options = replace(FEW, batching=("index", "standard"), limit_bytes=GIB)
    result = measured(monkeypatch, commands, options, tmp_path, TINY)
    assert [line[0] for line in commands.ran[1:]] == ["train", "train", "evaluate", "predict"]
    assert [line[line.index("--batching") + 1] for line in commands.ran[1:3]] == [
        "index",
        "standard",
    ]
    dataset = result.datasets[0]
    assert [(each.command, each.batching, each.outcome) for each in dataset.commands] == [
        ("train", "index", "done"),
        ("train", "standard", "done"),
        ("evaluate", "index", "done"),
        ("predict", "index", "done"),
    ]
    assert all(each.group_peak_bytes == GIB // 2 for each in dataset.commands)
    first, *others = (each.seconds_to_first_step for each in dataset.commands)
    assert first is not None
    assert first > 0
    assert others[1:] == [None, None]
    assert any("first optimizer step" in note for note in dataset.commands[0].notes)
    assert dataset.peaks("peak_pss_bytes") == {
        "train": PEAK_BYTES + 2,
        "evaluate": PEAK_BYTES + 4,
        "predict": PEAK_BYTES + 5,
    }
    assert dataset.store is not None
    assert (dataset.store.series_bytes, dataset.store.is_sparse) == (160 * 5 * 2, False)
    assert result.program_pss_bytes == PEAK_BYTES + 1
    assert (unexpected_ends(result), result.growth, result.left_out) == ([], (), ())
    assert [path.name for path in tmp_path.iterdir()] == ["tiny"]


def test_memory_is_compared_with_that_of_a_shorter_series(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longer one over the shorter one, whatever the order they are named in."""
    result = measured(monkeypatch, InProcessCommands(), FEW, tmp_path, LONG, TINY)
    (growth,) = result.growth
    assert (growth.dataset, growth.reference) == ("long", "tiny")
    assert growth.steps_ratio == pytest.approx(9_000 / 160)
    assert growth.pss_ratio == pytest.approx((PEAK_BYTES + 6) / (PEAK_BYTES + 9), rel=1e-5)
    assert growth.group_ratio is None


@pytest.mark.parametrize(
    ("peaks", "ratio", "problem"),
    [
        ((0, 200, 100, 100, 210, 105, 105), 1.05, None),
        ((0, 200, 100, 100, 212, 100, 100), 1.06, "1.060 times the peak PSS of tiny: .* 1.05"),
        ((0, 200, 100, 100, 100, 100, 220), 1.1, "1.100 times"),
        ((0, 200, 100, None, 200, None, 300), 1.0, None),
        ((0, 200, 100, None, None, None, 300), None, "long and tiny cannot be compared"),
    ],
)
def test_memory_must_not_grow_with_the_series(
    peaks: tuple[int | None, ...],
    ratio: float | None,
    problem: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What counts is the largest of the commands that were done on both."""
    result = measured(monkeypatch, InProcessCommands(peaks=peaks), FEW, tmp_path, TINY, LONG)
    (growth,) = result.growth
    assert growth.pss_ratio == (None if ratio is None else pytest.approx(ratio))
    problems = growth_problems(result)
    assert len(problems) == (problem is not None)
    assert problem is None or re.search(problem, problems[0])


def test_a_killed_command_is_told_and_is_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be trained is not evaluated, and counts for no peak."""
    result = measured(monkeypatch, InProcessCommands(killed=("train",)), FEW, tmp_path, TINY)
    (command,) = result.datasets[0].commands
    assert (command.outcome, command.message) == ("killed", "")
    assert result.datasets[0].peaks("peak_pss_bytes") == {}
    assert unexpected_ends(result) == ["train of tiny with index batches was killed"]


@pytest.mark.parametrize(
    ("batching", "outcome", "is_expected"),
    [
        ("standard", "refused", True),
        ("device", "refused", True),
        ("index", "refused", False),
        ("standard", "killed", False),
        ("standard", "failed", False),
        ("index", "done", True),
    ],
)
def test_only_large_batchings_may_be_refused(
    batching: str, outcome: Any, is_expected: bool
) -> None:
    """Index batches are for any size; whatever is killed or fails is a fault."""
    command = MeasuredCommand(
        command="train",
        batching=batching,
        outcome=outcome,
        limit_bytes=None,
        peak_pss_bytes=None,
        group_peak_bytes=None,
        seconds=1.0,
        seconds_to_first_step=None,
        notes=(),
        message="why",
    )
    result = MemoryResult(
        machine=Machine.here(),
        options=FEW,
        program_pss_bytes=None,
        datasets=(DatasetMemory(shape=TINY, needs=TINY.needs, store=None, commands=(command,)),),
        growth=(),
        left_out=(),
    )
    expected = [] if is_expected else [f"train of tiny with {batching} batches was {outcome} (why)"]
    assert unexpected_ends(result) == expected


def test_what_was_not_measured_is_told(tmp_path: Path) -> None:
    """Formulas need no process; what is left out has a line."""
    result = measure_memory(PAPER_DATASETS, (), MemoryOptions(), workdir=tmp_path)
    assert all(not dataset.commands and dataset.store is None for dataset in result.datasets)
    assert result.program_pss_bytes is None
    assert "chickenpox, windmill, metr-la" in result.left_out[0]
    assert [path.name for path in tmp_path.iterdir()] == []


# -- the command line -----------------------------------------------------------------------------


@pytest.mark.usefixtures("_both_forms")
def test_formulas_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, an object for programs, a page with plots."""
    page = tmp_path / "memory.html"
    assert run("memory", "--measure", "none", "--plot", page, "--json") == 0
    captured = capsys.readouterr()
    assert "419.46 GiB" in captured.out
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert [each["shape"]["name"] for each in result["datasets"]] == [
        shape.name for shape in PAPER_DATASETS
    ]
    assert result["datasets"][-1]["needs"]["standard"] == DATASETS["pems"].needs.standard
    assert "PeMS-All-LA" in page.read_text()


@pytest.mark.usefixtures("_both_forms")
def test_measurements_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The limit reaches every command, and the store stays in the working directory."""
    commands = InProcessCommands()
    for module in (memory_measure, memory_commands):
        monkeypatch.setattr(module, "run_limited", commands)
    few = ("--max-steps", 1, "--batch-size", 2, "--hidden", 2, "--windows", 3)
    options = ("--datasets", "chickenpox", "--limit", "4GiB", "--workdir", tmp_path, *few)
    assert run("memory", *options, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert result["options"]["limit_bytes"] == 4 * GIB
    assert [each["batching"] for each in result["datasets"][0]["commands"]][:3] == [
        "index",
        "device",
        "standard",
    ]
    assert "each command within 4.00 GiB" in captured.out
    assert (tmp_path / "chickenpox" / "series.npy").exists()


@pytest.mark.usefixtures("_both_forms")
def test_growth_is_an_error_after_the_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Table and object are out before the last line says what is wrong."""
    commands = InProcessCommands(peaks=(0, 10, 10, 10, 11, 11, 12))
    for module in (memory_measure, memory_commands):
        monkeypatch.setattr(module, "run_limited", commands)
    monkeypatch.setattr(memory_command, "find_datasets", lambda _names: (TINY, LONG))
    few = ("--max-steps", 1, "--batch-size", 2, "--hidden", 2, "--windows", 3)
    options = ("--batching", "index", "--workdir", tmp_path, *few)
    assert run("memory", *options, "--json") == 2
    captured = capsys.readouterr()
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert result["growth"][0]["pss_ratio"] == 1.2
    lines = captured.err.strip().splitlines()
    assert "measured" in captured.out
    assert captured.out.count("long (sparse)") == 2
    assert lines[-1].startswith("pgti: error: long takes 1.200 times the peak PSS of tiny")


@pytest.mark.parametrize("has_limit", [True, False])
def test_a_limit_is_told_where_every_command_had_it(
    has_limit: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One command without a group is enough to keep it out of title and plot."""
    commands = InProcessCommands()

    def run_limited(command: Sequence[str], limit_bytes: int | None) -> LimitedRun:
        ended = commands(command, limit_bytes)
        is_free = "evaluate" in command and not has_limit
        return replace(ended, limit_bytes=None) if is_free else ended

    for module in (memory_measure, memory_commands):
        monkeypatch.setattr(module, "run_limited", run_limited)
    few = ("--max-steps", 1, "--batch-size", 2, "--hidden", 2, "--windows", 3)
    plot = tmp_path / "plot.html"
    options = ("--datasets", "chickenpox", "--batching", "index", "--limit", "1GiB", *few)
    assert run("memory", *options, "--plot", plot) == 0
    assert ("each command within 1.00 GiB" in capsys.readouterr().out) == has_limit
    assert ('"text":"limit"' in plot.read_text(encoding="utf-8")) == has_limit


@pytest.mark.parametrize(
    ("seen", "reported", "peak"),
    [(5, 7, 7), (7, 5, 7), (None, 5, 5), (5, None, 5), (None, None, None)],
)
def test_the_peak_is_what_was_seen_or_told(
    seen: int | None, reported: int | None, peak: int | None
) -> None:
    """A short peak may fall between two looks from outside; the training looks more often."""
    ended = LimitedRun(
        exit_code=0,
        seconds=1.0,
        limit_bytes=None,
        was_oom_killed=False,
        group_peak_bytes=None,
        peak_pss_bytes=seen,
        no_limit_because="",
        output=json.dumps({"peak_pss_bytes": reported}),
        messages="",
    )
    assert ended.peak_bytes == peak
    assert replace(ended, output="").peak_bytes == seen


@needs_group
def test_a_limit_that_is_too_small_ends_with_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Real processes in a real group: killed, reported in one line, exit code 2, nothing left."""
    options = ("--datasets", "chickenpox", "--batching", "index", "--workdir", tmp_path / "work")
    assert run("memory", *options, "--limit", "24MiB") == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines[-1] == ("pgti: error: train of chickenpox with index batches was killed")
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["chickenpox"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--datasets", "pems-lb"), "there is no data set 'pems-lb'"),
        (("--limit", "lots"), "limit is 'lots': it must be a number of bytes, such as 2GiB"),
        (("--limit", "0"), "limit is '0'"),
        (("--limit", "4KiB"), "limit_bytes is 4096"),
        (("--batching", "fast"), "there is no batching 'fast'"),
        (("--batching", ","), "there is no batching ''"),
        (("--max-steps", "0"), "max_steps is 0"),
        (("--windows", "-1"), "windows is -1"),
        (("--measure", "some"), "some"),
        (("--graph", "none.npz"), "none.npz"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_refusals(
    options: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, exit code 2, and nothing made."""
    assert run("memory", "--workdir", tmp_path / "work", *options) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]
    assert not (tmp_path / "work").exists()


def test_a_graph_that_fits_nothing_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be used for nothing."""
    ring().save(tmp_path / "graph.npz")
    options = ("--datasets", "chickenpox", "--graph", tmp_path / "graph.npz")
    assert run("memory", *options, "--workdir", tmp_path / "work") == 2
    assert "has 5 nodes and none of the measured data sets has as many" in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
