"""Forecasts over HTTP are those of `run.forecast`, whichever way readings come and go."""

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import pgti

from .served_runs import IDS, NEWER, SPEEDS, Served, records, serve, train

ARROW = "application/vnd.apache.arrow.stream"


@pytest.fixture(scope="module", name="served")
def _served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(train(tmp_path_factory.mktemp("served")), max_readings=200) as served:
        yield served


def stream(table: Any, **options: Any) -> bytes:
    """A table as an IPC stream."""
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return sink.getvalue()


def table_of(frame: pd.DataFrame) -> dict[str, Any]:
    """Readings as compact JSON."""
    times = [time.isoformat() for time in frame.index]
    return {"times": times, "sensors": list(frame.columns), "values": frame.values.tolist()}


def long_table(frame: pd.DataFrame) -> Any:
    return pa.Table.from_pandas(
        frame.rename_axis("time").reset_index().melt("time", var_name="sensor", value_name="speed"),
        preserve_index=False,
    )


def check_same(answer: Any, expected: pd.DataFrame) -> None:
    """The answer has the numbers, ids and times of the table."""
    assert answer.status_code == 200, answer.text
    content = answer.json()
    frame = pd.DataFrame(content["forecasts"])
    assert list(frame["sensor"]) == list(expected["sensor"])
    assert list(frame["timestamp"]) == [time.isoformat() for time in expected["timestamp"]]
    assert content["origin"] == expected["origin"].iloc[0].isoformat()
    for name in ("forecast", "lo-80", "hi-80"):
        if name in expected:
            np.testing.assert_allclose(frame[name], expected[name], rtol=1e-6)
    assert list(frame["missing_inputs"]) == list(expected["missing_inputs"])


def test_every_form_of_readings_gives_the_forecasts_of_the_run(served: Served) -> None:
    run = served.run.model.run
    newer = NEWER.iloc[:5] + 1  # not those of the store
    expected = run.forecast(newer, intervals=(0.8,))
    forms: list[dict[str, Any]] = [
        {"json": {"readings": records(newer)}},
        {"json": {"readings": table_of(newer)}},
        {"content": gzip.compress(json.dumps({"readings": records(newer)}).encode()),
         "headers": {"Content-Type": "application/json", "Content-Encoding": "gzip"}},
        {"content": stream(long_table(newer)), "headers": {"Content-Type": ARROW}},
        {"content": stream(pa.Table.from_pandas(newer.rename_axis("time").reset_index())),
         "headers": {"Content-Type": ARROW}},
    ]  # fmt: skip
    for form in forms:
        for layout in ("records", "columns"):
            answer = served.post(**form, params={"intervals": 0.8, "layout": layout})
            check_same(answer, expected)
    bits = served.post(**forms[0], headers={"Accept": ARROW}, params={"intervals": 0.8})
    table = pa.ipc.open_stream(bits.content).read_all()
    frame = table.to_pandas()
    for name in ("forecast", "lo-80", "hi-80"):
        np.testing.assert_array_equal(frame[name], expected[name])
    assert json.loads(table.schema.metadata[b"pgti"])["units"] == {"speed": "mph"}


def test_without_readings_it_forecasts_from_the_store_as_it_is_now(tmp_path: Path) -> None:
    with serve(train(tmp_path)) as served:
        store = pgti.SeriesStore.open(tmp_path / "store")
        for stop in (0, 1, 2):
            if stop:
                later = SPEEDS.iloc[-1:].set_axis(SPEEDS.index[-1:] + stop * SPEEDS.index.freq)
                store = store.append(later)
            expected = served.run.model.run.forecast()
            assert expected["origin"].iloc[0] == SPEEDS.index[-1] + stop * SPEEDS.index.freq
            before = served.metric("pgti_windows_forecast_total")
            check_same(served.post(), expected)
            check_same(served.post(json={}), expected)
            # The same store is forecast once.
            assert served.metric("pgti_windows_forecast_total") - before == (1 if stop else 0)


