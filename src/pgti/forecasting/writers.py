"""The formats of forecast files: CSV, Parquet and NPZ, each written in bounded memory."""

import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.errors import ConfigError, MissingExtraError
from pgti.storage import replace_atomically

__all__ = ["AbstractForecastWriter", "ForecastBlock", "ForecastNames", "open_writer"]

Times = NDArray[np.datetime64] | NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ForecastBlock:
    """Forecasts of a few windows, on the host.

    Args:
        timestamps: times (or row numbers) of the targets, [S, H]; in UTC where there is a zone.
        origins: times (or row numbers) of the last inputs, [S]; likewise.
        forecast: in original units, float32 [S, H, N, C].
        observed: the readings, NaN where missing, float32 [S, H, N, C]; None if unknown.
    """

    timestamps: Times
    origins: Times
    forecast: NDArray[np.float32]
    observed: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastNames:
    """What the axes of every block are called.

    Args:
        sensor_ids: name of each node.
        channels: name of each target channel.
        time_zone: IANA name of the zone to write times in, or None where they have none.
    """

    sensor_ids: tuple[str, ...]
    channels: tuple[str, ...]
    time_zone: str | None = None


class AbstractForecastWriter(ABC):
    """Writes blocks of forecasts to one file, in the order they come."""

    @abstractmethod
    def write(self, block: ForecastBlock) -> None:
        """Add a block; the first decides whether the file has observed readings."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of everything that is open; the file is of no use."""


@contextmanager
def open_writer(path: Path, names: ForecastNames) -> Iterator[AbstractForecastWriter]:
    """A writer of the format that the suffix names; the file appears when the block is left.

    Raises:
        ConfigError: if the suffix names no format, or the directory does not exist.
        MissingExtraError: if the format needs a library that is not installed.
        RunError: if the file cannot be written.
    """
    writers: dict[str, type[_CsvWriter] | type[_ParquetWriter] | type[_NpzWriter]] = {
        ".csv": _CsvWriter,
        ".parquet": _ParquetWriter,
        ".npz": _NpzWriter,
    }
    kind = writers.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(
            f"{path} has the suffix {path.suffix!r}: forecasts are written as {', '.join(writers)}"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"{path} cannot be written: the directory {path.parent} does not exist")
    if path.is_dir():
        raise ConfigError(f"{path} cannot be written: it is a directory")
    with replace_atomically(path) as partial:
        writer = kind(partial, names)
        try:
            yield writer
            writer.finish()
        except BaseException:
            writer.abandon()
            raise


class _Columns:
    """Turns blocks into columns, one entry per forecast."""

    def __init__(self, names: ForecastNames) -> None:
        self.sensor_ids = np.array(names.sensor_ids, dtype=object)
        self.channels = np.array(names.channels, dtype=object)
        self._has_observed: bool | None = None

    def has_observed(self, block: ForecastBlock) -> bool:
        """Whether the file has the column; the first block decides."""
        if self._has_observed is None:
            self._has_observed = block.observed is not None
        return self._has_observed

    def columns(self, block: ForecastBlock) -> dict[str, NDArray[Any]]:
        """Columns by name; `sensor` and `channel` as positions."""
        shape = block.forecast.shape
        nodes = np.arange(shape[2], dtype=np.int32)[:, None]
        channels = np.arange(shape[3], dtype=np.int32)
        steps = np.arange(1, shape[1] + 1, dtype=np.int32)[:, None, None]
        spread = {
            "timestamp": block.timestamps[:, :, None, None],
            "origin": block.origins[:, None, None, None],
            "horizon": steps,
            "sensor": nodes,
            "channel": channels,
            "forecast": block.forecast,
        }
        if self.has_observed(block):
            spread["observed"] = observed_or_nan(block)
        # Each broadcast to [S, H, N, C], then flat
        return {name: np.broadcast_to(array, shape).ravel() for name, array in spread.items()}


def observed_or_nan(block: ForecastBlock) -> NDArray[np.float32]:
    """The block's readings, or as many NaN where it has none."""
    if block.observed is not None:
        return block.observed
    return np.full_like(block.forecast, np.nan)


class _CsvWriter(AbstractForecastWriter):
    def __init__(self, path: Path, names: ForecastNames) -> None:
        self._columns = _Columns(names)
        self._time_zone = names.time_zone
        self._file = path.open("w", encoding="utf-8", newline="")
        self._is_first = True

    def write(self, block: ForecastBlock) -> None:
        timestamps = _readable(block.timestamps, self._time_zone)
        origins = _readable(block.origins, self._time_zone)
        columns = self._columns.columns(replace(block, timestamps=timestamps, origins=origins))
        columns["sensor"] = self._columns.sensor_ids[columns["sensor"]]
        columns["channel"] = self._columns.channels[columns["channel"]]
        frame = pd.DataFrame(columns)
        frame.to_csv(self._file, index=False, header=self._is_first, lineterminator="\n")
        self._is_first = False

    def finish(self) -> None:
        self._file.close()

    def abandon(self) -> None:
        _close_regardless(self._file)


