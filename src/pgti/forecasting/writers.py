"""The formats of forecast files: CSV, Parquet and NPZ, each written in bounded memory."""

import shutil
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
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

    Attributes:
        timestamps: times (or row numbers) of the targets, [S, H]; in UTC where there is a zone.
        origins: times (or row numbers) of the last inputs, [S]; likewise.
        forecast: in original units, float32 [S, H, N, C].
        observed: observed values, NaN where missing, float32 [S, H, N, C]; None if unknown.
    """

    timestamps: Times
    origins: Times
    forecast: NDArray[np.float32]
    observed: NDArray[np.float32] | None


@dataclass(frozen=True, kw_only=True, slots=True)
class ForecastNames:
    """Names of the axes of every block.

    Attributes:
        sensor_ids: name of each node.
        channels: name of each target channel.
        time_zone: IANA name of the zone to write times in, None for times without one.
    """

    sensor_ids: tuple[str, ...]
    channels: tuple[str, ...]
    time_zone: str | None = None


class AbstractForecastWriter(ABC):
    """Writes blocks of forecasts to one file, in the order in which they arrive."""

    @abstractmethod
    def write(self, block: ForecastBlock) -> None:
        """Append a block; the first decides whether the file has observed values."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the file."""

    @abstractmethod
    def abandon(self) -> None:
        """Close everything that is open; the file is incomplete."""


@contextmanager
def open_writer(path: Path, names: ForecastNames) -> Iterator[AbstractForecastWriter]:
    """A writer of the format that the suffix names; the file appears when the block ends.

    Raises:
        ConfigError: if the suffix is unknown, or the directory does not exist.
        MissingExtraError: if the library of the format is not installed.
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
        """Whether the file has the column, which the first block decides."""
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
    """The block's observed values, or as many NaN where it has none."""
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
            import pyarrow  # noqa: PLC0415 - an extra
            import pyarrow.parquet  # noqa: PLC0415 - an extra
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
            self._writer.is_open = False  # or pyarrow closes it again at garbage collection
        _close_regardless(self._file)


class _NpzWriter(AbstractForecastWriter):
    """Collects each array in a nameless file, then packs them all into an archive.

    Plain writes, not a memory map: on a full disk they raise, where a map ends the process.
    """

    def __init__(self, path: Path, names: ForecastNames) -> None:
        self._path = path
        self._columns = _Columns(names)
        self._arrays: dict[str, NDArray[Any]] = {
            "sensor_ids": np.array(names.sensor_ids, dtype=np.str_),
            "channels": np.array(names.channels, dtype=np.str_),
        }
        if names.time_zone is not None:
            self._arrays["time_zone"] = np.array(names.time_zone, dtype=np.str_)
        self._files: dict[str, IO[bytes]] = {}
        self._last: dict[str, NDArray[Any]] = {}
        self._num_windows = 0

    def write(self, block: ForecastBlock) -> None:
        self._last = {
            "forecast": block.forecast,
            "timestamps": block.timestamps,
            "origins": block.origins,
        }
        if self._columns.has_observed(block):
            self._last["observed"] = observed_or_nan(block)
        for name, array in self._last.items():
            if name not in self._files:
                self._files[name] = TemporaryFile(dir=self._path.parent)  # noqa: SIM115 - until finish
            # As bytes: datetime64 does not export a buffer.
            self._files[name].write(np.ascontiguousarray(array).view(np.uint8).data)
        self._num_windows += len(block.forecast)

    def finish(self) -> None:
        if self._last:
            self._arrays["horizon"] = np.arange(1, self._last["forecast"].shape[1] + 1)
        with zipfile.ZipFile(self._path, "w") as archive:
            for name in sorted(self._arrays.keys() | self._files):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    if name in self._arrays:
                        np.lib.format.write_array(member, self._arrays[name], allow_pickle=False)
                    else:
                        self._copy(name, member)

    def _copy(self, name: str, member: IO[bytes]) -> None:
        header = np.lib.format.header_data_from_array_1_0(self._last[name])
        shape = (self._num_windows, *self._last[name].shape[1:])
        np.lib.format.write_array_header_1_0(member, header | {"shape": shape})
        with self._files[name] as file:
            file.seek(0)
            shutil.copyfileobj(file, member, 1 << 20)

    def abandon(self) -> None:
        for file in self._files.values():
            _close_regardless(file)


def _readable(times: NDArray[Any], time_zone: str | None) -> NDArray[Any]:
    """ISO 8601 text of times, with their UTC offset in a zone; row numbers unchanged."""
    if times.dtype.kind != "M":
        return times
    if time_zone is None:
        return np.datetime_as_string(times, unit="s").astype(object)
    zoned = pd.DatetimeIndex(times.ravel(), tz="UTC").tz_convert(time_zone)
    texts = np.array([time.isoformat() for time in zoned], dtype=object)
    return texts.reshape(times.shape)


def _close_regardless(file: IO[Any]) -> None:
    """Close an incomplete file: a full disk may refuse its last bytes."""
    try:
        file.close()
    except OSError:
        return