def test_what_is_missing_is_filled_and_said(served: Served) -> None:
    newer = NEWER.drop(index=NEWER.index[2]).rename(columns={IDS[2]: "other"})
    answer = served.post(json={"readings": records(newer)}).json()
    assert len(answer["notes"]) == 4, answer["notes"]
    assert "lacks 1 row between others" in " ".join(answer["notes"])
    assert "has the sensor other, which the run does not know" in " ".join(answer["notes"])
    frame = pd.DataFrame(answer["forecasts"])
    assert set(frame.loc[frame["sensor"] == IDS[2], "missing_inputs"]) == {4}
    assert set(frame.loc[frame["sensor"] == "a", "missing_inputs"]) == {1}
    assert frame["forecast"].notna().all()


def test_options_say_how_readings_are_read(served: Served) -> None:
    newer = NEWER.tz_localize(None)
    expected = served.run.model.run.forecast(newer, options={"missing": (-1,)})
    values = [[-1 if np.isnan(x) else x for x in row] for row in newer.where(newer < 62).values]
    readings = table_of(newer) | {"values": values}
    answer = served.post(json={"readings": readings, "options": {"missing": [-1]}})
    assert answer.status_code == 200, answer.text
    masked = served.run.model.run.forecast(newer.where(newer < 62))
    check_same(answer, masked)
    assert not np.allclose(masked["forecast"], expected["forecast"])


RECORD = {"time": "2025-10-03T11:45:00", "sensor": "a", "value": 60}
REFUSED: list[tuple[int, str, dict[str, Any]]] = [
    (400, "Invalid JSON", {"content": "{", "headers": {"Content-Type": "application/json"}}),
    (415, "Content-Type", {"content": "a", "headers": {"Content-Type": "text/csv"}}),
    (415, "Content-Encoding", {"json": {}, "headers": {"Content-Encoding": "br"}}),
    (400, "is not gzip", {"json": {}, "headers": {"Content-Encoding": "gzip"}}),
    (406, "accepts", {"headers": {"Accept": "text/html"}}),
    (422, "intervals", {"params": {"intervals": 2}}),
    (422, "calibrated for 0.8", {"params": {"intervals": 0.7}}),
    (422, "layout", {"params": {"layout": "x"}}),
    (422, "reading", {"json": {"reading": []}}),
    (422, "are empty", {"json": {"readings": []}}),
    (422, "number", {"json": {"readings": [RECORD | {"value": "x"}]}}),
    (422, "less than", {"json": {"readings": [RECORD | {"value": 1e39}]}}),
    (422, "too few", {"json": {"readings": [RECORD]}}),
    (422, "not ISO 8601", {"json": {"readings": [RECORD | {"time": "now\n\"<b>"}]}}),
    (422, "channel", {"json": {"readings": [RECORD | {"channel": "flow"}]}}),
    (422, "options", {"json": {"options": {"scale": [2]}}}),
    (422, "known in advance", {"json": {"future": [RECORD]}}),
    (422, "must have a row", {"json": {"readings": {"times": ["2025"], "sensors": ["a"],
                                                   "values": [[1, 2]]}}}),
    (413, "more than 200", {"json": {"readings": [RECORD] * 201}}),
    (413, "more than 200", {"json": {"readings": {"times": ["2025"] * 201, "sensors": ["a"],
                                                  "values": [[1]] * 201}}}),
    (400, "no Arrow IPC", {"content": b"x" * 99, "headers": {"Content-Type": ARROW}}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "text", "request_"), REFUSED, ids=[f"{each[0]} {each[1]}" for each in REFUSED]
)
def test_a_bad_request_is_refused_in_one_line(
    served: Served, status: int, text: str, request_: dict[str, Any]
) -> None:
    answer = served.post(**request_)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert text in problem["detail"]
    assert "\n" not in problem["detail"]
    assert "Traceback" not in answer.text
    assert "--" not in problem["detail"]  # fields of requests, not flags of a command line


