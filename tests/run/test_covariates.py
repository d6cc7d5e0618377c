"""Runs of series with channels known in advance and features of the sensors."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import pgti
from pgti.batching import WindowConfig
from pgti.cli.main import run_command
from pgti.errors import ConfigError, DataError, RunError
from pgti.ingestion import append, ingest
from pgti.models import ModelShape
from pgti.run import ModelConfig, Run, RunConfig, train_run
from pgti.store import SeriesStore
from pgti.training import TrainingConfig

STEPS, LATER = 60, 3
INPUTS, HORIZON = 3, 2


class Reader(nn.Module):
    """Forecasts what the sum of its parts says: rain to come, lanes, the newest reading."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        assert (shape.future_channels, shape.static_channels) == (1, 3)
        assert shape.static_categories == (2,)
        self.rain = nn.Linear(shape.future_channels, shape.target_channels)
        self.sensor = nn.Linear(shape.static_channels, shape.target_channels)
        self.kind = nn.Embedding(1 + shape.static_categories[0], shape.target_channels)

    def forward(self, x: Tensor, future: Tensor, static: Tensor, static_codes: Tensor) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, C_out]."""
        sensors = self.sensor(static) + self.kind(static_codes[:, 0])
        forecast: Tensor = x[:, -1:, :, :1] + self.rain(future) + sensors
        return forecast


class Ignoring(nn.Module):
    """Reads the past alone."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.horizon = shape.horizon

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, N, C_in] -> [B, H, N, 1]."""
        return self.scale * x[:, -1:, :, :1].expand(-1, self.horizon, -1, -1)


def readings(steps: int = STEPS + LATER) -> np.ndarray:
    random = np.random.default_rng(4)
    values = random.integers(0, 900, (steps, 3, 2)) / 10
    values[STEPS:, :, 0] = np.nan
    return values


def table(values: np.ndarray, path: Path, first: int = 0) -> Path:
    times = pd.date_range("2025-03-01", periods=len(values), freq="h")
    frame = pd.DataFrame(
        {
            "time": np.repeat(times, 3),
            "sensor": ["a", "b", "c"] * len(values),
            "flow": values[..., 0].ravel(),
            "rain": values[..., 1].ravel(),
        }
    )
    frame.iloc[3 * first :].to_csv(path, index=False)
    return path


def make_store(tmp_path: Path, values: np.ndarray, name: str = "s") -> SeriesStore:
    stations = pd.DataFrame({"id": ["a", "b", "c"], "lanes": [2.5, 3, 4], "kind": ["x", "y", "x"]})
    path = table(values, tmp_path / f"{name}.csv")
    return ingest(path, tmp_path / name, known_future=("rain",), static=stations)


def train(
    tmp_path: Path,
    store: SeriesStore,
    model: type | str = Reader,
    epochs: int = 2,
    resume: bool = False,
    log: Callable[[str], None] = lambda _: None,
    **windows: Any,
) -> Run:
    is_own = isinstance(model, type)
    config = RunConfig(
        store=store.path.absolute(),
        windows=WindowConfig(input_steps=INPUTS, horizon=HORIZON, **windows),
        model=ModelConfig(name="custom") if is_own else ModelConfig(name=model),
        training=TrainingConfig(epochs=epochs, batch_size=16, seed=3, allow_no_edges=True),
        device="cpu",
    )
    factory = model if is_own else None
    run, _ = train_run(config, tmp_path / "run", store=store, model=factory, resume=resume, log=log)
    return run


def by_hand(run: Run, values: np.ndarray, last: int, rain: np.ndarray) -> np.ndarray:
    """The forecast from row `last` with these values of rain to come [H, N], in NumPy."""
    network = run.forecaster.network
    scaler, static = run.source.scaler, run.source.static_inputs(torch.device("cpu"))
    assert static is not None
    newest = (values[last, :, 0] - scaler.mean[0]) / scaler.std[0]
    future = (rain - scaler.mean[1]) / scaler.std[1]
    weights = {name: each.detach().double().numpy() for name, each in network.named_parameters()}
    sensors = static.values.double().numpy() @ weights["sensor.weight"].T + weights["sensor.bias"]
    sensors += weights["kind.weight"][static.codes[:, 0].numpy()]
    scaled = newest + future * weights["rain.weight"][0, 0] + weights["rain.bias"] + sensors[:, 0]
    return scaled * scaler.std[0] + scaler.mean[0]


def forecast_of(frame: pd.DataFrame) -> np.ndarray:
    return frame["forecast"].to_numpy().reshape(HORIZON, 3)


def test_a_network_reads_what_is_known_past_the_end(tmp_path: Path) -> None:
    values = readings()
    run = train(tmp_path, make_store(tmp_path, values))
    assert run.source.target_names == ("flow",)
    expected = by_hand(run, values, STEPS - 1, values[STEPS : STEPS + HORIZON, :, 1])
    np.testing.assert_allclose(forecast_of(run.forecast()), expected, rtol=1e-4)
    revised = values.copy()
    revised[STEPS:, :, 1] += 30
    store = append(run.store, table(revised, tmp_path / "revised.csv", STEPS - 2))
    assert store.meta.num_steps == STEPS
    opened = Run.open(tmp_path / "run", model=Reader)
    expected = by_hand(run, values, STEPS - 1, revised[STEPS : STEPS + HORIZON, :, 1])
    np.testing.assert_allclose(forecast_of(opened.forecast()), expected, rtol=1e-4)


def test_missing_rows_are_refused_and_given(tmp_path: Path) -> None:
    values = readings()
    run = train(tmp_path, make_store(tmp_path, values[:STEPS]))
    with pytest.raises(
        ConfigError, match=r"reads rain at .* 2 rows after .* has 0: give them with"
    ):
        run.forecast()
    path = table(values, tmp_path / "later.csv", STEPS - 5)
    frame = run.forecast(future=path)
    expected = by_hand(run, values, STEPS - 1, values[STEPS : STEPS + HORIZON, :, 1])
    np.testing.assert_allclose(forecast_of(frame), expected, rtol=1e-4)
    assert any("later.csv has 5 rows that are not after" in n for n in frame.attrs["notes"])
    with pytest.raises(ConfigError, match="belong to the forecast past the end"):
        run.forecast(split="test", future=path)
    run.forecast(split="test")


def test_missing_values_to_come_are_filled_and_said(tmp_path: Path) -> None:
    values = readings()
    values[STEPS + 1, 1, 1] = values[STEPS + 2, :, 1] = np.nan  # the last row is beyond the horizon
    run = train(tmp_path, make_store(tmp_path, values))
    frame = run.forecast()
    note = "1 value is missing of rain at the steps to forecast: filled as inputs"
    assert note in frame.attrs["notes"]
    assert frame["forecast"].notna().all()
    assert note not in run.forecast(split="test").attrs["notes"]


def test_newer_readings_bring_their_own(tmp_path: Path) -> None:
    """From a file that goes on, from a file beside it, from a store; the run stands alone."""
    values = readings()
    run = train(tmp_path, make_store(tmp_path, values[: STEPS - 10]))
    expected = by_hand(run, values, STEPS - 1, values[STEPS : STEPS + HORIZON, :, 1])
    whole = table(values, tmp_path / "whole.csv", STEPS - 6)
    past = table(values[:STEPS], tmp_path / "past.csv", STEPS - 6)
    later = table(values, tmp_path / "later.csv", STEPS)
    other = ingest(
        values[:, ::-1],
        tmp_path / "other",
        channels=("flow", "rain"),
        node_ids=("c", "b", "a"),
        known_future=("rain",),
        start="2025-03-01",
        interval="1h",
    )
    shutil.rmtree(tmp_path / "s")
    alone = Run.open(tmp_path / "run", model=Reader)
    for source, future in ((whole, None), (past, later), (other, None)):
        frame = alone.forecast(source, future=future)
        np.testing.assert_allclose(forecast_of(frame), expected, rtol=1e-4)
    with pytest.raises(ConfigError, match="has 0: give them"):
        alone.forecast(past)
    (tmp_path / "run" / "data" / "static.npz").unlink()
    with pytest.raises(RunError, match=r"static\.npz"):
        Run.open(tmp_path / "run", model=Reader)


def test_values_to_come_are_found_by_name(tmp_path: Path) -> None:
    """In a store with more channels known in advance, and in an array whose channels are named."""
    values = readings()
    run = train(tmp_path, make_store(tmp_path, values[:STEPS]))
    expected = by_hand(run, values, STEPS - 1, values[STEPS : STEPS + HORIZON, :, 1])
    other = ingest(
        np.concatenate([values, values[..., 1:] + 9], axis=2),
        tmp_path / "other",
        channels=("flow", "rain", "wind"),
        node_ids=("a", "b", "c"),
        known_future=("wind", "rain"),
        start="2025-03-01",
        interval="1h",
    )
    np.testing.assert_allclose(forecast_of(run.forecast(other)), expected, rtol=1e-4)
    named = run.forecast(future=values[STEPS:, :, 1:], options={"channels": ("rain",)})
    np.testing.assert_allclose(forecast_of(named), expected, rtol=1e-4)
    with pytest.raises(DataError, match="has no value of rain after the last row"):
        run.forecast(future=table(values[:9], tmp_path / "early.csv"))


def test_networks_that_read_the_past_need_nothing(tmp_path: Path) -> None:
    values = readings()
    run = train(tmp_path, make_store(tmp_path, values[:STEPS]), Ignoring, covariates=False)
    assert len(run.forecast()) == HORIZON * 3


def test_a_model_of_pgti_reads_them_too(tmp_path: Path) -> None:
    """Trained, stopped, resumed, opened; a forecast past the end asks for what it reads."""
    values = readings()
    store = make_store(tmp_path, values[:STEPS])
    for name in ("whole", "run"):
        (tmp_path / name).mkdir()
    whole = train(tmp_path / "whole", store, "gru", epochs=3)
    train(tmp_path / "run", store, "gru", epochs=2)
    run = train(tmp_path / "run", store, "gru", epochs=3, resume=True)
    for one, two in zip(parameters(whole), parameters(run), strict=True):
        assert torch.equal(one, two)
    (head,) = run.forecaster.heads
    assert head is not None
    assert head.reads == ("calendar", "future", "static")
    assert head.last.weight.any()
    opened = Run.open(tmp_path / "run" / "run")
    with pytest.raises(ConfigError, match=r"reads rain at .* has 0: give them with"):
        opened.forecast()
    later = table(values, tmp_path / "later.csv", STEPS)
    values[STEPS:, :, 1] += 30
    revised = table(values, tmp_path / "revised.csv", STEPS)
    one, two = (opened.forecast(future=each)["forecast"] for each in (later, revised))
    assert (one != two).any()
    np.testing.assert_array_equal(one, run.forecast(future=later)["forecast"])


def test_they_may_be_left_out(tmp_path: Path) -> None:
    """Then a run is that of a store without them, as those of earlier versions are."""
    values = readings(STEPS)
    plain = ingest(table(values, tmp_path / "p.csv"), tmp_path / "p")
    (tmp_path / "p-run").mkdir()
    runs = [
        train(tmp_path, make_store(tmp_path, values), "gru", covariates=False),
        train(tmp_path / "p-run", plain, "gru", targets=("flow",)),
    ]
    for one, two in zip(*map(parameters, runs), strict=True):
        assert torch.equal(one, two)
    assert not runs[0].forecaster.reads & {"future", "static"}
    assert len(runs[0].forecast()) == HORIZON * 3
    path = tmp_path / "run" / "config.toml"
    earlier = path.read_text().replace("covariates = false\n", "")
    assert earlier != path.read_text()
    path.write_text(earlier)
    assert Run.open(tmp_path / "run").forecaster.heads == ()


class Half(Ignoring):
    """Reads the features of the sensors, and not what is known in advance."""

    def forward(self, x: Tensor, static_codes: Tensor) -> Tensor:  # type: ignore[override]
        """[B, L, N, C_in] -> [B, H, N, 1]."""
        return super().forward(x) + 0 * static_codes.sum()


@pytest.mark.parametrize(
    ("model", "windows", "message"),
    [
        (
            "linear",
            {"observed_mask": True, "climatology": True},
            "the model linear sees the past of its targets alone, and does not see "
            "windows.observed_mask, windows.climatology: leave that out",
        ),
        (
            "st-balance",
            {"calendar": ("time-of-day", "day-of-year"), "covariates": False},
            "st-balance has vectors of time-of-day and day-of-week alone, and does not see "
            "day-of-year: leave that out",
        ),
        (Half, {}, "the network custom does not name future in its forward, and does not see rain"),
    ],
)
def test_what_a_model_does_not_see_is_said(
    model: type | str, windows: dict[str, Any], message: str, tmp_path: Path
) -> None:
    lines: list[str] = []
    store = make_store(tmp_path, readings(STEPS))
    train(tmp_path, store, model, 1, log=lines.append, **windows)
    assert (
        [line for line in lines if "not see" in line]
        == [line for line in lines if message in line]
        != []
    )


def parameters(run: Run) -> list[torch.Tensor]:
    return list(run.forecaster.network.parameters())


def test_training_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    store = make_store(tmp_path, readings())
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole = train(tmp_path / "one", store, epochs=3)
    train(tmp_path / "two", store, epochs=2)
    resumed = train(tmp_path / "two", store, epochs=3, resume=True)
    for one, two in zip(
        whole.forecaster.network.parameters(), resumed.forecaster.network.parameters(), strict=True
    ):
        assert torch.equal(one, two)


def test_a_run_remembers_its_holidays(tmp_path: Path) -> None:
    """Stopped and opened again; the network sees them as the last input channels."""
    store = make_store(tmp_path, readings())
    config = RunConfig(
        store=store.path.absolute(),
        windows=WindowConfig(input_steps=INPUTS, horizon=HORIZON, holidays=("IT",)),
        model=ModelConfig(name="linear"),
        training=TrainingConfig(epochs=1, batch_size=16, seed=3),
        device="cpu",
    )
    run, _ = train_run(config, tmp_path / "run", store=store)
    opened = Run.open(tmp_path / "run")
    assert opened.source.calendar == run.source.calendar == ("time-of-day", "holiday:IT")
    np.testing.assert_array_equal(opened.forecast()["forecast"], run.forecast()["forecast"])


def test_a_warm_start_needs_covariates_of_the_same_meaning(tmp_path: Path) -> None:
    """Sizes agree, so that weights would fit: of another channel, and of other categories."""
    values = np.concatenate([readings(STEPS), readings(STEPS)[..., 1:] + 5], axis=2)

    def store_of(name: str, known: str, kinds: list[str]) -> SeriesStore:
        return ingest(
            values,
            tmp_path / name,
            channels=("flow", "rain", "wind"),
            node_ids=("a", "b", "c"),
            start="2025-03-01",
            interval="1h",
            known_future=(known,),
            static=pd.DataFrame({"id": ["a", "b", "c"], "lanes": [2.5, 3, 4], "kind": kinds}),
        )

    options = {"windows": {"input_steps": INPUTS, "horizon": HORIZON, "targets": ("flow",)}}
    options |= {"training": TrainingConfig(epochs=1, batch_size=16), "model": Reader}
    first = store_of("first", "rain", ["x", "y", "x"])
    run = pgti.train(first, tmp_path / "run", **options)
    for name, known, kinds, message in (
        ("wind", "wind", ["x", "y", "x"], r"channels known in advance \(rain\).* \(wind\)"),
        ("kinds", "rain", ["y", "z", "y"], r"of the sensors \(lanes, kind: x/y\).*kind: y/z\)"),
    ):
        store = store_of(name, known, kinds)
        with pytest.raises(RunError, match=message):
            pgti.train(store, tmp_path / "refused", init_from=run, **options)
    like = store_of("like", "rain", ["y", "y", "x"])
    pgti.train(like, tmp_path / "warm", init_from=run, **options)
    seen = {**options["windows"], "inputs": ("flow", "rain")}
    options["model"] = Ignoring
    some = pgti.train(first, tmp_path / "some", **{**options, "windows": seen})
    others = {**options, "windows": {**seen, "inputs": ("flow", "wind")}}
    with pytest.raises(
        RunError, match=r"inputs \('flow', 'rain'\) and the new one \('flow', 'wind"
    ):
        pgti.train(first, tmp_path / "refused", init_from=some, **others)


def test_a_warm_start_standardises_features_as_the_run_did(tmp_path: Path) -> None:
    """Five lanes mean the same on another road, also once the new run is opened or resumed."""
    values = readings(STEPS)

    def store_of(name: str, lanes: list[float]) -> SeriesStore:
        static = pd.DataFrame({"id": ["a", "b", "c"], "lanes": lanes, "kind": ["x", "y", "x"]})
        return ingest(table(values, tmp_path / "r.csv"), tmp_path / name,
                      known_future=("rain",), static=static)  # fmt: skip

    options: dict[str, Any] = {"windows": {"input_steps": INPUTS, "horizon": HORIZON},
                               "epochs": 1, "model": "linear", "progress": False}  # fmt: skip
    first, second = store_of("first", [2, 3, 4]), store_of("second", [4, 5, 6])
    run = pgti.train(first, tmp_path / "run", **options)
    del options["windows"], options["model"]
    warm = pgti.train(second, tmp_path / "warm", init_from=run, **options)
    refitted = pgti.train(second, tmp_path / "re", init_from=run, refit_scaler=True, **options)

    def lanes_of(run: Run) -> list[float]:
        inputs = run.source.static_inputs(torch.device("cpu"))
        assert inputs is not None
        return (inputs.values[:, 0] * np.sqrt(2 / 3)).tolist()

    for each in (warm, Run.open(tmp_path / "warm"), pgti.train(
        second, tmp_path / "warm", resume=True, epochs=2, progress=False
    )):  # fmt: skip
        assert lanes_of(each) == pytest.approx([1, 2, 3])
    assert lanes_of(run) == lanes_of(refitted) == pytest.approx([-1, 0, 1])
    bare = ingest(values, tmp_path / "bare", channels=("flow", "rain"), node_ids=("a", "b", "c"),
                  start="2025-03-01", interval="1h")  # fmt: skip
    windows = {"input_steps": INPUTS, "horizon": HORIZON, "targets": ("flow",)}
    start = pgti.train(bare, tmp_path / "bare-run", windows=windows, model="linear", epochs=1,
                       progress=False)  # fmt: skip
    assert start.forecaster.heads == ()
    with pytest.raises(RunError, match=r"\(none\).*\(rain\).*or leave .*windows.covariates=False"):
        pgti.train(first, tmp_path / "refused", init_from=start, **options)
    without = {"windows": {"covariates": False}}
    pgti.train(first, tmp_path / "without", init_from=start, **options, **without)
    with pytest.raises(RunError, match=r"do not fit \(windows\.covariates False .*True here\)"):
        pgti.train(
            first, tmp_path / "refused", init_from=tmp_path / "without",
            **{**options, "windows": {"covariates": True}},
        )  # fmt: skip


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = readings()
    path = table(values[:STEPS], tmp_path / "r.csv")
    later = table(values, tmp_path / "f.csv", STEPS)
    (tmp_path / "stations.csv").write_text("id,lanes,kind\na,2.5,x\nb,3,y\nc,4,x\n")
    store = str(tmp_path / "s")
    created = ["ingest", str(path), "--out", store, "--known-future", "rain"]
    assert run_command([*created, "--static", str(tmp_path / "stations.csv")]) == 0
    assert run_command(["append", store, "--future", str(later)]) == 0
    capsys.readouterr()
    assert run_command(["info", store]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "rain; 3 rows after the last reading, until 2025-03-03 14:00:00" in shown
    assert "lanes, kind (2 categories)" in shown
    assert run_command(["append", store]) == 2
    assert "give a file of readings, or --future" in " ".join(capsys.readouterr().err.split())
