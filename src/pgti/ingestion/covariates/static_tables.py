"""Features and places of the sensors from a table: a row for each sensor, its id in a column."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pgti.display import count_of, shorten
from pgti.errors import DataError, option
from pgti.ingestion.axes import LATITUDE_NAMES, LONGITUDE_NAMES
from pgti.ingestion.cleaning import numeric_codes
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import ID_NAMES, ids_to_text
from pgti.ingestion.sources import TableSource, open_any_table
from pgti.ingestion.tables.cells import is_missing, is_number
from pgti.ingestion.tables.long_names import MAYBE_SENSORS, SENSORS
from pgti.ingestion.tables.table import Table
from pgti.store.static_features import StaticFeatures

__all__ = ["StaticTable", "read_static"]

_FEW_NAMES, _MAX_CATEGORIES = 10, 1000
_SAYS_NUMBERS = 0.5  # of the cells of a column of text


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StaticTable:
    """What a table says about the N sensors of a series.

    Attributes:
        features: [N, S], missing where the source lacks a sensor; None if it has coordinates alone.
        coordinates: [N, 2] latitude and longitude in degrees, if it has them for every sensor.
        notes: what the user should know, one line each.
    """

    features: StaticFeatures | None
    coordinates: NDArray[np.float64] | None
    notes: tuple[str, ...]


def read_static(
    source: TableSource, node_ids: tuple[str, ...], options: IngestOptions
) -> StaticTable:
    """Features and coordinates of the sensors of a series.

    The column of ids is that of a usual name, else the only one with ids of the series. Numbers
    are numeric; text, booleans, pandas' `Categorical` and the columns that `categorical` names have
    categories. Columns called latitude and longitude are coordinates. Times and texts that nearly
    every sensor has to itself are left out.

    Args:
        source: a file (text, Parquet, Feather, Arrow) or a frame, with titles.
        node_ids: ids of the N sensors.
        options: `categorical`, `encoding` and `decimal` are used. Numbers of `missing` mean missing
            readings, and are features here, with a note.

    Raises:
        DataError: if the source cannot be read, has no id of the series or an id twice, or a
            column mixes numbers and text.
    """
    categorical = set(options.categorical)
    if isinstance(source, pd.DataFrame):
        kinds = source.dtypes.items()
        categorical |= {str(name) for name, kind in kinds if isinstance(kind, pd.CategoricalDtype)}
    read_as = IngestOptions(header=True, encoding=options.encoding, decimal=options.decimal)
    table = open_any_table(source, read_as)
    for name in options.categorical:
        table.position(name)
    reader = _Reader(table, node_ids, categorical)
    reader.read(options.budget_bytes)
    features = reader.features()
    coordinates = reader.coordinates()
    reader.note_missing(numeric_codes(options.missing))
    return StaticTable(features=features, coordinates=coordinates, notes=tuple(reader.notes))


class _Reader:
    """Reads the rows of the sensors of a series.

    Args:
        table: the table.
        node_ids: of the series.
        categorical: columns whose values are categories, whatever they hold.

    Attributes:
        notes: what the user should know.
    """

    def __init__(self, table: Table, node_ids: tuple[str, ...], categorical: set[str]) -> None:
        if table.titles is None:
            raise DataError(f"{table.name} has no header: give each feature a title")
        self._table, self._titles, self._node_ids = table, table.titles, node_ids
        self._places = {each: place for place, each in enumerate(node_ids)}
        self._id = self._id_column()
        self.notes: list[str] = []
        booleans = {p for p in range(table.num_columns) if _are_booleans(table.cells(p))}
        self._latlon = self._coordinate_columns(categorical)
        self._numbers: list[int] = list(self._latlon)
        self._words: list[int] = []
        for place, title in enumerate(self._titles):
            if place == self._id or not self._is_feature(place, title, title in categorical):
                continue
            is_number = table.kinds[place] == "number" and place not in booleans
            chosen = self._words if title in categorical or not is_number else self._numbers
            chosen.append(place)
        if not self._numbers and not self._words:
            raise DataError(f"{table.name} has no column of features beside the ids")
        self._named = categorical
        self._values = np.full((len(node_ids), len(self._numbers)), np.nan)
        self._texts: list[list[str | None]] = [[None] * len(node_ids) for _ in self._words]

    def _id_column(self) -> int:
        """The column of ids: that of a usual name, else the only one with ids of the series."""
        names = [title.strip().lower().replace(" ", "_") for title in self._titles]
        holds = [
            bool(self._places.keys() & set(_as_text(self._table.cells(place))))
            for place in range(len(names))
        ]
        for usual in (SENSORS | set(ID_NAMES), MAYBE_SENSORS):
            found = [place for place, name in enumerate(names) if name in usual]
            found = [place for place in found if holds[place]] or found
            if len(found) == 1:
                return found[0]
        if self._table.num_index == 1:
            return 0
        found = [place for place, has_ids in enumerate(holds) if has_ids]
        if len(found) != 1:
            which = "no column" if not found else f"{len(found)} columns"
            raise DataError(
                f"{self._table.name} has {which} with ids of the sensors "
                f"({shorten(self._node_ids)}): call the column of ids 'id'"
            )
        return found[0]

    def _is_feature(self, place: int, title: str, named: bool) -> bool:
        """Whether a column is a feature; what is left out is noted."""
        if not title:
            numbers = _as_text(self._table.cells(place))
            if numbers == list(map(str, range(len(numbers)))):  # of the rows, as pandas writes them
                return False
            raise DataError(f"column {place + 1} of {self._table.name} has no title: give it one")
        is_time = self._table.kinds[place] == "time" and not named
        if is_time:
            self.notes.append(f"{title} of {self._table.name} is a time: left out of the features")
        return not is_time and place not in self._latlon

    def _coordinate_columns(self, named: set[str]) -> tuple[int, ...]:
        """The columns of latitudes and longitudes, if there is one of each."""
        columns = [
            [
                place
                for place, title in enumerate(self._titles)
                if title.strip().lower() in names
                and title not in named
                and self._table.kinds[place] == "number"
            ]
            for names in (LATITUDE_NAMES, LONGITUDE_NAMES)
        ]
        return tuple(place for (place,) in columns) if [*map(len, columns)] == [1, 1] else ()

    def read(self, budget_bytes: int) -> None:
        """Read all rows.

        Raises:
            DataError: if an id occurs twice, or none is one of the series.
        """
        found = np.zeros(len(self._node_ids), dtype=np.bool_)
        extra: list[str] = []
        for rows in self._table.read(self._numbers, [self._id, *self._words], budget_bytes):
            labels = [label.strip() for label in ids_to_text(rows.others[0].to_pylist())]
            texts = [_as_text(column.to_pylist()) for column in rows.others[1:]]
            for row, label in enumerate(labels):
                place = self._places.get(label)
                if place is None:
                    extra.append(label)
                    continue
                if found[place]:
                    raise DataError(
                        f"{self._table.labels(rows.first_row + row)} has the sensor {label!r} "
                        "again: give each sensor one row"
                    )
                found[place] = True
                self._values[place] = rows.values[row]
                for column, words in zip(self._texts, texts, strict=True):
                    column[place] = words[row]
        name = self._table.name
        if not found.any():
            raise DataError(
                f"{name} has none of the series's sensors: it has {shorten(extra)}, and they are "
                f"called {shorten(self._node_ids)}"
            )
        absent = [each for each, has in zip(self._node_ids, found, strict=True) if not has]
        if absent:
            self.notes.append(
                f"{name} lacks {count_of(len(absent), 'sensor')} ({shorten(absent)}): their "
                "features are missing"
            )
        if extra:
            self.notes.append(
                f"{name} has {count_of(len(extra), 'sensor')} that the series lacks "
                f"({shorten(extra)}): left out"
            )

    def coordinates(self) -> NDArray[np.float64] | None:
        """[N, 2] latitude and longitude, if every sensor has them."""
        if not self._latlon:
            return None
        latlon = self._values[:, :2]
        named = " and ".join(self._titles[place] for place in self._latlon)
        unknown = np.isnan(latlon).any(axis=1)
        if unknown.any():
            ids = [each for each, lacks in zip(self._node_ids, unknown, strict=True) if lacks]
            self.notes.append(
                f"{named} of {self._table.name} lack {count_of(len(ids), 'sensor')} "
                f"({shorten(ids)}): the store has no coordinates"
            )
            return None
        self.notes.append(f"{named} of {self._table.name} are the coordinates of the sensors")
        return latlon

    def features(self) -> StaticFeatures | None:
        """The features, in the order of the columns; None if there are coordinates alone.

        Raises:
            DataError: if there is neither, a value is infinite, or a column mixes numbers and text.
        """
        columns: dict[int, tuple[NDArray[np.float64], tuple[str, ...]]] = {}
        for place, values in self._features_of_numbers():
            if np.isinf(values).any():
                raise DataError(
                    f"{self._titles[place]} of {self._table.name} has an infinite value: correct it"
                )
            columns[place] = (values, ())
        for place, texts in zip(self._words, self._texts, strict=True):
            if self._has_categories(place, texts):
                columns[place] = _encode(texts)
        known = {p: each for p, each in columns.items() if not np.isnan(each[0]).all()}
        for place in sorted(columns.keys() - known.keys()):
            self.notes.append(
                f"{self._titles[place]} of {self._table.name} is empty: left out of the features"
            )
        if not known and self._latlon:
            return None
        if not known:
            raise DataError(f"{self._table.name} has no feature of the sensors: {self.notes[-1]}")
        self._note_codes(known)
        order = sorted(known)
        features = StaticFeatures(
            names=tuple(self._titles[place] for place in order),
            units=("",) * len(order),
            values=np.stack([known[place][0] for place in order], axis=1),
            categories=tuple(known[place][1] for place in order),
        )
        self.notes.insert(0, f"static features of {self._table.name}: {features.describe()}")
        return features

    def _features_of_numbers(self) -> list[tuple[int, NDArray[np.float64]]]:
        """Columns of numbers that are features, and their values [N]."""
        columns = list(zip(self._numbers, self._values.T, strict=True))
        return columns[len(self._latlon) :]

    def note_missing(self, codes: tuple[float, ...]) -> None:
        """Say which features hold what means missing in the readings."""
        for place, values in self._features_of_numbers():
            for code in codes:
                if num_found := int((values == code).sum()):
                    self.notes.append(
                        f"{self._titles[place]} of {self._table.name} is {code:g} at "
                        f"{count_of(num_found, 'sensor')}: a value of the feature, unlike in the "
                        "readings; leave its cell empty if it is missing"
                    )

    def _has_categories(self, place: int, texts: Sequence[str | None]) -> bool:
        """Whether a column of text is a feature; a mixture of numbers and text is refused."""
        title, name = self._titles[place], self._table.name
        cells = [text for text in texts if text is not None]
        distinct = len(set(cells))
        if title not in self._named:
            numbers = [cell for cell in cells if is_number(cell.replace(",", "."))]
            if cells and len(numbers) > _SAYS_NUMBERS * len(cells):
                other = next((cell for cell in cells if cell not in set(numbers)), numbers[0])
                raise DataError(
                    f"{title} of {name} holds numbers and {other!r}: correct it, or take its "
                    f"values for categories with {option('categorical', title)}"
                )
            if distinct > _FEW_NAMES and 2 * distinct > len(cells):
                self.notes.append(
                    f"{title} of {name} has {distinct:,} texts for {len(cells):,} sensors: left "
                    f"out of the features ({option('categorical', title)} takes it)"
                )
                return False
        if distinct > _MAX_CATEGORIES:
            self.notes.append(
                f"{title} of {name} has {distinct:,} categories, more than {_MAX_CATEGORIES:,}: "
                "left out of the features"
            )
            return False
        return True

    def _note_codes(self, columns: dict[int, tuple[NDArray[np.float64], tuple[str, ...]]]) -> None:
        """Say which numbers may be codes."""
        whole = [
            self._titles[place]
            for place, (values, words) in sorted(columns.items())
            if not words and (np.nan_to_num(values) == np.rint(np.nan_to_num(values))).all()
        ]
        if whole:
            self.notes.append(
                f"whole numbers are taken for quantities: {shorten(whole)}; if they are codes of "
                f"categories, add {option('categorical', ','.join(whole[:3]))}"
            )


def _encode(texts: Sequence[str | None]) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Positions of texts among their categories, which rise: by number if all are numbers."""
    distinct = {text for text in texts if text is not None}
    if all(is_number(text) for text in distinct):
        words = tuple(sorted(distinct, key=lambda text: (float(text), text)))
    else:
        words = tuple(sorted(distinct))
    positions = {word: place for place, word in enumerate(words)}
    return np.array(
        [np.nan if each is None else positions[each] for each in texts], dtype=np.float64
    ), words


def _as_text(cells: Sequence[Any]) -> list[str | None]:
    """Cells as text; None where one is missing."""
    texts = ids_to_text(list(cells))
    return [
        None if cell is None or cell != cell or is_missing(text) else text.strip()  # noqa: PLR0124 - NaN
        for cell, text in zip(cells, texts, strict=True)
    ]


def _are_booleans(cells: Sequence[Any]) -> bool:
    known = [cell for cell in cells if cell is not None]
    return bool(known) and all(isinstance(cell, bool) for cell in known)
