"""Text as a `Table`: blocks of lines, parsed by pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.cells import MISSING_WORDS, is_number
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.tables import Table, TableRows
from pgti.ingestion.text_layout import TextLayout, find_layout
from pgti.ingestion.text_lines import open_utf8, read_blocks

__all__ = ["open_text_table"]

_FORMAT = "a table of text"
_MISSING = [*MISSING_WORDS, *(f" {word}" for word in MISSING_WORDS)]
_BYTES_PER_NUMBER = 20  # of pyarrow's columns, their places in the text, and the values
_MIN_BLOCK_BYTES = 1 << 12
_MANY_COLUMNS = 500  # pyarrow takes a few microseconds for each column of a block


def open_text_table(path: Path, options: IngestOptions) -> Table:
    """A text file as a table; only its first lines are read.

    Raises:
        DataError: if the file is empty, or its layout is ambiguous.
    """
    layout = find_layout(path, options)

    def read(
        numbers: Sequence[int], others: Sequence[int], budget_bytes: int
    ) -> Iterator[TableRows]:
        parser = _Parser(path.name, layout, tuple(numbers), tuple(others))
        first_row = 0
        with reraise_read_errors(path.name, _FORMAT), open_utf8(path, options.encoding) as file:
            size = _block_bytes(layout, budget_bytes)
            for block, line in read_blocks(file, path.name, size, layout.first_line - 1):
                values, cells = parser.parse(block, line)
                yield TableRows(first_row=first_row, values=values, others=cells)
                first_row += len(values)

    return Table(
        name=path.name,
        titles=layout.titles,
        kinds=layout.kinds,
        sample=layout.sample,
        read=read,
        first_line=layout.first_line,
    )


def _block_bytes(layout: TextLayout, budget_bytes: int) -> int:
    """Bytes of text whose columns fit the budget."""
    row_bytes = max(1, layout.sample_bytes // len(layout.sample))
    share = row_bytes / (2 * row_bytes + _BYTES_PER_NUMBER * len(layout.kinds))
    return max(_MIN_BLOCK_BYTES, int(share * budget_bytes))


@dataclass(slots=True)
class _Parser:
    """Parses blocks of whole lines into numbers and text.

    Attributes:
        name: what messages call the file.
        layout: of the file.
        numbers: positions of the columns of numbers.
        others: positions of the columns of text.
    """

    name: str
    layout: TextLayout
    numbers: tuple[int, ...]
    others: tuple[int, ...]

    def parse(self, block: bytes, line: int) -> tuple[NDArray[np.float64], tuple[Any, ...]]:
        """Numbers [rows, columns] and text of a block whose first line has a number.

        Raises:
            DataError: naming the line that has too few or too many cells, or the first cell that
                is not a number.
        """
        if len(self.numbers) >= _MANY_COLUMNS and b'"' not in block:
            with suppress(pa.ArrowInvalid):
                return self._parse_flat(block, line)
        types = dict.fromkeys(self.numbers, pa.float64())
        try:
            table = self._read(block, line, types)
        except pa.ArrowInvalid as error:
            # Blanks around a missing word, or a cell that is not a number.
            texts = self._read(block, line, dict.fromkeys(self.numbers, pa.string()))
            return self._convert(texts, line, error), self._others(texts)
        numbers = table.select(range(len(self.numbers)))
        return _join_columns(numbers), self._others(table)

    def _parse_flat(self, block: bytes, line: int) -> tuple[NDArray[np.float64], tuple[Any, ...]]:
        """The same, where the last columns of many are numbers: they become one long column."""
        width, first = len(self.layout.kinds), self.numbers[0]
        if self.numbers != tuple(range(first, width)):
            raise pa.ArrowInvalid("readings between other columns")
        delimiter = self.layout.delimiter.encode()
        heads, tails = [], []
        for place, row in enumerate(block.replace(b"\r\n", b"\n").split(b"\n")):
            if row.count(delimiter) != width - 1:
                raise self._ragged(line + place, row.count(delimiter) + 1)
            *head, tail = row.split(delimiter, first)
            heads.append(head)
            tails.append(tail)
        column = pacsv.read_csv(
            pa.BufferReader(b"\n".join(tails).replace(delimiter, b"\n")),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=["0"]
            ),
            # No reading holds this delimiter, which must not be the end of a line.
            parse_options=pacsv.ParseOptions(
                delimiter="\x1f", quote_char=False, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={"0": pa.float64()}, null_values=_MISSING
            ),
        )
        values = np.array(column.column(0).to_numpy()).reshape(len(tails), len(self.numbers))
        texts = [
            pa.array([head[place].decode().strip() for head in heads]) for place in self.others
        ]
        return values, tuple(texts)

    def _read(self, block: bytes, line: int, types: dict[int, Any]) -> Any:
        ragged: list[Any] = []

        def note(row: Any) -> str:
            ragged.append(row)
            return "error"

        layout = self.layout
        types = types | dict.fromkeys(self.others, pa.string())
        names = list(map(str, range(len(layout.kinds))))
        try:
            return pacsv.read_csv(
                pa.BufferReader(block),
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=len(block) + 1, column_names=names
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=layout.delimiter,
                    newlines_in_values=b'"' in block,
                    ignore_empty_lines=False,
                    invalid_row_handler=note,
                ),
                convert_options=pacsv.ConvertOptions(
                    column_types={str(place): kind for place, kind in types.items()},
                    include_columns=list(map(str, (*self.numbers, *self.others))),
                    null_values=_MISSING,
                ),
            )
        except pa.ArrowInvalid:
            if not ragged:
                raise
            row = ragged[0]
            raise self._ragged(line + row.number - 1, row.actual_columns) from None

    def _ragged(self, line: int, num_cells: int) -> DataError:
        return DataError(
            f"line {line} of {self.name} has {count_of(num_cells, 'cell')} and the first has "
            f"{len(self.layout.kinds)}: every line must have as many"
        )

    def _others(self, table: Any) -> tuple[Any, ...]:
        columns = range(len(self.numbers), table.num_columns)
        return tuple(
            pc.utf8_trim_whitespace(table.column(place).combine_chunks()) for place in columns
        )

    def _convert(self, table: Any, line: int, error: Exception) -> NDArray[np.float64]:
        """Numbers from text that pyarrow does not convert as it is."""
        words = pa.array(MISSING_WORDS)
        columns = []
        for place, position in enumerate(self.numbers):
            cells = pc.utf8_trim_whitespace(table.column(place))
            cells = pc.if_else(pc.is_in(cells, words), None, cells)
            with suppress(pa.ArrowInvalid):
                columns.append(cells.cast(pa.float64()))
                continue
            for row, cell in enumerate(cells.to_pylist()):
                if cell is not None and not is_number(cell):
                    raise self._bad_cell(line + row, position, cell)
            raise DataError(f"{self.name} cannot be read as a table of numbers: {error}")
        return _join_columns(pa.table(columns, names=list(map(str, range(len(columns))))))

    def _bad_cell(self, line: int, position: int, cell: str) -> DataError:
        titles = self.layout.titles
        title = "" if titles is None else f" ({titles[position]})"
        return DataError(
            f"line {line}, column {position + 1}{title} of {self.name} holds {cell!r}: it must be "
            "a number, or empty or NaN where the reading is missing"
        )


def _join_columns(table: Any) -> NDArray[np.float64]:
    """Columns of floats as one array [rows, columns]; NaN where they have no value."""
    if not table.num_columns:
        return np.empty((table.num_rows, 0))
    (batch,) = table.combine_chunks().to_batches()
    return np.ascontiguousarray(batch.to_tensor(null_to_nan=True).to_numpy())
