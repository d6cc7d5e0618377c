"""The figures of a store: `store.plot()`, `store.plot.coverage()` and the others."""

from typing import Any

import numpy as np

from pgti.display import count_of
from pgti.errors import ConfigError, DataError
from pgti.figures import (
    Plots,
    graph_layout,
    graph_objects,
    heat_map,
    sensor_map,
    series_lines,
    span_bars,
    stack_figures,
)
from pgti.store.gaps import Gap
from pgti.store.store import SeriesStore
from pgti.store.survey import Survey, survey_store
from pgti.store.time_rule import format_interval

__all__ = ["StorePlots"]


class StorePlots(Plots):
    """The figures of a store, one channel at a time; each needs plotly, the extra `report`.

    Each reads the channel once, in bounded memory; drawn together they read it once.

    Args:
        store: the store.
    """

    def __init__(self, store: SeriesStore) -> None:
        super().__init__()
        self._store = store

    def __call__(self, channel: str | None = None) -> Any:
        """The whole store at a glance: what was observed, longest gaps, typical week, map.

        Panels that would show nothing are left out: gaps where nothing is missing, the week where
        times are not known, and the map without a graph or coordinates.

        Args:
            channel: its name; by default the first that is not known in advance.

        Returns:
            A `plotly.graph_objects.Figure` with a panel below the other.

        Raises:
            ConfigError: if there is no such channel.
            DataError: if the store has no rows.
            MissingExtraError: if plotly is not installed.
        """
        name, found = self._survey(channel)
        panels = [self._coverage(name, found)]
        if found.gaps:
            panels.append(self._gaps(name, found))
        if found.season is not None:
            panels.append(self._week(name, found))
        if self._store.meta.num_edges or self._store.graph.coordinates is not None:
            panels.append(self._map(name, found))
        return stack_figures(panels)

    def coverage(self, channel: str | None = None) -> Any:
        """Which readings were observed, over time and sensors.

        Args:
            channel: its name; by default the first that is not known in advance.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            ConfigError: if there is no such channel.
            DataError: if the store has no rows.
            MissingExtraError: if plotly is not installed.
        """
        return self._finish(self._coverage(*self._survey(channel)))

    def gaps(self, channel: str | None = None) -> Any:
        """The ten longest stretches without a reading; sensors that miss the same rows are one.

        Args:
            channel: as in `coverage`.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            PgtiError: as `coverage`.
        """
        return self._finish(self._gaps(*self._survey(channel)))

    def week(self, channel: str | None = None) -> Any:
        """A typical week by hours: the median of the sensors, and between which most of them lie.

        Of daily readings it is one by days, and of readings a week or more apart a year by months.

        Args:
            channel: as in `coverage`.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            PgtiError: as `coverage`; a `ConfigError` if the times of the rows are not known.
        """
        name, found = self._survey(channel)
        if found.season is None:
            raise ConfigError(
                f"{self._store.path} has no typical week: the times of its rows are not known"
            )
        return self._finish(self._week(name, found))

    def map(self, channel: str | None = None) -> Any:
        """The sensors and the edges between them, colored by the mean reading.

        Args:
            channel: as in `coverage`.

        Returns:
            A `plotly.graph_objects.Figure`.

        Raises:
            PgtiError: as `coverage`.
        """
        return self._finish(self._map(*self._survey(channel)))

    def _survey(self, channel: str | None) -> tuple[str, Survey]:
        """A channel's name with its unit, and what it is like."""
        graph_objects()  # a missing library is known before the pass
        meta = self._store.meta
        if not meta.num_steps:
            raise DataError(f"{self._store.path} has no rows yet: there is nothing to draw")
        observed = [name for name in meta.channels if name not in meta.known_future]
        name = (observed or list(meta.channels))[0] if channel is None else channel
        (index,) = self._store.channel_indices((name,))
        unit = meta.units[index]
        return f"{name} in {unit}" if unit else name, survey_store(self._store, index)

    def _times(self, rows: Any) -> Any:
        axis = self._store.time_axis
        return axis.at(rows) if axis.is_dated else rows

    def _coverage(self, name: str, found: Survey) -> Any:
        ids = self._store.meta.node_ids
        sizes = np.diff(found.rows, append=self._store.meta.num_steps)
        blocks = np.diff(found.sensors, append=len(ids))
        missing = 1 - float((found.shares * np.outer(sizes, blocks)).sum() / sizes.sum() / len(ids))
        several = f", {count_of(int(blocks[0]), 'sensor')} a row" if blocks[0] > 1 else ""
        return heat_map(
            found.shares.T,
            x=self._times(found.rows),
            y=[ids[sensor] for sensor in found.sensors],
            label="share observed",
            x_title=self._store.time_axis.title,
            y_title=f"sensor{several}",
            limits=(0, 1),
            title=f"{name}: {_percent(missing)} missing",
            height=96 + min(300, 40 + 20 * len(found.sensors)),
        )

    def _gaps(self, name: str, found: Survey) -> Any:
        gaps = found.gaps
        firsts = self._times(np.array([gap.first for gap in gaps], dtype=np.int64))
        stops = self._times(np.array([gap.stop for gap in gaps], dtype=np.int64))
        figure = span_bars(
            [self._sensors_of(gap) for gap in gaps],
            firsts,
            stops,
            [self._extent(gap) for gap in gaps],
            x=self._store.time_axis.title,
            title="longest gaps" if gaps else "no reading is missing",
        )
        ends = self._times(np.array([0, self._store.meta.num_steps], dtype=np.int64))
        figure.update_xaxes(range=[str(end) for end in ends] if ends.dtype.kind == "M" else ends)
        return figure

    def _sensors_of(self, gap: Gap) -> str:
        more = gap.num_sensors - 1
        if more and gap.num_sensors == self._store.meta.num_nodes:
            return "all sensors"
        return self._store.meta.node_ids[gap.sensor] + (f" +{more:,}" if more else "")

    def _extent(self, gap: Gap) -> str:
        axis, rows = self._store.time_axis, count_of(gap.stop - gap.first, "row")
        if not axis.is_dated:
            return f"{rows} from {gap.first} on"
        first, stop = axis.seconds_at(np.array([gap.first, gap.stop])).tolist()
        return f"{rows}, {format_interval(stop - first)}, from {axis.isoformat(gap.first)}"

    def _week(self, name: str, found: Survey) -> Any:
        season = found.season
        assert season is not None
        known = np.asarray(np.isfinite(found.typical).any(axis=1))
        typical = np.where(known[:, None], found.typical, 0)
        lines, bands = {}, {}
        shares = np.nanquantile(typical, (0.05, 0.25, 0.5, 0.75, 0.95), axis=1)
        shares[:, ~known] = np.nan
        if typical.shape[1] == 1:
            lines["observed"] = shares[2]
        else:
            lines["median sensor"] = shares[2]
            bands["9 of 10 sensors"] = shares[0], shares[4]
            bands["half of sensors"] = shares[1], shares[3]
        figure = series_lines(
            list(season.bins),
            lines,
            label=name,
            bands=bands,
            x={"week": "day of the week", "year": "month"}[season.name],
            title=f"typical {season.name} by {season.part}",
        )
        ticks = list(season.bins)[:: season.every]
        texts = [tick.split()[0][:3] for tick in ticks]
        figure.update_xaxes(type="category", tickvals=ticks, ticktext=texts, tickangle=0)
        return figure

    def _map(self, name: str, found: Survey) -> Any:
        graph = self._store.graph
        return sensor_map(
            graph_layout(graph.adjacency, graph.coordinates),
            self._store.meta.node_ids,
            found.means,
            label=f"mean of {name}",
            edges=graph.edge_index,
            weights=graph.edge_weight,
            title=f"{count_of(graph.num_nodes, 'sensor')}, {count_of(graph.num_edges, 'edge')}",
        )


def _percent(share: float) -> str:
    return "nothing" if share == 0 else f"{share:.2%}" if share >= 1e-4 else "less than 0.01%"
