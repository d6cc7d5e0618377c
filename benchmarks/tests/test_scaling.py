"""`pgti-bench scaling`: measured where it can be, modelled where it says so."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.cli.main import run_command as run_pgti
from pgti.errors import ConfigError
from pgti.run.results import to_json
from pgti.store import SeriesStore
from pgti.windows import GlobalShuffle
from pgti_bench.app import run_command
from pgti_bench.errors import BenchError
from pgti_bench.scaling import measure as scaling_measure
from pgti_bench.scaling.measure import measure_scaling
from pgti_bench.scaling.measurements import Compute, Fetches, Measurements, Round
from pgti_bench.scaling.model import DaskCosts, SystemParts, exchanged_bytes
from pgti_bench.scaling.network import Timing
from pgti_bench.scaling.options import SYSTEMS, ScalingOptions
from pgti_bench.scaling.plot import MEASURED_COLORS, MODELLED_COLORS
from pgti_bench.scaling.runner import ScalingRunner
from pgti_bench.scaling.workers import RankWorkers

SENT = {"data": 0, "gradients": 3000, "counts": 24, "metrics": 0, "control": 96}
TINY = ("--batch-size", 8, "--hidden", 2, "--rounds", 1, "--steps", 2)


@pytest.fixture(name="store", scope="module")
def _store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 4 sensors and 300 steps: 194 training windows."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run_pgti(["simulate", "--sensors", "4", "--steps", "300", "--out", str(path)]) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


class FakeRunner:
    """Stands in for `ScalingRunner`: every figure is known, and nothing is started."""

    def __init__(
        self,
        options: ScalingOptions,
        store: SeriesStore,
        windows: Path,
        cores: int,
        log: Callable[[str], None],
    ) -> None:
        self._options = options
        self.measurements = Measurements(
            systems={
                name: SystemParts(prefetched=True, host_seconds=0.01, assemble_seconds=0.0)
                for name in options.systems
            },
            compute={ranks: Compute(cpu_seconds=[0.5], seconds=0.5) for ranks in options.ranks},
            gradient_bytes=1000,
            message_bytes=32,
            startup_seconds={
                (name, ranks): 3.0 + 10 * (name == "dask")
                for name in options.systems
                for ranks in options.ranks
            },
            parameters=250,
        )
        if "dask" in options.systems:
            self.measurements.dask = DaskCosts(
                calls=2,
                call_seconds=0.1,
                bytes_per_second=1e9,
                scheduler_seconds=0.02,
                busy_seconds=0.2,
                batch_bytes=1000,
            )
            self.measurements.fetches.append(
                Fetches(ranks=4, batch_bytes=1000, seconds=0.1, scheduler_seconds=0.01)
            )

    def measure(self, world_size: int) -> None:
        """A step takes half a second, and a tenth more for each other rank."""
        seconds = 0.4 + 0.1 * world_size
        for system in self._options.systems:
            self.measurements.rounds[system, world_size] = [
                Round(step=seconds, fetch=0.1, compute=0.3, communication=0.1, sent_bytes=SENT)
                for _ in range(self._options.rounds)
            ]
        if world_size > 1:
            self.measurements.timings.append(Timing(ranks=world_size, num_bytes=8, seconds=2e-3))


@pytest.mark.usefixtures("_both_forms")
@pytest.mark.slow
def test_the_command_measures_ranks(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three systems, one and two real ranks."""
    systems, page = "ddp,replicated,partitioned-global", tmp_path / "scaling.html"
    options = ("--systems", systems, "--ranks", "2,1", "--store", store, *TINY)
    assert run("scaling", *options, "--plot", page, "--json") == 0
    captured = capsys.readouterr()
    result: dict[str, Any] = json.loads(captured.out.strip().splitlines()[-1])
    names = [(each["system"], each["ranks"]) for each in result["measured"]]
    assert names == [(name, ranks) for name in systems.split(",") for ranks in (1, 2)]
    for each in result["measured"]:
        parts = ("fetch", "compute", "communication")
        # One rank sends nothing, and ddp sums gradients during the backward pass.
        communicates = each["ranks"] > 1 and each["system"] != "ddp"
        for part in parts if communicates else parts[:2]:
            assert each[f"{part}_seconds"]["minimum"] > 0
        assert each["model_error"] == pytest.approx(
            each["modelled"]["step"] / each["step_seconds"]["median"] - 1
        )
    alone, both = result["measured"][4:]
    assert not any(alone["sent_bytes"].values())
    assert both["sent_bytes"]["gradients"] == 4 * result["parameters"]
    assert both["sent_bytes"]["counts"] == result["parts"]["message_bytes"]
    assert both["sent_bytes"]["control"] == 0
    assert result["parts"]["loopback"]["alpha_seconds"] > 0
    assert {each["ranks"] for each in result["predictions"]} == {8, 16, 32, 64, 128}
    assert "modelled, not measured" in captured.out
    assert "partitioned-global, measured" in page.read_text()
    # Rows are sent two batches ahead: the steps that were counted sent those of batches 3 and 4.
    opened = SeriesStore.open(store)
    expected = sum(
        exchanged_bytes(GlobalShuffle(0), range(194), 24, 2, 8, opened.raw[0].nbytes, step=step)[
            0
        ].sum()
        for step in (3, 4)
    )
    assert 2 * both["sent_bytes"]["data"] == expected
    assert (
        both["exchange_bytes"]
        == exchanged_bytes(GlobalShuffle(0), range(194), 24, 2, 8, opened.raw[0].nbytes).sum()
    )


