"""Text as a `Table`: blocks of lines, parsed by pyarrow."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import reraise_read_errors
from pgti.ingestion.tables.cells import GROUP_SIGNS, Numerals
from pgti.ingestion.tables.table import Table, TableRows
from pgti.ingestion.tables.text_layout import TextLayout, find_layout
from pgti.ingestion.tables.text_lines import open_utf8, read_blocks, squeeze_blanks

__all__ = ["open_text_table"]

_FORMAT = "a table of text"
_BYTES_PER_NUMBER = 20  # of pyarrow's columns, their places in the text, and the values
_SEARCHED_COLUMNS, _SHOWN_CODES = 100, 4  # for other texts that may mean "missing"
_LARGEST_WHOLE, _SAFE_DIGITS = 2.0**53 - 1, 16  # of the whole numbers that float64 holds
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
        squeeze = squeeze_blanks if layout.delimiter == " " else bytes
        first_row = 0
        with reraise_read_errors(path.name, _FORMAT), open_utf8(path, options.encoding) as file:
            size = _block_bytes(layout, budget_bytes)
            for block, line in read_blocks(file, path.name, size, layout.first_line - 1):
                values, cells = parser.parse(squeeze(block), line)
                yield TableRows(first_row=first_row, values=values, others=cells)
                first_row += len(values)

    return Table(
        name=path.name,
        titles=layout.titles,
        levels=layout.levels,
        level_names=layout.levels[0] if layout.levels else (),
        kinds=layout.kinds,
        sample=layout.sample,
        read=read,
        first_line=layout.first_line,
        notes=layout.notes,
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
        is_unsure: whether dots could stand between thousands, as nothing shows the decimal sign.
    """

    name: str
    layout: TextLayout
    numbers: tuple[int, ...]
    others: tuple[int, ...]
    is_unsure: bool = field(init=False)

    def __post_init__(self) -> None:
        numerals = self.layout.numerals
        self.is_unsure = not numerals.is_certain and self.layout.delimiter in ";\t"

    def parse(self, block: bytes, line: int) -> tuple[NDArray[np.float64], tuple[Any, ...]]:
        """Numbers [rows, columns] and text of a block whose first line has a number.

        Raises:
            DataError: naming the line that has too few or too many cells, or the first cell that
                is not a number.
        """
        values, others = self._parse(block, line)
        if self.is_unsure and (np.isfinite(values) & (values != np.trunc(values))).any():
            texts = self._read(block, line, dict.fromkeys(self.numbers, pa.string()))
            cells = (cell for each in texts.columns for cell in pc.unique(each).to_pylist())
            self.layout.numerals.find_decimal(
                filter(None, cells), self.name, may_group_by_dots=True
            )
            self.is_unsure = False
        if (np.abs(values) > _LARGEST_WHOLE).any():
            self._refuse_rounded(block, line)
        return values, others

    def _parse(self, block: bytes, line: int) -> tuple[NDArray[np.float64], tuple[Any, ...]]:
        if len(self.numbers) >= _MANY_COLUMNS and b'"' not in block:
            with suppress(pa.ArrowInvalid):
                return self._parse_flat(block, line)
        types = dict.fromkeys(self.numbers, pa.float64())
        try:
            table = self._read(block, line, types)
        except pa.ArrowInvalid:
            # Blanks around a missing word, thousands, or a cell that is not a number.
            texts = self._read(block, line, dict.fromkeys(self.numbers, pa.string()))
            return self._convert(texts, line), self._others(texts)
        numbers = table.select(range(len(self.numbers)))
        return _join_columns(numbers), self._others(table)

    def _parse_flat(self, block: bytes, line: int) -> tuple[NDArray[np.float64], tuple[Any, ...]]:
        """The same, where the last columns of many are numbers: they become one long column."""
        width, first = len(self.layout.kinds), self.numbers[0]
        if self.numbers != tuple(range(first, width)) or max(self.others, default=-1) >= first:
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
            pa.BufferReader(b"\n".join([*tails, b""]).replace(delimiter, b"\n")),
            read_options=pacsv.ReadOptions(
                use_threads=False, block_size=len(block) + 1, column_names=["0"]
            ),
            # No reading holds this delimiter, which must not be the end of a line.
            parse_options=pacsv.ParseOptions(
                delimiter="\x1f", quote_char=False, ignore_empty_lines=False
            ),
            convert_options=pacsv.ConvertOptions(
                column_types={"0": pa.float64()},
                null_values=self._missing(),
                decimal_point=self.layout.numerals.decimal,
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
                    null_values=self._missing(),
                    decimal_point=layout.numerals.decimal,
                ),
            )
        except pa.ArrowInvalid:
            if not ragged:
                raise
            row = ragged[0]
            raise self._ragged(line + row.number - 1, row.actual_columns) from None

    def _refuse_rounded(self, block: bytes, line: int) -> None:
        """Refuse whole numbers that float64 does not hold, unless they mean "missing"."""
        texts = self._read(block, line, dict.fromkeys(self.numbers, pa.string()))
        for place, position in enumerate(self.numbers):
            for row, cell in enumerate(texts.column(place).to_pylist()):
                text = (cell or "").strip()
                if len(text) < _SAFE_DIGITS or not text.removeprefix("-").isdecimal():
                    continue
                if int(text) != float(text) and float(text) not in self.layout.numerals.codes:
                    raise DataError(
                        f"line {line + row}, {self.layout.column(position)} of {self.name} holds "
                        f"{text}, a whole number above 2^53, which float64 rounds: subtract an "
                        "offset, or divide the readings"
                    )

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

    def _missing(self) -> list[str]:
        """Texts that mean "missing", also behind the blank that follows a delimiter."""
        words = self.layout.numerals.missing
        return [*words, *(f" {word}" for word in words)]

    def _convert(self, table: Any, line: int) -> NDArray[np.float64]:
        """Numbers from text that pyarrow does not convert as it is."""
        words = pa.array(self.layout.numerals.missing)
        columns = []
        for place, position in enumerate(self.numbers):
            cells = pc.utf8_trim_whitespace(table.column(place))
            cells = pc.if_else(pc.is_in(cells, words), None, cells)
            try:
                columns.append(_to_floats(cells, self.layout.numerals))
            except pa.ArrowInvalid:
                raise self._bad_cell(table, line, position, cells.to_pylist()) from None
        return _join_columns(pa.table(columns, names=list(map(str, range(len(columns))))))

    def _bad_cell(self, table: Any, line: int, position: int, cells: list[str | None]) -> DataError:
        """The first cell of a column that is not a number, and the option for it, if any."""
        wrong = self._wrong(cells)
        row = cells.index(wrong[0]) if wrong else 0
        place = f"line {line + row}, {self.layout.column(position)} of {self.name}"
        if not self.layout.numerals.is_certain:
            self.layout.numerals.find_decimal(wrong, place, may_group_by_dots=False)
        codes: dict[str, None] = {}
        for column in [cells, *(each.to_pylist() for each in table.columns[:_SEARCHED_COLUMNS])]:
            codes |= dict.fromkeys(
                cell for cell in self._wrong(column) if not any(map(str.isdecimal, cell))
            )
        shown = tuple(codes)[:_SHOWN_CODES]
        code = option("missing", shown if len(shown) > 1 else shown[0]) if shown else ""
        advice = f"; where text means missing, name it ({code})" if shown else ""
        return DataError(
            f"{place} holds {wrong[0] if wrong else cells[row]!r}: it must be a number, or empty "
            f"or NaN where the reading is missing{advice}"
        )

    def _wrong(self, cells: list[str | None]) -> list[str]:
        """Cells that are not numbers, each once, without blanks around them."""
        texts = (cell.strip() for cell in dict.fromkeys(cells) if cell is not None)
        return [text for text in texts if not self.layout.numerals.is_number(text)]


