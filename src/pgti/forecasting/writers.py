"""The formats of forecast files: CSV, Parquet and NPZ, each written in bounded memory."""

import math
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.batching import WindowSource
from pgti.display import csv_text
from pgti.errors import ConfigError
from pgti.storage import replace_atomically
from pgti.store import TimeAxis

__all__ = ["ForecastBlock", "ForecastLabels", "WriteBlock", "open_writer"]

_NPZ_ARRAYS = (
    "forecast",
    "observed",
    "timestamps",
    "origins",
    "missing_inputs",
    "missing_newest",
)

_ULP_OF_Z = 2.0**-21  # between the float32 from 4 to 8: few standardised values are larger

Times: TypeAlias = NDArray[np.datetime64] | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ForecastLabels:
    """Names of the numbers of a forecast.

    Attributes:
        time_axis: times of the series' rows; without times, row numbers stand for them.
        input_steps: L, to find the first target row of a window.
        sensor_ids: name of each node.
        channels: name of each target channel.
        target_indices: positions of the targets among the store's channels.
        numbered: whether the targets are named by their row numbers, as their times are not known.
        decimals: of an exact series, decimals that a forecast of each channel has: what is computed
            in float32 has no more; None where forecasts are float32.
    """

    time_axis: TimeAxis
    input_steps: int
    sensor_ids: tuple[str, ...]
    channels: tuple[str, ...]
    target_indices: tuple[int, ...]
    numbered: bool = False
    decimals: tuple[int, ...] | None = None

    @classmethod
    def of_source(cls, source: WindowSource, *, past_the_end: bool = False) -> Self:
        """Names of the forecasts of a source's windows.

        Args:
            source: of the windows.
            past_the_end: whether targets follow the end of the series. Where its times are
                irregular, what comes there is not known, and targets are numbered.
        """
        return cls(
            time_axis=source.store.time_axis,
            input_steps=source.spec.input_steps,
            sensor_ids=source.store.meta.node_ids,
            channels=source.target_names,
            target_indices=source.target_indices,
            numbered=past_the_end and not source.store.time_axis.continues,
            decimals=_decimals_of(source),
        )

    def name_of(self, row: int) -> str:
        """Time of a row in ISO 8601, or its number if times are unknown."""
        if not self.time_axis.is_dated:
            return f"row {row}"
        return self.time_axis.isoformat(row).replace(" ", "T")

    def timestamps(self, rows: NDArray[np.int64]) -> Times:
        """Times of the rows, or the row numbers if the times are unknown.

        With a time zone the times are UTC: wall-clock time has one hour of a year twice.
        """
        if not self.time_axis.is_dated:
            return rows
        if self.time_axis.time_zone is None:
            return self.time_axis.at(rows)
        return self.time_axis.seconds_at(rows).astype("datetime64[s]")

    def target_times(self, rows: NDArray[np.int64]) -> Times:
        """Times of target rows, or their numbers."""
        return rows if self.numbered else self.timestamps(rows)

    @property
    def time_zone(self) -> str | None:
        """IANA name of the zone to write times in, None for times without one."""
        return self.time_axis.time_zone if self.time_axis.is_dated else None


