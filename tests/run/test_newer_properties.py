"""However newer readings come, forecasts equal those of the clean input wherever they must."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgti
from pgti import SensorGraph
from pgti.run import Run

IDS = ("n7", "12", "003", "x y")
CHANNELS = ("flow", "speed")
SCALE = {"flow": 1.0, "speed": 0.1}
ZONE = "Europe/Berlin"
CLOCKS = (ZONE, "UTC", "America/Los_Angeles", "Asia/Kolkata")
ROAD = SensorGraph.from_edges(4, np.array([0, 1, 2]), np.array([1, 2, 3]))
WINDOWS = {"input_steps": 4, "horizon": 2}
MODELS: dict[str, dict[str, Any]] = {
    "gru": {"hidden": 4},
    "stid": {},
    "dcrnn": {"hidden": 2, "layers": 1},
}


def raw_values(num_steps: int, seed: int) -> np.ndarray:
    """Raw values [T, N, C]: flows, and speeds in tenths."""
    random = np.random.default_rng(seed)
    values = random.integers(300, 700, (num_steps, len(IDS), len(CHANNELS)))
    return values.astype(np.float64)


def index_of(num_steps: int, start: str) -> pd.DatetimeIndex:
    return pd.date_range(start, periods=num_steps, freq="h", tz=ZONE)


def frame_of(values: np.ndarray, index: pd.Index) -> pd.DataFrame:
    columns = pd.MultiIndex.from_product([IDS, CHANNELS], names=["sensor", "channel"])
    return pd.DataFrame(values.reshape(len(values), -1), index=index, columns=columns)


@pytest.fixture(scope="module", params=list(MODELS))
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Trained on raw values with a missing code, in a zone."""
    path = tmp_path_factory.mktemp(request.param)
    values = raw_values(90, 0)
    values[::11, 2] = -1
    frame = frame_of(values, index_of(90, "2025-10-20"))
    scale = tuple(SCALE.values())
    pgti.ingest(frame, path / "store", graph=ROAD, scale=scale, missing=(-1.0,))
    return pgti.train(
        path / "store",
        path / "run",
        model=request.param,
        model_options=MODELS[request.param],
        windows=WINDOWS,
        epochs=1,
        batch_size=16,
        seed=3,
        progress=False,
    )


def write(form: str, values: np.ndarray, index: pd.DatetimeIndex, where: Path, **shape: Any) -> Any:
    """The raw values in a form, with sensors and channels in the orders of `shape`.

    Returns:
        The readings and the options that their form needs.
    """
    sensors, channels = shape["sensors"], shape["channels"]
    if form == "npz":
        times = {"start": str(index[0].tz_convert(ZONE).tz_localize(None))}
        arrays = {CHANNELS[c]: values[:, sensors, c] for c in channels}
        np.savez(where / "new.npz", ids=np.array(IDS)[sensors], allow_pickle=False, **arrays)
        return where / "new.npz", {"values": tuple(CHANNELS[c] for c in channels), **times}
    frame = frame_of(values, index)
    frame = frame[[(IDS[n], CHANNELS[c]) for n in sensors for c in channels]]
    if shape["is_naive"]:
        frame = frame.tz_convert(ZONE).tz_localize(None)
    if form == "frame":
        return frame, {}
    scale = tuple(SCALE[CHANNELS[c]] for c in channels)
    pgti.ingest(frame, where / "new", scale=scale, missing=(-1.0,), overwrite=True)
    return where / "new", {}


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 10_000))
def test_forecasts_are_those_of_the_clean_input(run: Run, tmp_path: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    form = str(random.choice(["frame", "npz", "store"]))
    num_steps = int(random.integers(4, 10))
    # Across the hours that the clocks repeat, as well.
    start = str(random.choice(["2025-10-26T00:00", "2025-11-03T10:00"]))
    missing = random.integers([0, 0], [num_steps, 4], (random.integers(4), 2)).tolist()
    order = random.permutation(4).tolist()
    dropped = order[: random.integers(3)]
    channels = random.permutation(2).tolist()
    lost = random.integers(1, num_steps - 1, random.integers(3))
    if form != "frame" or num_steps < 6:  # fewer rows may show another interval
        lost = lost[:0]
    clock, is_naive = str(random.choice(CLOCKS)), bool(random.integers(2))
    if form == "store" or len(lost):  # an hour that is shown twice is told by the row before
        is_naive = is_naive and start.startswith("2025-11")
    index, values = index_of(num_steps, start), raw_values(num_steps, num_steps)
    clean, keep = values.copy(), np.ones(num_steps, dtype=bool)
    for row, sensor in missing:
        values[row, sensor], clean[row, sensor] = -1, np.nan
    sensors = [each for each in order if each not in dropped]
    clean[:, dropped] = np.nan
    for row in lost:  # between others
        keep[row] = False
        clean[row] = np.nan
    expected = run.forecast(frame_of(clean, index), log=lambda _: None)
    lines: list[str] = []
    readings, options = write(
        form,
        values[keep],
        index[keep].tz_convert(clock),
        tmp_path,
        sensors=sensors,
        channels=channels,
        is_naive=is_naive,
    )
    found = run.forecast(readings, options=options, log=lines.append)
    pd.testing.assert_frame_equal(found, expected)
    # What was put right is said, in one line each.
    assert any(" lacks the sensor" in line for line in lines) == bool(dropped)
    assert any("in another order" in line for line in lines) == (sensors != sorted(sensors))
    assert any("between others" in line for line in lines) == (not keep.all())


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(order=st.permutations(range(4)), clock=st.sampled_from([None, *CLOCKS]))
def test_text_of_one_channel(
    single: Run, tmp_path: Path, order: list[int], clock: str | None
) -> None:
    """CSV files with offsets, and of the run's wall clock."""
    index = index_of(6, "2025-10-25T23:00")
    frame = pd.DataFrame(raw_values(6, 5)[..., 0], index=index, columns=list(IDS))
    expected = single.forecast(frame, log=lambda _: None)
    shown = frame.tz_localize(None) if clock is None else frame.tz_convert(clock)
    shown[[IDS[n] for n in order]].to_csv(
        tmp_path / "new.csv", date_format="%Y-%m-%d %H:%M:%S" + ("" if clock is None else "%z")
    )
    found = single.forecast(tmp_path / "new.csv", log=lambda _: None)
    pd.testing.assert_frame_equal(found, expected)


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("single")
    frame = pd.DataFrame(
        raw_values(90, 0)[..., 0], index=index_of(90, "2025-10-20"), columns=list(IDS)
    )
    pgti.ingest(frame, path / "store", graph=ROAD)
    options: dict[str, Any] = {"epochs": 1, "batch_size": 16, "seed": 3, "progress": False}
    return pgti.train(path / "store", path / "run", model="stid", windows=WINDOWS, **options)