def _to_floats(cells: Any, numerals: Numerals) -> Any:
    """Floats [rows] of trimmed text; raises ArrowInvalid where it is not numbers."""
    signs: tuple[str, ...] = GROUP_SIGNS
    if numerals.is_certain:
        signs = (*signs, "." if numerals.decimal == "," else ",")
    for sign in signs:
        if pc.any(pc.match_substring(cells, sign)).as_py():
            group = rf"\x{{{ord(sign):x}}}\d{{3}}"
            pattern = rf"^[+\-\x{{2212}}]?\d{{1,3}}({group})+(\{numerals.decimal}\d*)?$"
            grouped = pc.match_substring_regex(cells, pattern)
            cells = pc.if_else(grouped, pc.replace_substring(cells, sign, ""), cells)
    if numerals.decimal != ".":
        if pc.any(pc.match_substring(cells, ".")).as_py():
            raise pa.ArrowInvalid("a decimal point among decimal commas")
        cells = pc.replace_substring(cells, numerals.decimal, ".")
    return pc.replace_substring(cells, "\u2212", "-").cast(pa.float64())


def _join_columns(table: Any) -> NDArray[np.float64]:
    """Columns of floats as one array [rows, columns]; NaN where they have no value."""
    if not table.num_columns:
        return np.empty((table.num_rows, 0))
    (batch,) = table.combine_chunks().to_batches()
    return np.ascontiguousarray(batch.to_tensor(null_to_nan=True).to_numpy())
