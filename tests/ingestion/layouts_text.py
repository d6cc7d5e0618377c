"""Layouts of text files: wide, transposed and long."""

import bz2
import gzip
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from .layouts import (
    BOTH,
    FLOW,
    IDS,
    SPEED,
    TIMES,
    Layout,
    Stored,
    csv,
    frame,
    long_frame,
    refused,
    text,
)

WIDE = frame().to_csv()
RESET = frame().rename_axis("date").reset_index()
GERMAN = frame().to_csv(sep=";", decimal=",")
NO_TIMES = Stored(start=None, interval=None)
NO_IDS = Stored(ids=None)
UMLAUTS = WIDE.replace("north", "Nördlich").replace("south", "Süd").replace("west", "West")
UMLAUT_IDS = Stored(ids=("Nördlich", "Süd", "West"))
CHINESE = WIDE.replace("north", "北站").replace("south", "南站").replace("west", "西站")
THOUSANDS = frame(FLOW * 10 + 0.5)
THOUSANDS_STORED = Stored(values=(FLOW * 10 + 0.5)[..., None])


def _lines(time_format: str) -> str:
    table = frame()
    table.index = pd.Index(TIMES.strftime(time_format), name="date")
    return table.to_csv()


def _parts(**parts: pd.Index) -> pd.DataFrame:
    table = frame().reset_index(drop=True)
    for place, (name, values) in enumerate(parts.items()):
        table.insert(place, name, np.asarray(values))
    return table


def _compressed(name: str, compress: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(directory: Path) -> Path:
        (directory / name).write_bytes(compress(WIDE.encode()))
        return directory / name

    return make


def _zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, codec="zstd", asbytes=True)
    return compressed


def _zipped(directory: Path) -> Path:
    with zipfile.ZipFile(directory / "a.zip", "w") as archive:
        archive.writestr("readings.csv", WIDE)
    return directory / "a.zip"


def _dates_as_columns(directory: Path) -> Path:
    daily = pd.date_range("2020-01-22", periods=NUM_DAYS)
    table = pd.DataFrame(
        SPEED.T, columns=daily.strftime("%Y-%m-%d"), index=pd.Index(IDS, name="id")
    )
    table.to_csv(directory / "dates.csv")
    return directory / "dates.csv"


NUM_DAYS = len(TIMES)
DAILY = Stored(start="2020-01-22T00:00:00", interval=86400)


def _covid(directory: Path) -> Path:
    daily = pd.date_range("2020-01-22", periods=NUM_DAYS)
    table = pd.DataFrame(
        FLOW.T.astype(int), columns=[f"{day.month}/{day.day}/{day:%y}" for day in daily]
    )
    table.insert(0, "Province/State", list(IDS))
    table.insert(1, "Country/Region", "Nowhere")
    table.insert(2, "Lat", [10.5, 20.5, 30.5])
    table.insert(3, "Long", [1.5, 2.5, 3.5])
    table.to_csv(directory / "covid.csv", index=False)
    return directory / "covid.csv"


def _wide_peer(path: Path) -> np.ndarray:
    return pd.read_csv(path, index_col=0).to_numpy()