def test_arrow_that_claims_more_than_it_holds_is_refused(served: Served) -> None:
    """Compressed buffers, columns without data, deep types and damaged offsets."""
    long = long_table(NEWER)
    compressed = stream(long, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    coded = long.set_column(1, "sensor", long["sensor"].dictionary_encode())
    compressed_codes = stream(coded, options=pa.ipc.IpcWriteOptions(compression="lz4"))
    claims = stream(pa.table({"time": pa.nulls(1 << 20)}))
    nested = stream(pa.table({"time": [[1], [2]]}))
    many = stream(pa.concat_tables([long] * 40))
    damaged = bytearray(stream(pa.table({"time": ["a", "b"], "sensor": ["c", "d"]})))
    place = damaged.rindex(np.array([0, 1, 2], np.int32).tobytes())
    damaged[place : place + 12] = np.array([0, 1 << 30, 2], np.int32).tobytes()
    for status, content in (
        (415, compressed), (415, compressed_codes), (422, claims), (422, nested), (413, many),
        (400, bytes(damaged)), (400, stream(long)[:-200]),
    ):  # fmt: skip
        answer = served.post(content=content, headers={"Content-Type": ARROW})
        assert answer.status_code == status, answer.text
    assert served.post(content=stream(coded), headers={"Content-Type": ARROW}).status_code == 200


@pytest.mark.parametrize(
    ("text", "times"),
    [
        ("whole seconds", pa.array([2**62 + 1, 2**62 + 2], pa.timestamp("us", "UTC"))),
        ("whole seconds", pa.array([-(2**62) + 1, -(2**62) + 2], pa.timestamp("us", "UTC"))),
        ("whole seconds", pa.array([-(2**62) + 1, 2**62 + 2], pa.timestamp("ms"))),
        ("years 1 to 9999", pa.array([2**62, 2**62 + 1], pa.timestamp("s"))),
        ("time", pa.array([1e9, float("nan")])),
        ("time", pa.array([float("nan"), float("inf")])),
    ],
)
def test_arrow_with_times_that_are_none_is_refused(served: Served, text: str, times: Any) -> None:
    """Of years that Python's dates lack, and numbers that are none."""
    wide = pa.table({"time": times} | {name: [60.0, 61.0] for name in IDS})
    long = pa.table({"time": times, "sensor": ["a", "a"], "speed": [60.0, 61.0]})
    for table in (wide, long):
        answer = served.post(content=stream(table), headers={"Content-Type": ARROW})
        assert answer.status_code == 422
        assert text in answer.json()["detail"]


def test_readings_that_float32_cannot_hold_are_refused(served: Served) -> None:
    content = stream(long_table(NEWER * 1e300))
    answer = served.post(content=content, headers={"Content-Type": ARROW})
    assert answer.status_code == 422
    assert "beyond the range of float32" in answer.json()["detail"]


def test_several_channels_and_values_known_in_advance(tmp_path: Path) -> None:
    times = SPEEDS.index
    speed = SPEEDS["a"].to_numpy()[:, None].repeat(2, 1)
    event = (times.hour.to_numpy() % 2)[:, None].repeat(2, 1).astype(float)
    values = np.stack([speed, event], axis=-1)
    frames = {
        "speed": pd.DataFrame(speed, index=times, columns=["a", "b"]),
        "event": pd.DataFrame(event, index=times, columns=["a", "b"]),
    }
    axes = ("time", "channel", "sensor")
    frame = pd.concat(frames, axis=1)
    pgti.ingest(frame, tmp_path / "store", axes=axes, known_future=("event",))
    windows = {"input_steps": 4, "horizon": 2}
    run = pgti.train(
        tmp_path / "store", tmp_path / "run", model="gru", windows=windows, max_steps=1,
        progress=False,
    )  # fmt: skip
    after = times[-1] + times.freq * np.arange(1, 3)
    future = pd.DataFrame({"time": after.repeat(2), "sensor": ["a", "b"] * 2, "event": 1.0})
    expected = run.forecast(future=future)
    told = [
        {"time": time.isoformat(), "sensor": sensor, "channel": "event", "value": 1.0}
        for time in after
        for sensor in ("a", "b")
    ]
    grid = {
        "times": [time.isoformat() for time in times[-6:]],
        "sensors": ["a", "b"],
        "channels": ["speed", "event"],
        "values": values[-6:].tolist(),
    }
    listed = [
        {"time": time, "sensor": sensor, "channel": channel, "value": value}
        for time, row in zip(grid["times"], grid["values"], strict=True)
        for sensor, pair in zip(grid["sensors"], row, strict=True)
        for channel, value in zip(grid["channels"], pair, strict=True)
    ]
    with serve(tmp_path / "run", intervals=()) as served:
        assert served.post().status_code == 422  # what is to come is not known
        check_same(served.post(json={"future": told}), expected)
        for readings in (grid, listed):
            check_same(served.post(json={"readings": readings, "future": told}), expected)
        del listed[0]["channel"]
        refused = served.post(json={"readings": listed, "future": told})
        assert "say which each is" in refused.json()["detail"]