@pytest.mark.slow  # starts Dask's workers twice
def test_dask_is_measured(store: Path) -> None:
    """With workers of its own; the bytes of a batch are those of float64 windows."""
    pytest.importorskip("distributed")
    options = ScalingOptions(
        systems=("dask", "replicated"), ranks=(1, 2), rounds=1, batch_size=8, steps=2, hidden=2
    )
    result = measure_scaling(options, store)
    assert [each.ranks for each in result.measured if each.system == "dask"] == [1, 2]
    assert result.left_out == ()
    assert result.materialized_bytes["dask"] == 194 * 24 * 4 * 2 * 8
    assert result.parts.dask is not None
    assert result.parts.dask.batch_bytes == 8 * 24 * 4 * 2 * 8
    assert 0 < result.parts.dask.scheduler_seconds < 1
    assert [each.ranks for each in result.dask_fetches] == [1, 2]
    for each in result.dask_fetches:
        assert each.batch_bytes == 8 * 24 * 4 * 2 * 8
        assert 0 < each.scheduler_seconds < each.seconds
    starts = {(each.system, each.ranks): each.startup_seconds for each in result.measured}
    assert all(starts["dask", ranks] > starts["replicated", ranks] > 0 for ranks in (1, 2))
    ratio = result.ratios[0].over_replicated
    assert ratio["dask"] > ratio["replicated"] == 1


@pytest.mark.gpu
def test_a_gpu_is_measured(store: Path) -> None:
    """Over NCCL where there are two; batches of every system arrive on the GPU."""
    if not torch.cuda.is_available():
        pytest.skip("this machine has no GPU")
    ranks = (1, 2) if torch.cuda.device_count() > 1 else (1,)
    systems = tuple(name for name in SYSTEMS if name != "dask")
    options = ScalingOptions(
        systems=systems, device="cuda", ranks=ranks, rounds=1, batch_size=8, steps=2, hidden=2
    )
    result = measure_scaling(options, store)
    assert [(each.system, each.ranks) for each in result.measured] == [
        (name, number) for name in systems for number in ranks
    ]
    assert result.parts.cores is None


def test_a_rank_that_fails_says_why(store: Path, tmp_path: Path) -> None:
    with RankWorkers(1) as crew:
        crew.ask(do="prepare", store=str(store), window_steps=12, batch_size=8, hidden=2, seed=0)
        with pytest.raises(BenchError, match=r"rank 0 of 1 failed: FileNotFoundError.*x\.npy"):
            crew.ask(do="build", system="windows", place=str(tmp_path))


