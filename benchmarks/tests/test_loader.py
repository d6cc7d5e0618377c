"""`measure_loader` and `pgti-bench loader`."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgti.errors import ConfigError, StoreError
from pgti.graph import SensorGraph
from pgti.run.results import to_json
from pgti.store import SeriesStore, StoreWriter
from pgti_bench.app import run_command
from pgti_bench.errors import BenchError
from pgti_bench.loader import workers as loader_workers
from pgti_bench.loader.measure import measure_loader
from pgti_bench.loader.options import LoaderOptions
from pgti_bench.loader.worker import LoaderHandlers
from pgti_bench.pgt_environment import series_bytes, write_for_pgt
from pgti_bench.worker import Worker, thread_settings

from .in_process_workers import InProcessWorker

OPTIONS = LoaderOptions(window_steps=3, batch_size=8, block_size=4, rounds=2, copied_bytes=1 << 20)
NAMES = ["index", "index, not prefetched", "index, blocks of 4", "device", "standard", "memcpy"]
WINDOW_BYTES = 4 * 3 * 5 * (2 + 1)  # reading and time of day in, reading out


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 steps of 5 sensors, a reading missing."""
    values = 50 + np.arange(500, dtype=np.float32).reshape(100, 5, 1) / 10
    values[3, 2] = np.nan
    nodes = np.arange(5)
    graph = SensorGraph.from_edges(5, nodes, (nodes + 1) % 5, nodes + 1)
    path = tmp_path_factory.mktemp("data") / "store"
    with StoreWriter(path, node_ids=tuple("abcde"), channels=("speed",), graph=graph) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-01-06T00:00"), interval_seconds=300)
    return path


