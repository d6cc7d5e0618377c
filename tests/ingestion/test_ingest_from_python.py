"""`pgti.ingest` as users of Python meet it: keywords, an opened store, notes, one clear line."""

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti import ConfigError, IngestOptions, SeriesStore


def frame_of(num_sensors: int = 3, num_steps: int = 8) -> pd.DataFrame:
    """Readings at every hour, in whole numbers."""
    index = pd.date_range("2025-10-01", periods=num_steps, freq="h")
    values = np.arange(num_steps * num_sensors, dtype=float).reshape(num_steps, num_sensors)
    return pd.DataFrame(values, index=index, columns=[f"s{n}" for n in range(num_sensors)])


def test_it_returns_the_opened_store_with_its_notes(tmp_path: Path) -> None:
    store = pgti.ingest(frame_of(), tmp_path / "s", channels="speed", units="mph", missing=0)
    assert isinstance(store, SeriesStore)
    assert store.meta.channels == ("speed",)
    assert store.meta.missing_count == 1
    assert store.notes == ("no graph was given: the store has sensors and no edges",)
    assert SeriesStore.open(store.path).notes == ()


def test_keywords_come_before_the_options_object(tmp_path: Path) -> None:
    options = IngestOptions(channels=("flow",), units=("veh/h",))
    store = pgti.ingest(frame_of(), tmp_path / "s", options, channels=["speed"])
    assert (store.meta.channels, store.meta.units) == (("speed",), ("veh/h",))


def test_help_lists_every_option() -> None:
    text = inspect.getdoc(pgti.ingest) or ""
    for name in IngestOptions.__slots__:
        assert f"\n    {name}: " in text
        assert name in inspect.signature(pgti.ingest).parameters


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chanels": "speed"}, "chanels is not an option; did you mean 'channels'?"),
        ({"interval": 5}, "interval is 5: it must be text"),
        ({"gaps": "ignore"}, "gaps is 'ignore': it must be one of error, fill, keep"),
        ({"missing": None}, r"missing is None: it must be a list"),
        ({"overwrite": "yes"}, "overwrite is 'yes': it must be true or false"),
    ],
)
def test_a_wrong_option_is_one_clear_line(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")) as caught:
        pgti.ingest(frame_of(), tmp_path / "s", **options)
    assert "--" not in str(caught.value)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("num_sensors", [3, 5_000])
def test_a_store_prints_in_a_dozen_lines(tmp_path: Path, num_sensors: int) -> None:
    store = pgti.ingest(frame_of(num_sensors), tmp_path / "s", channels="speed", units="mph")
    lines = repr(store).splitlines()
    assert len(lines) <= 12
    assert max(map(len, lines)) < 200
    assert f"8 steps of {num_sensors:,} sensors, speed (mph)" in repr(store)
    assert "2025-10-01 00:00:00 to 2025-10-01 07:00:00, every 1h" in repr(store)
    assert store._repr_html_().count("<tr>") <= 12


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64"])
def test_masked_arrays(tmp_path: Path, dtype: str) -> None:
    """What a mask covers is missing, whatever lies below it."""
    values = np.arange(12).reshape(4, 3).astype(dtype)
    store = pgti.ingest(np.ma.masked_greater(values, 9), tmp_path / "s")
    expected = np.where(values > 9, np.nan, values.astype(float))
    np.testing.assert_array_equal(store.read(0, 4)[..., 0], expected)
    np.testing.assert_array_equal(values.ravel(), np.arange(12))
