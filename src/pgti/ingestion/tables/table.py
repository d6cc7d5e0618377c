"""Tables as readers see them: columns, a sample, and batches of rows, whatever the format.

A format (text, Parquet, Arrow, a frame in memory) makes a `Table`; a shape (wide, long, transposed)
makes `Readings` of one.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pgti.errors import DataError
from pgti.ingestion.instants import RowLabels

__all__ = ["ColumnKind", "Table", "TableRows"]

ColumnKind: TypeAlias = Literal["number", "text", "time"]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class TableRows:
    """Consecutive rows of a table.

    Attributes:
        first_row: number of the first of them.
        values: cells of the columns that were asked for as numbers, float32 or float64
            [rows, columns], owned by the receiver; NaN where a cell is empty or says "missing".
        others: cells of each other column that was asked for, as a pyarrow Array [rows]: strings
            as written (without blanks around them) in a text file, else what the format holds.
    """

    first_row: int
    values: NDArray[np.floating[Any]]
    others: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Table:
    """An opened table.

    Attributes:
        name: what messages call it.
        titles: of the columns, without blanks around them; None where there is no header.
        kinds: what each column holds, as the sample or the types of the format show it. Times that
            are written as text, and epoch times, are "text" and "number".
        sample: cells of the first rows: text in a text file, else Python's values.
        read: `read(numbers, others, budget_bytes)` reads the table from its beginning: batches of
            rows with the columns at these positions, in this order. A batch takes about that much
            memory (one row at least). It raises a DataError that names the first cell which is
            not a number in a column of numbers.
        levels: labels of each column where columns have several levels, as a DataFrame's may.
        level_names: of those levels, "" for one without a name.
        num_rows: rows, where the format gives them in advance.
        first_line: number of the line that holds row 0, where the table is text.
        zones: time zone of each column of times that has one, by position.
        notes: what the user should know of how the table was opened, one line each.
        time: position of the column of times, where it is known.
        num_index: first columns that are the index of a DataFrame, which holds no readings.
    """

    name: str
    titles: tuple[str, ...] | None
    kinds: tuple[ColumnKind, ...]
    sample: tuple[tuple[Any, ...], ...]
    read: Callable[[Sequence[int], Sequence[int], int], Iterator[TableRows]]
    levels: tuple[tuple[str, ...], ...] = ()
    level_names: tuple[str, ...] = ()
    num_rows: int | None = None
    first_line: int | None = None
    zones: tuple[tuple[int, Any], ...] = ()
    notes: tuple[str, ...] = ()
    time: int | None = None
    num_index: int = 0

    @property
    def num_columns(self) -> int:
        """Columns of any kind."""
        return len(self.kinds)

    @property
    def _titles(self) -> tuple[str, ...]:
        return self.titles or tuple(map(str, range(1, self.num_columns + 1)))

    @property
    def labels(self) -> RowLabels:
        """What messages call the rows."""
        return RowLabels(self.name, self.first_line)

    def position(self, name: str) -> int:
        """Position of the column with a title, or with a number from 1 where there is no header.

        Raises:
            DataError: if there is none, or several.
        """
        titles = self._titles
        found = [place for place, title in enumerate(titles) if title == name.strip()]
        if not found:
            folded = name.strip().lower()
            found = [place for place, title in enumerate(titles) if title.lower() == folded]
        if len(found) != 1:
            problem = "no column" if not found else f"{len(found)} columns"
            shown = ", ".join(titles[:12]) + (", ..." if len(titles) > 12 else "")
            raise DataError(f"{self.name} has {problem} {name!r}; it has {shown}")
        return found[0]

    def column(self, place: int) -> str:
        """What messages call a column: "column 3 (flow)"."""
        title = f" ({self.titles[place]})" if self.titles and self.titles[place] else ""
        return f"column {place + 1}{title}"

    def cells(self, place: int) -> tuple[Any, ...]:
        """The cells of a column in the sample."""
        return tuple(row[place] for row in self.sample)

    def without(self, names: Sequence[str]) -> "Table":
        """The table without the columns of these titles, or numbers where there is no header.

        Columns that had no titles are called by their numbers then.

        Raises:
            DataError: if there is no such column, or several.
        """
        return self.without_places(set(map(self.position, names)))

    def without_places(self, left_out: Collection[int]) -> "Table":
        """The table without the columns at these positions, as `without` names them."""
        if not left_out:
            return self
        kept = [place for place in range(self.num_columns) if place not in left_out]

        def read(
            numbers: Sequence[int], others: Sequence[int], budget_bytes: int
        ) -> Iterator[TableRows]:
            places = [[kept[each] for each in wanted] for wanted in (numbers, others)]
            return self.read(places[0], places[1], budget_bytes)

        return replace(
            self,
            titles=tuple(self._titles[each] for each in kept),
            kinds=tuple(self.kinds[each] for each in kept),
            sample=tuple(tuple(row[each] for each in kept) for row in self.sample),
            levels=tuple(self.levels[each] for each in kept) if self.levels else (),
            read=read,
            zones=tuple((kept.index(each), zone) for each, zone in self.zones if each in kept),
            num_index=sum(each < self.num_index for each in kept),
        )