@pytest.fixture
def _in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Our processes are this one."""
    monkeypatch.setattr(loader_workers, "Worker", InProcessWorker)
    InProcessWorker.started.clear()
    InProcessWorker.ended.clear()


@pytest.mark.usefixtures("_in_process")
def test_every_batching_is_measured(store: Path) -> None:
    result = measure_loader(OPTIONS, store)
    assert [each.name for each in result.loaders] == NAMES
    assert [each[0] for each in InProcessWorker.started] == NAMES
    for each in result.loaders[:-1]:
        assert each.window_bytes == WINDOW_BYTES
        assert each.windows_per_second is not None
        assert each.windows_per_second.runs == 2
        rate = WINDOW_BYTES * each.windows_per_second.median
        assert each.bytes_per_second.median == pytest.approx(rate)
        assert each.over_pgt is None
    copying = result.loaders[-1]
    assert copying.windows_per_second is None
    assert (copying.of_memcpy.minimum, copying.of_memcpy.maximum) == (1, 1)
    # 70 % of the windows, all of them: an epoch is less than 2 GiB.
    assert result.batches == -(-round(0.7 * (100 - 5)) // 8)
    assert result.store == store
    assert "make bench-pgt" in result.left_out[0]
    json.dumps(to_json(result), allow_nan=False)


@pytest.mark.usefixtures("_in_process")
def test_a_batching_that_does_not_fit_is_left_out(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgti.batching.standard.available_bytes", lambda: 10)
    result = measure_loader(OPTIONS, store)
    assert [each.name for each in result.loaders] == [name for name in NAMES if name != "standard"]
    assert result.left_out[0].startswith("standard failed: ConfigError: standard batching needs")


@pytest.mark.usefixtures("_in_process")
def test_nothing_that_can_be_measured_is_an_error(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_more: object) -> dict[str, Any]:
        raise RuntimeError("out of order")

    monkeypatch.setattr(LoaderHandlers, "prepare", fail)
    with pytest.raises(BenchError, match=r"no batching could be measured: index failed: .*order"):
        measure_loader(OPTIONS, store)


@pytest.mark.usefixtures("_in_process")
def test_a_series_is_made_and_left_where_asked(tmp_path: Path) -> None:
    options = LoaderOptions(
        shape="chickenpox",
        num_steps=90,
        window_steps=3,
        batch_size=8,
        batches=2,
        rounds=1,
        copied_bytes=1 << 20,
    )
    lines: list[str] = []
    result = measure_loader(options, workdir=tmp_path, log=lines.append)
    assert (result.num_steps, result.num_nodes, result.batches) == (90, 20, 2)
    assert result.store == tmp_path / "chickenpox-90"
    assert "simulated sensors" in lines[0]
    again = measure_loader(options, workdir=tmp_path, log=(lines := []).append)
    assert again.store == result.store
    assert lines[0] == "index: first batch"
    assert measure_loader(options).store is None


def test_batches_are_made_in_a_process_of_their_own(store: Path) -> None:
    """For real."""
    command = (sys.executable, "-m", "pgti_bench.loader.worker")
    with Worker(command, thread_settings(1), "index") as worker:
        prepared = worker.ask(
            do="prepare",
            store=str(store),
            batching="index",
            block_size=1,
            prefetch=True,
            steps=3,
            batch_size=8,
            device="cpu",
        )
        assert prepared == {"batches": 9, "batch_bytes": 8 * WINDOW_BYTES, "threads": 1}
        made = worker.ask(do="batches", count=3)
        assert (made["windows"], made["bytes"]) == (24, 24 * WINDOW_BYTES)
        assert worker.ask(do="peak")["bytes"] is None or worker.ask(do="peak")["bytes"] > 1 << 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shape": "mars"}, "shape is 'mars': it is one of chickenpox"),
        ({"num_steps": 0}, "num_steps is 0"),
        ({"window_steps": 0}, "window_steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"block_size": 1}, "block_size is 1"),
        ({"batches": 0}, "batches is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"device": "tpu"}, "device is 'tpu'"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoaderOptions(**options)


def test_a_series_without_a_window_is_refused(store: Path) -> None:
    with pytest.raises(ConfigError, match="no training window"):
        measure_loader(LoaderOptions(window_steps=80), store)
    with pytest.raises(StoreError):
        measure_loader(LoaderOptions(), store / "none")


# -- what PGT is given -------------------------------------------------------------------------


def test_pgt_reads_the_same_readings(store: Path, tmp_path: Path) -> None:
    """[T, N, F]: the reading, 0 where it is missing, and the time of day of every sensor."""
    opened = SeriesStore.open(store)
    write_for_pgt(opened, tmp_path / "pgt")
    values = np.load(tmp_path / "pgt" / "node_values.npy")
    assert values.shape == (100, 5, 2)
    assert values.dtype == np.float32
    assert values.nbytes == series_bytes(opened)
    readings = opened.read(0, 100)
    assert np.array_equal(values[..., :1], np.nan_to_num(readings))
    assert values[3, 2, 0] == 0
    assert np.allclose(values[..., 1], (np.arange(100) * 300 / 86_400)[:, None])
    matrix = np.load(tmp_path / "pgt" / "adj_mat.npy")
    assert np.array_equal(matrix, opened.graph.adjacency.toarray())
    assert (tmp_path / "pgt" / "METR-LA.zip").exists()


@pytest.mark.usefixtures("_in_process")
def test_pgt_is_left_out_where_its_copies_do_not_fit(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_workers, "available_bytes", lambda: 3 * 4 * 1000)
    result = measure_loader(OPTIONS, store, pgt=tmp_path / "python")
    assert [each.name for each in result.loaders] == NAMES
    assert [line.partition(":")[0] for line in result.left_out] == [
        "PGT",
        "PGT, freed memory retained",
    ]
    assert "holds 3 copies of the series in float32, 0.0 GiB" in result.left_out[0]
    assert result.pgt_versions is None


class Peer(InProcessWorker):
    """pgti's workers run in this process; PGT's makes batches twice as large in half a second."""

    def __init__(self, command: Sequence[str], env: Any = None, name: str = "worker") -> None:
        self._is_pgt = name.startswith("PGT")
        super().__init__(["pgti_bench.loader.worker"] if self._is_pgt else command, env, name)

    def ask(self, **request: Any) -> dict[str, Any]:
        """As PGT's process answers."""
        if not self._is_pgt:
            return super().ask(**request)
        if request["do"] == "prepare_loader":
            assert Path(request["directory"], "node_values.npy").exists()
            return {
                "batches": 9,
                "retains": request["retain_freed"],
                "versions": {"torch_geometric_temporal": "0"},
            }
        if request["do"] == "batches":
            windows = 8 * request["count"]
            return {"seconds": 0.5, "windows": windows, "bytes": 2 * WINDOW_BYTES * windows}
        return {"bytes": 1}