class _ParquetWriter(AbstractForecastWriter):
    def __init__(self, path: Path, names: ForecastNames) -> None:
        try:
            import pyarrow  # noqa: PLC0415 # an extra
            import pyarrow.parquet  # noqa: PLC0415 # an extra
        except ImportError:
            raise MissingExtraError("pyarrow", "parquet") from None
        self._arrow = pyarrow
        self._columns = _Columns(names)
        self._time_zone = names.time_zone
        self._sensors = pyarrow.array(list(names.sensor_ids), pyarrow.string())
        self._channels = pyarrow.array(list(names.channels), pyarrow.string())
        self._file = path.open("wb")
        self._writer: Any = None

    def write(self, block: ForecastBlock) -> None:
        arrow = self._arrow
        columns: dict[str, Any] = dict(self._columns.columns(block))
        for name, words in (("sensor", self._sensors), ("channel", self._channels)):
            columns[name] = arrow.DictionaryArray.from_arrays(arrow.array(columns[name]), words)
        if self._time_zone is not None:
            zoned = arrow.timestamp("s", tz=self._time_zone)
            for name in ("timestamp", "origin"):
                columns[name] = arrow.array(columns[name]).cast(zoned)
        if "observed" in columns:
            columns["observed"] = arrow.array(columns["observed"], from_pandas=True)
        table = arrow.table(columns)
        if self._writer is None:
            self._writer = arrow.parquet.ParquetWriter(self._file, table.schema)
        self._writer.write_table(table)

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._file.close()

    def abandon(self) -> None:
        if self._writer is not None:
            _close_regardless(self._writer)
            self._writer.is_open = False  # or else pyarrow tries again when it is collected
        _close_regardless(self._file)


class _NpzWriter(AbstractForecastWriter):
    """Grows one .npy file per array, and packs them into an archive at the end."""

    def __init__(self, path: Path, names: ForecastNames) -> None:
        self._path = path
        self._names: dict[str, NDArray[Any]] = {
            "sensor_ids": np.array(names.sensor_ids, dtype=np.str_),
            "channels": np.array(names.channels, dtype=np.str_),
        }
        if names.time_zone is not None:
            self._names["time_zone"] = np.array(names.time_zone, dtype=np.str_)
        self._columns = _Columns(names)
        self._parts = path.with_name(f"{path.name}-parts")
        self._parts.mkdir()
        self._growing: dict[str, _GrowingArray] = {}

    def write(self, block: ForecastBlock) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "forecast": block.forecast,
            "timestamps": block.timestamps,
            "origins": block.origins,
        }
        if self._columns.has_observed(block):
            arrays["observed"] = observed_or_nan(block)
        for name, array in arrays.items():
            if name not in self._growing:
                self._growing[name] = _GrowingArray(self._parts / f"{name}.npy")
            self._growing[name].append(array)
        self._names["horizon"] = np.arange(1, block.forecast.shape[1] + 1)

    def finish(self) -> None:
        for growing in self._growing.values():
            growing.finish()
        for name, array in self._names.items():
            np.save(self._parts / f"{name}.npy", array, allow_pickle=False)
        with zipfile.ZipFile(self._path, "w", allowZip64=True) as archive:
            for part in sorted(self._parts.iterdir()):
                archive.write(part, part.name)
        shutil.rmtree(self._parts)

    def abandon(self) -> None:
        for growing in self._growing.values():
            _close_regardless(growing.file)
        shutil.rmtree(self._parts, ignore_errors=True)


class _GrowingArray:
    """An .npy file whose first dimension grows; the header is written again at the end."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("w+b")
        self._shape: tuple[int, ...] = ()
        self._dtype: np.dtype[Any] | None = None
        self._length = 0

    def append(self, array: NDArray[Any]) -> None:
        if self._dtype is None:
            self._dtype, self._shape = array.dtype, array.shape[1:]
            self._write_header()
        self._length += len(array)
        # Bytes, for datetime64 has no buffer of its own.
        self.file.write(np.ascontiguousarray(array).view(np.uint8).data)

    def finish(self) -> None:
        self.file.seek(0)
        self._write_header()
        self.file.close()

    def _write_header(self) -> None:
        if self._dtype is None:
            return
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self._length, *self._shape),
        }
        # numpy leaves room for the first dimension to grow, so that the header keeps its length.
        np.lib.format.write_array_header_1_0(self.file, header)


def _readable(moments: NDArray[Any], time_zone: str | None) -> NDArray[Any]:
    """ISO 8601 text of times, with their distance from UTC in a zone; row numbers as they are."""
    if moments.dtype.kind != "M":
        return moments
    if time_zone is None:
        return np.datetime_as_string(moments, unit="s").astype(object)
    zoned = pd.DatetimeIndex(moments.ravel(), tz="UTC").tz_convert(time_zone)
    texts = np.array([time.isoformat() for time in zoned], dtype=object)
    return texts.reshape(moments.shape)


def _close_regardless(file: IO[Any]) -> None:
    """Close a file that is of no use: a full disk may refuse its last bytes."""
    try:
        file.close()
    except OSError:
        return
