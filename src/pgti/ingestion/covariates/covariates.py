"""What a new store has beside its readings: features of the sensors, values known in advance."""

from dataclasses import dataclass
from typing import Any

from pgti.errors import ConfigError, option
from pgti.ingestion.covariates.future_files import FutureSeries, read_future
from pgti.ingestion.covariates.static_tables import StaticTable, read_static
from pgti.ingestion.later_rows import RowSplitter, lay_over, note_on_rows
from pgti.ingestion.newer.matching import SourceChannels
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings
from pgti.ingestion.sources import ReadingsSource, TableSource
from pgti.store import TimeAxis
from pgti.store.codec import Values

__all__ = ["CovariateSources", "DescribedSeries", "IngestedFuture"]


@dataclass(frozen=True, kw_only=True, slots=True)
class CovariateSources:
    """Sources of covariates; see `pgti.ingest`.

    Attributes:
        static: of the features of the sensors.
        future: of values known in advance.
    """

    static: TableSource | None
    future: ReadingsSource | None

    def read_static(self, node_ids: tuple[str, ...], options: IngestOptions) -> StaticTable:
        """Features and coordinates of the sensors, where the table has them, and notes.

        Raises:
            ConfigError: if options belong to a source that is not given.
            DataError: see `read_static`.
        """
        if self.future is not None and not options.known_future:
            raise ConfigError(
                f"values known in advance are given and no channel is: name the channels with "
                f"{option('known_future')}"
            )
        if self.static is not None:
            return read_static(self.static, node_ids, options)
        if options.categorical:
            raise ConfigError(
                f"categorical names features ({', '.join(options.categorical)}) and there are "
                f"none: give their table with {option('static')}"
            )
        return StaticTable(features=None, coordinates=None, notes=())


class IngestedFuture:
    """Gives the values that are known in advance, once the times of the series are.

    Args:
        readings: the source of the series.
        rows: those that it has after the last reading.
        source: of values known in advance, if it is another.
        described: the store.

    Attributes:
        notes: what the user should know, one line each; complete once it was called.
    """

    def __init__(
        self,
        readings: Readings,
        rows: RowSplitter,
        source: ReadingsSource | None,
        described: "DescribedSeries",
    ) -> None:
        self._readings, self._rows, self._source = readings, rows, source
        self._described = described
        self.notes: tuple[str, ...] = ()

    def __call__(self, axis: TimeAxis) -> Values:
        """The values after the last row of a time axis [rows, N, F].

        Raises:
            DataError: if a time is none of those that follow the last row.
        """
        known = self._described.options.known_future
        values = self._rows.later(axis)
        if len(values):
            self.notes += (note_on_rows(self._readings.name, axis, values, known),)
        if self._source is not None:
            series = self._described.at(self._readings, axis)
            later, notes = read_future(self._source, series, {})
            values = lay_over(values, later)
            self.notes += (*notes, note_on_rows("the store", axis, values, known))
        return values


@dataclass(frozen=True, kw_only=True, slots=True)
class DescribedSeries:
    """What is known of a store before its times.

    Attributes:
        node_ids: ids of the sensors.
        channels: names of the channels.
        dtype: of its readings.
        options: how its source is read.
    """

    node_ids: tuple[str, ...]
    channels: tuple[str, ...]
    dtype: Any
    options: IngestOptions

    def at(self, readings: Readings, axis: TimeAxis) -> FutureSeries:
        """The series with these times, for a source that belongs to it."""
        options, sources = self.options, readings.channels or ()
        scale = options.scale * len(self.channels) if len(options.scale) == 1 else options.scale
        return FutureSeries(
            node_ids=self.node_ids,
            channels=SourceChannels(
                names=self.channels,
                sources=sources if len(sources) == len(self.channels) else (),
                scale=scale,
            ),
            known=options.known_future,
            remembered=options.of_readings(),
            axis=axis,
            dtype=self.dtype,
        )