def _decimals_of(source: WindowSource) -> tuple[int, ...] | None:
    """Decimals of forecasts that are an offset and a float32: those of a few deviations from it."""
    if source.scaler.offsets is None:
        return None
    deviations = (source.scaler.std[index] for index in source.target_indices)
    return tuple(math.floor(-math.log10(each * _ULP_OF_Z)) for each in deviations)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ForecastBlock:
    """Forecasts of a few windows, on the host.

    Attributes:
        timestamps: times (or row numbers) of the targets, [S, H]; in UTC where there is a zone.
        origins: times (or row numbers) of the last inputs, [S]; likewise.
        forecast: in original units, float32, of an exact series float64 [S, H, N, C].
        more: quantiles and ends of intervals by the name of their column, likewise, in order.
        observed: observed values, NaN where missing or not known yet, likewise.
        missing_inputs: inputs of the sensor and channel that are missing, of the window's L, int32
            [S, N, C].
        missing_newest: the newest inputs of the sensor and channel that are missing, those after
            its last reading: 0 where the last input was observed, L where none was; int32
            [S, N, C].
    """

    timestamps: Times
    origins: Times
    forecast: NDArray[np.floating[Any]]
    observed: NDArray[np.floating[Any]]
    missing_inputs: NDArray[np.int32]
    missing_newest: NDArray[np.int32]
    more: Mapping[str, NDArray[np.floating[Any]]] = field(default_factory=dict)

    def columns(self) -> dict[str, NDArray[Any]]:
        """One entry per forecast, by name; `sensor` and `channel` as positions."""
        shape = self.forecast.shape
        horizon, nodes, channels = (np.arange(size, dtype=np.int32) for size in shape[1:])
        spread = {
            "timestamp": self.timestamps[:, :, None, None],
            "origin": self.origins[:, None, None, None],
            "horizon": horizon[:, None, None] + 1,
            "sensor": nodes[:, None],
            "channel": channels,
            "forecast": self.forecast,
            **self.more,
            "observed": self.observed,
            "missing_inputs": self.missing_inputs[:, None],
            "missing_newest": self.missing_newest[:, None],
        }
        # Each broadcast to [S, H, N, C], then flat
        return {name: np.broadcast_to(array, shape).ravel() for name, array in spread.items()}


WriteBlock: TypeAlias = Callable[[ForecastBlock], None]
"""Appends a block to a file."""


@contextmanager
def open_writer(path: Path, labels: ForecastLabels) -> Iterator[WriteBlock]:
    """Write a file in the format that the suffix names; it appears when the `with` block ends.

    Raises:
        ConfigError: if the suffix is unknown, or the directory does not exist.
        RunError: if the file cannot be written.
    """
    formats: dict[str, Callable[[Path, ForecastLabels], AbstractContextManager[WriteBlock]]] = {
        ".csv": _open_csv,
        ".parquet": _open_parquet,
        ".npz": _open_npz,
    }
    open_format = formats.get(path.suffix.lower())
    if open_format is None:
        raise ConfigError(
            f"{path} has the suffix {path.suffix!r}: forecasts are written as {', '.join(formats)}"
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path} cannot be written: the directory {path.parent} does not exist; create it"
        )
    if path.is_dir():
        raise ConfigError(f"{path} cannot be written: it is a directory")
    with replace_atomically(path) as partial, open_format(partial, labels) as write:
        yield write


@contextmanager
def _open_csv(path: Path, labels: ForecastLabels) -> Iterator[WriteBlock]:
    sensor_ids = np.array([*map(csv_text, labels.sensor_ids)], dtype=object)
    channels = np.array([*map(csv_text, labels.channels)], dtype=object)

    def write(block: ForecastBlock) -> None:
        timestamps = _readable(block.timestamps, labels.time_zone)
        origins = _readable(block.origins, labels.time_zone)
        columns = replace(block, timestamps=timestamps, origins=origins).columns()
        columns["sensor"] = sensor_ids[columns["sensor"]]
        columns["channel"] = channels[columns["channel"]]
        is_first = file.tell() == 0
        pd.DataFrame(columns).to_csv(file, index=False, header=is_first, lineterminator="\n")

    with _closed_after(path.open("w", encoding="utf-8", newline="")) as file:
        yield write


