"""Refusals and notes say what to type."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import pgti
from pgti.cli.main import run_command
from pgti.errors import DataError, name_flags

TIMES = pd.date_range("2024-01-01", periods=80, freq="5min")
WIDE = pd.DataFrame({"time": TIMES, "a": np.arange(80.0), "b": np.arange(80.0) + 0.5})
LONG = WIDE.melt("time", var_name="x", value_name="y")


def refusal(source: Any, tmp_path: Path) -> str:
    with name_flags(), pytest.raises(DataError) as caught:
        pgti.ingest(source, tmp_path / "store")
    assert not (tmp_path / "store").exists()
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_column_of_words_is_no_sensor(tmp_path: Path, suffix: str) -> None:
    """It is a remark or the sensor of each row; only text can be a code for missing readings."""
    path = tmp_path / f"a.{suffix}"
    table = WIDE.assign(remark="dry")
    table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
    message = refusal(path, tmp_path)
    assert f"column 4 (remark) of {path.name} holds 'dry' and no number" in message
    assert (
        "pass --ignore remark to leave out what is no reading, or pass --long time,remark,a,b if"
        in message
    )
    assert ("--missing dry" in message) is (suffix == "csv")


def test_long_tables_with_unknown_names_in_the_order_of_their_sensors(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    LONG.rename(columns={"time": "z"}).to_csv(path, index=False)
    assert "pass --long z,x,y if it names the sensor of each row" in refusal(path, tmp_path)
    store = pgti.ingest(path, tmp_path / "store", long=("z", "x", "y"))
    np.testing.assert_array_equal(store.read(0, 80)[..., 0], WIDE[["a", "b"]].to_numpy("float32"))


def test_a_dead_sensor_keeps_its_code(tmp_path: Path) -> None:
    """Dashes are no words: the cell is refused with the option that makes them missing."""
    path = tmp_path / "a.csv"
    WIDE.assign(c="-").to_csv(path, index=False)
    assert refusal(path, tmp_path).endswith("(--missing=-)")


def test_quantities_in_a_column_are_not_left_out_without_a_word(tmp_path: Path) -> None:
    both = pd.concat([LONG.assign(parameter="no2"), LONG.assign(parameter="pm10", y=1.0)])
    message = refusal(both.rename(columns={"x": "station"}), tmp_path)
    assert "--long time,station,y; that leaves out parameter; quantities" in message


def test_irregular_times_can_be_resampled(tmp_path: Path) -> None:
    offsets = pd.to_timedelta(np.arange(80) % 7, unit="s")
    message = refusal(WIDE.assign(time=TIMES + offsets).set_index("time"), tmp_path)
    assert "onto a grid with --resample 5min and --aggregate mean, or keep" in message


def test_one_of_several_arrays_is_named_with_values(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", speed=np.ones((9, 2)), flow=np.ones((9, 2)))
    message = refusal(tmp_path / "a.npz", tmp_path)
    assert "name one or several with --values, of speed (9, 2), flow (9, 2)" in message


def test_times_of_day_as_the_last_axis_get_a_note(tmp_path: Path) -> None:
    days = np.random.default_rng(0).normal(size=(5, 7, 24))
    store = pgti.ingest(days, tmp_path / "store")
    assert "with axes=('sensor', 'day', 'slot')" in store.notes[-1]
    odd = pgti.ingest(days[..., :23], tmp_path / "other")
    assert "slot" not in odd.notes[-1]


def test_a_directory_of_libcity(tmp_path: Path) -> None:
    """The graph beside the readings is not taken for them."""
    table = LONG.rename(columns={"x": "entity_id", "y": "traffic_speed"})
    table.to_csv(tmp_path / "A.dyna", index=False)
    (tmp_path / "A.rel").write_text("rel_id,type,origin_id,destination_id\n0,geo,a,b\n")
    store = pgti.ingest(tmp_path, tmp_path / "store")
    assert (store.meta.node_ids, store.meta.channels) == (("a", "b"), ("traffic_speed",))


def test_the_command_line_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values without commas, and an array without times."""
    monkeypatch.chdir(tmp_path)
    np.save("a.npy", np.ones((9, 2)))
    assert run_command(["ingest", "a.npy", "--out", "s", "--missing", "0", "-1"]) == 2
    assert "no option takes -1: join the values of one by commas" in capsys.readouterr().err
    assert not Path("s").exists()
    assert run_command(["ingest", "a.npy", "--out", "s"]) == 0
    assert "no times: --start and --interval give them" in capsys.readouterr().err
    dated = ["--start", "2024-01-01T00:00", "--interval", "5min", "--overwrite"]
    assert run_command(["ingest", "a.npy", "--out", "s", *dated]) == 0
    assert "no times" not in capsys.readouterr().err


def test_places_with_other_titles(tmp_path: Path) -> None:
    """As many places as columns are no matrix."""
    table = WIDE.set_index("time")
    places = pd.DataFrame({"Y": [52.1, 52.2], "X": [13.1, 13.2]})
    with name_flags(), pytest.raises(DataError, match=r"latitude and longitude.*--coordinates"):
        pgti.ingest(table, tmp_path / "store", graph=places, neighbours=1)
    options = {"neighbours": 1, "coordinates": ("Y", "X")}
    assert pgti.ingest(table, tmp_path / "store", graph=places, **options).meta.num_edges == 2


def test_a_title_above_the_header(tmp_path: Path) -> None:
    """It is a line of fewer cells than those below; as a comment it is skipped."""
    path = tmp_path / "a.csv"
    path.write_text("Station export\n" + WIDE.to_csv(index=False))
    assert "remove lines above the header, or let them begin with #" in refusal(path, tmp_path)
    path.write_text("# " + path.read_text())
    assert pgti.ingest(path, tmp_path / "store").meta.node_ids == ("a", "b")


@pytest.mark.parametrize(
    ("titles", "parts"),
    [
        ([f"h{hour}" for hour in range(1, 25)], "hours of a day"),
        ([f"{hour:02}:00" for hour in range(24)], "hours of a day"),
        (
            [
                "January",
                *["Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"],
            ],
            "months of a year",
        ),
        ([str(sensor) for sensor in range(24)], ""),
        ([f"h{hour}" for hour in range(23)], ""),
    ],
)
def test_columns_that_are_hours_or_months(tmp_path: Path, titles: list[str], parts: str) -> None:
    """They could be sensors; a note says what they look like."""
    dates = pd.date_range("2024-01-01", periods=20, name="date")
    values = np.arange(20 * len(titles)).reshape(20, -1) + 0.5
    pd.DataFrame(values, index=dates, columns=titles).to_csv(tmp_path / "a.csv")
    store = pgti.ingest(tmp_path / "a.csv", tmp_path / "store")
    assert ("pandas.melt" in " ".join(store.notes)) == bool(parts)
    assert parts in " ".join(store.notes)