def test_ratios_to_pgt_are_those_of_the_rates(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader_workers, "Worker", Peer)
    result = measure_loader(OPTIONS, store, pgt=store)
    by_name = {each.name: each for each in result.loaders}
    pgt, index = by_name["PGT"], by_name["index"]
    assert pgt.windows_per_second is not None
    assert pgt.windows_per_second.median == 8 * result.batches / 0.5
    assert pgt.over_pgt is None
    assert by_name["PGT, freed memory retained"].over_pgt is not None
    assert index.over_pgt is not None
    assert index.bytes_over_pgt is not None
    assert index.windows_per_second is not None
    # Two runs: the median of the ratios is the ratio of the medians, for PGT's are all alike.
    ratio = index.windows_per_second.median / pgt.windows_per_second.median
    assert index.over_pgt.median == pytest.approx(ratio, rel=0.2)
    assert index.bytes_over_pgt.median == pytest.approx(index.over_pgt.median / 2, rel=0.2)
    assert result.pgt_versions == {"torch_geometric_temporal": "0"}
    assert result.left_out == ()


@pytest.mark.parametrize("fails_at", [1, 2, 3])
def test_a_peer_that_fails_is_left_out(
    store: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    """At its first batch, as it starts, its process ends at once; in a round it is dropped."""

    class Failing(Peer):
        made = 0

        def ask(self, **request: Any) -> dict[str, Any]:
            if self.name == "PGT" and request["do"] == "batches":
                Failing.made += 1
                if Failing.made == fails_at:
                    raise BenchError("PGT was killed")
            return super().ask(**request)

    monkeypatch.setattr(loader_workers, "Worker", Failing)
    InProcessWorker.ended.clear()
    result = measure_loader(OPTIONS, store, pgt=store)
    assert [each.name for each in result.loaders] == [
        *NAMES[:-1],
        "PGT, freed memory retained",
        "memcpy",
    ]
    assert result.left_out == ("PGT was killed",)
    assert result.loaders[0].over_pgt is None
    assert (InProcessWorker.ended[0] == ("PGT", True)) == (fails_at == 1)
    assert sorted(name for name, _ in InProcessWorker.ended) == sorted(
        [*NAMES, "PGT", "PGT, freed memory retained"]
    )


@pytest.mark.usefixtures("_in_process")
def test_batchings_that_fail_in_the_rounds_are_left_out(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of several is; if none remains, that is an error."""
    batches = LoaderHandlers.batches
    broken: list[str] = []

    def fail(self: LoaderHandlers, count: int) -> Any:
        if not broken or self is broken[0]:
            broken[:] = [self]  # type: ignore[list-item]
            raise RuntimeError("out of order")
        return batches(self, count=count)

    monkeypatch.setattr(LoaderHandlers, "batches", fail)
    result = measure_loader(OPTIONS, store)
    assert [each.name for each in result.loaders] == NAMES[1:]
    assert "index failed: RuntimeError: out of order" in result.left_out

    def fail_all(_self: LoaderHandlers, count: int) -> Any:
        raise RuntimeError(f"no {count} batches")

    monkeypatch.setattr(LoaderHandlers, "batches", fail_all)
    with pytest.raises(BenchError, match="no batching could be measured: index failed"):
        measure_loader(OPTIONS, store)


# -- the command line --------------------------------------------------------------------------


@pytest.mark.usefixtures("_in_process")
@pytest.mark.usefixtures("_both_forms")
def test_bench_loader_prints_a_table_and_json(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # no .venv-pgt here
    sizes = ("--window-steps", 3, "--batch-size", 8, "--block-size", 4, "--rounds", 1)
    plot = tmp_path / "plot.html"
    assert run("loader", "--store", store, *sizes, "--plot", plot, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert [each["name"] for each in result["loaders"]] == NAMES
    assert "Making batches: 100 steps x 5 sensors (int16)" in captured.out
    assert "left out: PGT: .venv-pgt/bin/python does not exist" in captured.err
    assert "Windows per second" in plot.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("shape is 'mars'", ("--shape", "mars")),
        ("pass one or the other", ("--store", "s", "--shape", "pems")),
        ("pass one or the other", ("--store", "s", "--workdir", ".")),
        ("block_size is 0", ("--block-size", "0")),
        ("which is not a file", ("--pgt", "nowhere/python")),
        ("no training window", ("--num-steps", "20")),
    ],
)
def test_bench_loader_refuses(
    message: str,
    tokens: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("loader", *tokens, "--plot", tmp_path / "plot.html", "--json") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.strip().splitlines()[-1]
    assert list(tmp_path.iterdir()) == []