@contextmanager
def _open_parquet(path: Path, labels: ForecastLabels) -> Iterator[WriteBlock]:
    import pyarrow  # noqa: PLC0415 - it takes a while
    import pyarrow.parquet  # noqa: PLC0415

    words = {
        "sensor": pyarrow.array(list(labels.sensor_ids), pyarrow.string()),
        "channel": pyarrow.array(list(labels.channels), pyarrow.string()),
    }
    writer: Any = None

    def write(block: ForecastBlock) -> None:
        nonlocal writer
        columns: dict[str, Any] = {**block.columns()}
        for name, dictionary in words.items():
            positions = pyarrow.array(columns[name])
            columns[name] = pyarrow.DictionaryArray.from_arrays(positions, dictionary)
        if labels.time_zone is not None:
            zoned = pyarrow.timestamp("s", tz=labels.time_zone)
            for name in ("timestamp", "origin")[labels.numbered :]:
                columns[name] = pyarrow.array(columns[name]).cast(zoned)
        columns["observed"] = pyarrow.array(columns["observed"], from_pandas=True)
        table = pyarrow.table(columns)
        if writer is None:
            writer = pyarrow.parquet.ParquetWriter(file, table.schema)
            # If closing fails, pyarrow would close it again at garbage collection.
            stack.callback(setattr, writer, "is_open", False)
            stack.enter_context(_closed_after(writer))
        writer.write_table(table)

    with _closed_after(path.open("wb")) as file, ExitStack() as stack:
        yield write


@contextmanager
def _open_npz(path: Path, labels: ForecastLabels) -> Iterator[WriteBlock]:
    """Collects each array in a nameless file, then packs them all into an archive.

    Plain writes, not a memory map: on a full disk they raise, where a map ends the process.
    """
    files: dict[str, IO[bytes]] = {}
    headers: dict[str, dict[str, Any]] = {}
    num_windows = 0

    def write(block: ForecastBlock) -> None:
        nonlocal num_windows
        arrays = {name: getattr(block, name) for name in _NPZ_ARRAYS} | dict(block.more)
        for name, array in arrays.items():
            if name not in files:
                file = TemporaryFile(dir=path.parent)  # noqa: SIM115 - closed by the stack
                files[name] = stack.enter_context(_closed_after(file))
                headers[name] = np.lib.format.header_data_from_array_1_0(array)
            # As bytes: datetime64 does not export a buffer.
            files[name].write(np.ascontiguousarray(array).view(np.uint8).data)
        num_windows += len(block.forecast)

    with ExitStack() as stack:
        yield write
        arrays = {
            "sensor_ids": np.array(labels.sensor_ids, dtype=np.str_),
            "channels": np.array(labels.channels, dtype=np.str_),
        }
        if labels.time_zone is not None:
            arrays["time_zone"] = np.array(labels.time_zone, dtype=np.str_)
        if files:
            arrays["horizon"] = np.arange(1, headers["forecast"]["shape"][1] + 1)
        with zipfile.ZipFile(path, "w") as archive:
            for name in sorted(arrays.keys() | files):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    if name in arrays:
                        np.lib.format.write_array(member, arrays[name], allow_pickle=False)
                        continue
                    shape = (num_windows, *headers[name]["shape"][1:])
                    np.lib.format.write_array_header_1_0(member, headers[name] | {"shape": shape})
                    files[name].seek(0)
                    shutil.copyfileobj(files[name], member, 1 << 20)


def _readable(times: NDArray[Any], time_zone: str | None) -> NDArray[Any]:
    """ISO 8601 text of times, with their UTC offset in a zone; row numbers unchanged."""
    if times.dtype.kind != "M":
        return times
    if time_zone is None:
        return np.datetime_as_string(times, unit="s").astype(object)
    zoned = pd.DatetimeIndex(times.ravel(), tz="UTC").tz_convert(time_zone)
    texts = np.array([time.isoformat() for time in zoned], dtype=object)
    return texts.reshape(times.shape)


@contextmanager
def _closed_after(file: Any) -> Iterator[Any]:
    """Close a file; after an error quietly, for a full disk may refuse its last bytes."""
    try:
        yield file
    except BaseException:
        with suppress(OSError):
            file.close()
        raise
    file.close()