def test_what_is_reported_follows_from_what_was_found(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs, windows a second, errors, ratios: by hand from made-up steps."""
    monkeypatch.setattr(scaling_measure, "ScalingRunner", FakeRunner)
    monkeypatch.setattr(scaling_measure, "check_dask", lambda: None)
    options = ScalingOptions(batch_size=8, ranks=(1, 2), steps=1, epoch_windows=1600)
    result = measure_scaling(options, store)
    one, two = result.measured[:2]
    assert (one.system, one.ranks, two.ranks) == ("dask", 1, 2)
    assert two.step_seconds.median == pytest.approx(0.6)
    assert two.windows_per_second == pytest.approx(2 * 8 / 0.6)
    assert two.epoch_seconds == pytest.approx(100 * 0.6)
    assert two.sent_bytes["gradients"] == 3000
    assert one.modelled.step == pytest.approx(0.5)  # prefetched here, so fetching is hidden
    assert one.model_error == pytest.approx(0.0)
    assert two.model_error == pytest.approx(two.modelled.step / 0.6 - 1)
    slingshot = [each for each in result.ratios if "Slingshot" in each.network]
    as_measured, faster = slingshot
    # 128 ranks, 2 calls, 10 ms each where four call at once: 2.56 s for the scheduler.
    assert as_measured.over_replicated["dask"] == pytest.approx(2.56 / 0.5, rel=1e-3)
    assert as_measured.over_replicated["windows"] == pytest.approx(1.0)
    # A run is its start-up and 30 epochs of 2 steps, 1,600 windows in batches of 8 x 128.
    assert two.startup_seconds == 13
    assert two.run_seconds == pytest.approx(13 + 30 * two.epoch_seconds)
    runs = as_measured.runs_over_replicated
    assert runs is not None
    assert runs["dask"] == pytest.approx((13 + 60 * 2.56) / (3 + 60 * 0.5), rel=1e-3)
    assert faster.runs_over_replicated is None
    # Four ranks, 2 calls of 20 ms each, one after the other in the scheduler; 200 ms alone.
    (fetch,) = result.dask_fetches
    assert (fetch.ranks, fetch.seconds, fetch.scheduler_seconds) == (4, 0.1, 0.01)
    assert fetch.modelled_seconds == pytest.approx(0.2, rel=1e-4)
    assert fetch.model_error == pytest.approx(1.0, rel=1e-4)
    assert faster.over_replicated["dask"] == pytest.approx(2.56 / 0.05, rel=1e-2)
    assert json.dumps(to_json(result), allow_nan=False)


def test_measured_and_modelled_never_share_a_color(
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Not in the plot, and every line of the model's says that it is one."""
    monkeypatch.setattr(scaling_measure, "ScalingRunner", FakeRunner)
    monkeypatch.setattr(scaling_measure, "check_dask", lambda: None)
    assert not set(MEASURED_COLORS) & set(MODELLED_COLORS)
    assert len(SYSTEMS) == len(MEASURED_COLORS) == len(MODELLED_COLORS)
    page = tmp_path / "scaling.html"
    options = ("--store", store, "--ranks", "1,2,32", "--batch-size", 2, "--steps", 1)
    assert run("scaling", *options, "--plot", page) == 0
    text = page.read_text()
    for color in (*MEASURED_COLORS, *MODELLED_COLORS):
        assert color in text
    for words in ("ideal", "the paper, one A100", "the paper, whole runs"):
        assert words in text
    shown, error = capsys.readouterr()
    ratios = [line for line in error.splitlines() if "step time over replicated" in line]
    assert len(ratios) == 6
    assert all(line.startswith("pgti: modelled, ") for line in ratios)
    assert "the paper measured a ratio of 11.78 (13.1 in its first version)" in error
    assert "32 ranks share" in error
    assert "32*" in shown


def test_without_dask_the_rest_is_measured(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is left out is said; with nothing but Dask asked for it is an error."""
    monkeypatch.setattr(scaling_measure, "ScalingRunner", FakeRunner)
    monkeypatch.setitem(sys.modules, "distributed", None)
    options = ("--store", store, "--batch-size", 8, "--ranks", "1", "--steps", 2)
    assert run("scaling", *options, "--json") == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out.strip().splitlines()[-1])
    assert {each["system"] for each in result["measured"]} == set(SYSTEMS) - {"dask"}
    assert "left out: dask: dask is not installed" in captured.err
    assert "the paper measured" not in captured.err
    assert run("scaling", *options, "--systems", "dask") == 2
    assert "pip install 'pgti-bench[dask]'" in capsys.readouterr().err


class FakeRanks:
    """Two ranks whose replies are known."""

    world_size = 2

    def __init__(self, *replies: dict[str, Any]) -> None:
        self._replies = replies

    def ask(self, **request: object) -> list[dict[str, Any]]:
        """Their replies."""
        same = {"communication": [0.0, 0.0], "sent_bytes": SENT, "parameters_sum": 1.0}
        return [{**same, **reply} for reply in self._replies]


def sessions_of(store: Path) -> ScalingRunner:
    options = ScalingOptions(ranks=(1, 2), steps=1, rounds=1)
    return ScalingRunner(options, SeriesStore.open(store), Path(), 2, lambda _: None)


def test_ranks_that_end_differently_are_no_measurement(store: Path) -> None:
    """Training together leaves the same parameters everywhere, or something is broken."""
    times = {"fetch": [1.0, 1.0], "compute": [1.0, 1.0]}
    crew: Any = FakeRanks(times, {**times, "parameters_sum": 1.5})
    with pytest.raises(BenchError, match="replicated: the ranks' parameters differ"):
        sessions_of(store)._round(crew, "replicated")


def test_a_step_is_as_slow_as_its_slowest_rank(store: Path) -> None:
    """Its parts are those of that rank."""
    crew: Any = FakeRanks(
        {"fetch": [0.0, 5.0], "compute": [1.0, 1.0]}, {"fetch": [0.0, 0.0], "compute": [3.0, 1.0]}
    )
    sessions = sessions_of(store)
    assert sessions._round(crew, "replicated") == np.median([3.0, 6.0])
    (found,) = sessions.measurements.rounds["replicated", 2]
    assert (found.fetch, found.compute) == (2.5, 2.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--systems", "fast"), "there is no system 'fast'"),
        (("--systems", ""), "there is no system ''"),
        (("--ranks", "2,4"), "ranks is 2,4: 1 must be among them"),
        (("--ranks", "1,two"), "two"),
        (("--ranks", "0,1"), "ranks is 0"),
        (("--ranks", ""), "ranks"),
        (("--rounds", "0"), "rounds is 0"),
        (("--epochs", "0"), "epochs is 0"),
        (("--device", "cuda"), "device is 'cuda' and this machine has no usable GPU"),
        (("--batch-size", "0"), "batch-size is 0"),
        (("--steps", "0"), "steps is 0"),
        (("--hidden", "-3"), "hidden is -3"),
        (("--steps", "99"), "take 6,400 windows, and the series has 194"),
        (("--plot", "/nowhere/page.html"), "there is no directory /nowhere"),
        (("--store", "/nowhere"), "/nowhere"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else None,
)
def test_refusals(
    store: Path, options: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line and exit code 2, before a process is started."""
    given = options if "--store" in options else ("--store", store, *options)
    assert run("scaling", *given) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert message in error[0]


def test_options_check_themselves() -> None:
    with pytest.raises(ConfigError, match="num-steps is 0"):
        ScalingOptions(num_steps=0)
    with pytest.raises(ConfigError, match="no system 'slow'"):
        ScalingOptions(systems=("slow",))