WIDE_TEXT = {
    "comma, ISO times": Layout(make=text("a.csv", WIDE), peer=_wide_peer),
    "times with T and seconds": Layout(make=text("a.csv", _lines("%Y-%m-%dT%H:%M:%S"))),
    "times with an offset": Layout(
        make=csv(frame().tz_localize("Etc/GMT-1")),
        options={"time_zone": "Etc/GMT-1"},
        expected=Stored(start="2024-03-13T07:00:00", zone="Etc/GMT-1"),
    ),
    "no header": Layout(make=csv(frame(), header=False), expected=NO_IDS),
    "no times": Layout(make=csv(frame(), index=False), expected=NO_TIMES),
    "tabs": Layout(make=csv(frame(), "a.tsv", sep="\t")),
    "semicolons": Layout(make=csv(frame(), sep=";")),
    "blanks, several": Layout(
        make=text("a.txt", frame().reset_index(drop=True).to_string(index=False)),
        expected=NO_TIMES,
    ),
    "decimal commas between semicolons": Layout(
        make=text("a.csv", GERMAN),
        peer=lambda path: pd.read_csv(path, sep=";", decimal=",", index_col=0).to_numpy(),
    ),
    "decimal commas in quotes between commas": Layout(
        make=csv(frame(), decimal=",", quoting=1),
    ),
    "UCI electricity": Layout(
        make=text("LD2011_2014.txt", frame().to_csv(sep=";", decimal=",", quoting=1)),
    ),
    "decimal commas, said": Layout(make=text("a.csv", GERMAN), options={"decimal": ","}),
    "whole numbers with one comma each": Layout(
        make=text(
            "a.csv", "time;a;b\n" + "".join(f"{t};1,{i:03};2,{i:03}\n" for i, t in enumerate(TIMES))
        ),
        expected=refused("--decimal"),
    ),
    "thousands in quotes": Layout(
        make=text("a.csv", THOUSANDS.map("{:,.1f}".format).to_csv(quoting=1)),
        expected=THOUSANDS_STORED,
        peer=lambda path: pd.read_csv(path, thousands=",", index_col=0).to_numpy(),
    ),
    "thousands with dots, decimal commas": Layout(
        make=text(
            "a.csv",
            THOUSANDS.map(
                lambda value: f"{value:,.1f}".translate(str.maketrans(",.", ".,"))
            ).to_csv(sep=";"),
        ),
        expected=THOUSANDS_STORED,
    ),
    "UTF-8 with a mark": Layout(make=text("a.csv", WIDE, "utf-8-sig")),
    "UTF-16 with a mark": Layout(make=text("a.csv", WIDE, "utf-16")),
    "UTF-8 with umlauts": Layout(make=text("a.csv", UMLAUTS), expected=UMLAUT_IDS),
    "Latin-1, said": Layout(
        make=text("a.csv", UMLAUTS, "latin-1"),
        options={"encoding": "latin-1"},
        expected=UMLAUT_IDS,
    ),
    "GBK, said": Layout(
        make=text("a.csv", CHINESE, "gbk"),
        options={"encoding": "gbk"},
        expected=Stored(ids=("北站", "南站", "西站")),
    ),
    "an encoding that is not the file's": Layout(
        make=text("a.csv", UMLAUTS, "latin-1"),
        options={"encoding": "utf-8"},
        expected=refused("encoding", "utf-8"),
    ),
    "a dash for missing": Layout(make=csv(frame(), na_rep="-"), options={"missing": ("-",)}),
    "a dash for missing, not said": Layout(
        make=csv(frame(), na_rep="-"), expected=refused("'-'", "--missing")
    ),
    "M for missing, not said": Layout(
        make=csv(frame(), na_rep="M"), expected=refused("'M'", "--missing")
    ),
    "-999 for missing": Layout(
        make=csv(frame(), na_rep="-999"),
        options={"missing": (-999,)},
        peer=lambda path: pd.read_csv(path, index_col=0, na_values=[-999]).to_numpy(),
    ),
    "#N/A for missing": Layout(make=csv(frame(), na_rep="#N/A")),
    "row numbers, then dates": Layout(make=csv(RESET)),
    "dates in the last column": Layout(
        make=csv(RESET[[*IDS, "date"]], index=False),
        peer=lambda path: pd.read_csv(path).iloc[:, :3].to_numpy(),
    ),
    "date and time in two columns": Layout(
        make=csv(_parts(date=TIMES.strftime("%Y-%m-%d"), time=TIMES.strftime("%H:%M")), index=False)
    ),
    "date and time, named otherwise": Layout(
        make=csv(_parts(Tag=TIMES.strftime("%Y-%m-%d"), Uhr=TIMES.strftime("%H:%M")), index=False),
        options={"time_columns": ("Tag", "Uhr")},
    ),
    "columns that are no readings": Layout(
        make=csv(frame().assign(kind="x", weekday=1)), options={"ignore": ("kind", "weekday")}
    ),
    "year, month, day, hour": Layout(
        make=csv(
            _parts(year=TIMES.year, month=TIMES.month, day=TIMES.day, hour=TIMES.hour), index=False
        ),
    ),
    "days first, which only a day above 12 shows": Layout(
        make=text("a.csv", _lines("%d/%m/%Y %H:%M"))
    ),
    "days first, named": Layout(
        make=text("a.csv", _lines("%d.%m.%Y %H:%M")), options={"time_format": "%d.%m.%Y %H:%M"}
    ),
    "days or months first": Layout(
        make=text(
            "a.csv",
            "date,a\n" + "".join(f"03/04/2021 {hour:02}:00,{hour}.5\n" for hour in range(12)),
        ),
        expected=refused("03/04/2021", "--time-format"),
    ),
    "epoch seconds": Layout(
        make=csv(frame().set_index(pd.Index(TIMES.as_unit("s").asi8, name="timestamp"))),
        expected=Stored(zone="UTC"),
    ),
    "gz": Layout(make=_compressed("a.csv.gz", gzip.compress)),
    "bz2": Layout(make=_compressed("a.csv.bz2", bz2.compress)),
    "zst": Layout(make=_compressed("a.csv.zst", _zstd)),
    "zip": Layout(make=_zipped),
    "a line that lost its end": Layout(
        make=text("a.csv", WIDE.replace(",300", "", 1)[:-12] + "\n"), expected=refused("line")
    ),
}

TRANSPOSED_TEXT = {
    "dates as columns": Layout(make=_dates_as_columns, expected=refused("--transpose")),
    "dates as columns, transposed": Layout(
        make=_dates_as_columns,
        options={"transpose": True},
        expected=DAILY,
        peer=lambda path: pd.read_csv(path, index_col=0).to_numpy().T,
    ),
    "epidemic counts": Layout(make=_covid, expected=refused("--transpose")),
    "epidemic counts, transposed": Layout(
        make=_covid,
        options={"transpose": True},
        expected=Stored(values=FLOW[..., None], ids=None, start=DAILY.start, interval=86400),
    ),
}

