"""Readings written in a random layout come back as they were, or are refused in one line."""

import gzip
import itertools
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import pgti
from pgti.errors import DataError
from pgti.store import SeriesStore

IDS = {
    "utf-8": ("ñandú", "Süd", "北", "naïve", "plain"),
    "latin-1": ("Nörd", "Süd", "àlpha", "naïve", "plain"),
    "gbk": ("北站", "南站", "东站", "西站", "plain"),
    "utf-16": ("ñandú", "Süd", "北", "naïve", "plain"),
}
CODES = ("", "NA", "-", "M", "n/v", "-999")


@dataclass(frozen=True)
class Layout:
    """How a table of text is written."""

    shape: str  # wide, long or transposed
    delimiter: str
    decimal: str
    encoding: str
    code: str  # of a missing reading
    line_end: str
    quoted: bool
    is_shuffled: bool  # the rows of a long table
    is_compressed: bool

    @property
    def options(self) -> dict[str, Any]:
        """What cannot be seen in such a file."""
        options: dict[str, Any] = {}
        if self.encoding in ("latin-1", "gbk"):
            options["encoding"] = self.encoding
        if self.code not in ("", "NA"):
            options["missing"] = (self.code,)
        if self.decimal == ",":
            options["decimal"] = ","  # 76,555 could be a whole number
        if self.shape == "transposed":
            options["transpose"] = True
        return options


@dataclass(frozen=True)
class Series:
    """Readings [T, N], NaN for missing, with times and ids."""

    values: np.ndarray
    times: pd.DatetimeIndex
    ids: tuple[str, ...]


layouts = st.builds(
    Layout,
    shape=st.sampled_from(("wide", "long", "transposed")),
    delimiter=st.sampled_from(";,\t|"),
    decimal=st.sampled_from(".,"),
    encoding=st.sampled_from(tuple(IDS)),
    code=st.sampled_from(CODES),
    line_end=st.sampled_from(("\n", "\r\n")),
    quoted=st.booleans(),
    is_shuffled=st.booleans(),
    is_compressed=st.booleans(),
)


@st.composite
def series(draw: st.DrawFn, layout: Layout) -> Series:
    """Readings with three decimals, all of which could be thousands or only some of them."""
    num_rows, num_nodes = draw(st.integers(4, 30)), draw(st.integers(2, 5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 9000, (num_rows, num_nodes)) / 100 + 0.005
    values = np.round(values, 3)
    values[rng.random(values.shape) < draw(st.sampled_from((0.0, 0.1)))] = np.nan
    step = draw(st.sampled_from(("5min", "1h", "1D")))
    times = pd.date_range("2023-05-14", periods=num_rows, freq=step)
    return Series(values, times, IDS[layout.encoding][:num_nodes])


def _cells(series: Series, layout: Layout) -> list[list[str]]:
    return [
        [
            layout.code if np.isnan(value) else f"{value:.3f}".replace(".", layout.decimal)
            for value in row
        ]
        for row in series.values
    ]


def _lines(series: Series, layout: Layout) -> Iterator[list[str]]:
    cells = _cells(series, layout)
    times = [f"{time:%Y-%m-%d %H:%M:%S}" for time in series.times]
    if layout.shape == "wide":
        yield ["time", *series.ids]
        yield from ([time, *row] for time, row in zip(times, cells, strict=True))
    elif layout.shape == "transposed":
        yield ["sensor", *times]
        columns = zip(*cells, strict=True)
        yield from ([name, *column] for name, column in zip(series.ids, columns, strict=True))
    else:
        places = list(itertools.product(range(len(times)), range(len(series.ids))))
        if layout.is_shuffled:
            np.random.default_rng(len(places)).shuffle(places)
        yield ["time", "sensor", "value"]
        yield from ([times[row], series.ids[node], cells[row][node]] for row, node in places)


def _write(path: Path, series: Series, layout: Layout) -> Path:
    def quote(cell: str) -> str:
        return f'"{cell}"' if layout.quoted or layout.delimiter in cell else cell

    lines = (layout.delimiter.join(map(quote, line)) for line in _lines(series, layout))
    content = "".join(line + layout.line_end for line in lines).encode(layout.encoding)
    if layout.is_compressed:
        path = path.with_suffix(".csv.gz")
        content = gzip.compress(content)
    path.write_bytes(content)
    return path


def _series_of(store: SeriesStore, ids: tuple[str, ...]) -> Series:
    """What a store holds, with its sensors in the order of `ids`."""
    order = [store.meta.node_ids.index(name) for name in ids]
    values = store.read(0, store.meta.num_steps)[:, order, 0]
    step = pd.Timedelta(seconds=store.meta.interval_seconds or 0)
    times = pd.date_range(store.meta.start, periods=len(values), freq=step)
    return Series(values, times, ids)


def _are_equal(found: Series, written: Series) -> bool:
    rounded = written.values.astype(np.float32)
    same = np.array_equal(found.values, rounded, equal_nan=True)
    return same and found.times.equals(written.times)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for all examples."""
    return tmp_path_factory.mktemp("fuzz")


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), layout=layouts)
def test_text_in_any_layout(directory: Path, data: st.DataObject, layout: Layout) -> None:
    """With the options that say what the file does not show, every layout is read exactly."""
    written = data.draw(series(layout))
    path = _write(directory / "a.csv", written, layout)
    try:
        store = pgti.ingest(path, directory / "store", overwrite=True, **layout.options)
        assert _are_equal(_series_of(store, written.ids), written)
    finally:
        path.unlink()


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), layout=layouts)
def test_text_without_options(directory: Path, data: st.DataObject, layout: Layout) -> None:
    """Without any option it is read exactly or refused in one line, and never misread."""
    written = data.draw(series(layout))
    path = _write(directory / "a.csv", written, layout)
    shutil.rmtree(directory / "store", ignore_errors=True)
    refusal = ""
    try:
        store = pgti.ingest(path, directory / "store")
    except DataError as error:
        refusal = str(error)
    path.unlink()
    if refusal:
        assert "\n" not in refusal
        assert layout.options or "decimal" in refusal
        return
    if layout.code == "-999":  # a number like any other, as long as nothing says otherwise
        filled = np.where(np.isnan(written.values), -999, written.values)
        written = Series(filled, written.times, written.ids)
    assert _are_equal(_series_of(store, written.ids), written)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    axes=st.permutations(("time", "sensor", "channel")),
    sizes=st.tuples(st.integers(3, 20), st.integers(1, 6), st.integers(1, 3)),
    budget_bytes=st.sampled_from((1, 500, 1 << 20)),
    suffix=st.sampled_from((".npy", ".npz")),
)
def test_arrays_in_any_order_of_axes(
    directory: Path,
    axes: list[str],
    sizes: tuple[int, int, int],
    budget_bytes: int,
    suffix: str,
) -> None:
    """An array comes out as [T, N, C], whatever the order of its axes."""
    values = np.arange(np.prod(sizes), dtype=np.float64).reshape(sizes) / 8
    places = [("time", "sensor", "channel").index(axis) for axis in axes]
    path = directory / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, values.transpose(places))
    else:
        np.savez(path, readings=values.transpose(places))
    options = {"axes": tuple(axes), "budget_bytes": budget_bytes}
    store = pgti.ingest(path, directory / "store", overwrite=True, **options)
    np.testing.assert_array_equal(store.read(0, sizes[0]), values.astype(np.float32))