_SHUFFLED = long_frame().sample(frac=1, random_state=3)
_TWICE = pd.concat([long_frame(), long_frame().iloc[[5]].assign(value=2.0)])
_NUMBERS = long_frame().assign(
    sensor=np.tile([1, 2, 3], NUM_DAYS), time=np.repeat(range(NUM_DAYS), 3)
)[["sensor", "time", "value"]]
_DYNA = pd.DataFrame(
    {
        "dyna_id": range(36),
        "type": "state",
        "time": np.tile(TIMES.strftime("%Y-%m-%dT%H:%M:%SZ"), 3),
        "entity_id": np.repeat(IDS, NUM_DAYS),
        "traffic_flow": FLOW.T.ravel(),
    }
)


def _long_peer(path: Path) -> np.ndarray:
    table = pd.read_csv(path)
    time, sensor, value = table.columns[:3]
    return table.pivot(index=time, columns=sensor, values=value)[list(IDS)].to_numpy()


def _pems(directory: Path) -> Path:
    lines = []
    for row, time in enumerate(TIMES):
        for node in range(3):
            total = "" if np.isnan(SPEED[row, node]) else f"{SPEED[row, node]}"
            lines.append(
                f"{time:%m/%d/%Y %H:%M:%S},{700 + node},7,5,N,ML,.5,10,100,{FLOW[row, node]:.0f}"
                f",.0512,{total},5,100,.05,60.1,1,,,,,0"
            )
    with gzip.open(directory / "d07_text_station_5min_2024_03_13.txt.gz", "wt") as file:
        file.write("\n".join(lines) + "\n")
    return directory / "d07_text_station_5min_2024_03_13.txt.gz"


LONG_TEXT = {
    "long, in order of time": Layout(make=csv(long_frame(), index=False), peer=_long_peer),
    "long, in order of sensor": Layout(
        make=csv(long_frame().sort_values(["sensor", "time"]), index=False), peer=_long_peer
    ),
    "long, in any order": Layout(make=csv(_SHUFFLED, index=False), peer=_long_peer),
    "long, Nixtla's names": Layout(
        make=csv(long_frame("ds", "unique_id", y=SPEED)[["unique_id", "ds", "y"]], index=False)
    ),
    "long, AutoGluon's names": Layout(
        make=csv(long_frame("timestamp", "item_id", target=SPEED), index=False)
    ),
    "long, LibCity's": Layout(
        make=csv(_DYNA, "METR_LA.dyna", index=False),
        expected=Stored(values=FLOW[..., None], channels=("traffic_flow",), zone="UTC"),
    ),
    "long, PeMS clearinghouse": Layout(
        make=_pems,
        expected=Stored(
            values=np.stack([FLOW.round(), np.full(FLOW.shape, 0.0512), SPEED], axis=-1),
            ids=("700", "701", "702"),
            channels=("flow", "occupancy", "speed"),
            note="'timestamp', 'station', 'observed', 'flow'",
        ),
    ),
    "long, two columns of values": Layout(
        make=csv(long_frame(speed=SPEED, flow=FLOW), index=False),
        expected=Stored(values=BOTH, channels=("speed", "flow")),
    ),
    "long, row numbers in front": Layout(make=csv(long_frame())),
    "long, tabs": Layout(make=csv(long_frame(), "a.tsv", sep="\t", index=False)),
    "long, names that say nothing": Layout(
        make=csv(long_frame("a", "b", c=SPEED), index=False),
        options={"long": ("a", "b", "c")},
    ),
    "long, a time and a sensor twice": Layout(
        make=csv(_TWICE, index=False), expected=refused("west", "--duplicates")
    ),
    "long, the last of two": Layout(
        make=csv(_TWICE, index=False),
        options={"duplicates": "last"},
        expected=Stored(values=np.where(SPEED[1, 2] == SPEED, 2.0, SPEED)[..., None]),
    ),
    "long, the mean of two": Layout(
        make=csv(_TWICE, index=False),
        options={"duplicates": "mean"},
        expected=Stored(
            values=np.where(SPEED[1, 2] == SPEED, (SPEED[1, 2] + 2) / 2, SPEED)[..., None]
        ),
    ),
    "long, numbers alone": Layout(make=csv(_NUMBERS, index=False), expected=refused("--long")),
    "long, numbers alone, said": Layout(
        make=csv(_NUMBERS, index=False),
        options={"long": ("time", "sensor", "value")},
        expected=Stored(ids=("1", "2", "3"), start=None, interval=None),
    ),
    "long, decimal commas": Layout(
        make=csv(long_frame(), sep=";", decimal=",", index=False),
    ),
}
