"""Readings in CSV and TSV files, compressed or not: a column for each sensor."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pgti.errors import DataError
from pgti.ingest.line_check import CheckedLines
from pgti.ingest.options import IngestOptions
from pgti.ingest.readings import Chunk, Readings, reading, rows_per_chunk
from pgti.ingest.sensor_ids import text_ids
from pgti.ingest.text_layout import MISSING_CELLS, TextLayout, find_layout, is_number, open_text
from pgti.ingest.time_column import EpochTimes
from pgti.ingest.written_times import WrittenTimes

__all__ = ["open_delimited"]

_READ_BYTES = 1 << 20
_PARSER_COPIES = 3  # pandas holds a chunk's text, its columns and their join at the same time


def open_delimited(path: Path, options: IngestOptions) -> Readings:
    """Readings in a text file, one line a row and one column a sensor.

    Raises:
        DataError: if the file is empty, or its layout cannot be told.
    """
    layout = find_layout(path, options)
    source = _TextSource(path, layout, options)
    leading = layout.num_leading
    return Readings(
        name=path.name,
        num_nodes=layout.num_cells - leading,
        num_channels=1,
        node_ids=None if layout.cells is None else text_ids(_stripped(layout.cells[leading:])),
        is_aware=source.times is not None and source.times.is_aware,
        time_zone=None if source.times is None else source.times.time_zone,
        row_label=source.row_label,
        chunks=source.chunks,
    )


def _stripped(cells: tuple[str, ...]) -> list[str]:
    return [cell.strip() for cell in cells]


class _TextSource:
    def __init__(self, path: Path, layout: TextLayout, options: IngestOptions) -> None:
        self._path = path
        self._layout = layout
        self.times: WrittenTimes | EpochTimes | None = None
        first, name = layout.first_time, path.name
        if first is None:
            return
        if options.time_format is None and is_number(first) and first not in MISSING_CELLS:
            self.times = EpochTimes(float(first), name, self.row_label)
            return
        self.times = WrittenTimes(
            first,
            time_format=options.time_format,
            name=name,
            label=self.row_label,
            time_zone=options.time_zone,
        )

    def row_label(self, row: int) -> str:
        return f"line {row + 1 + self._layout.num_header_lines}"

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        layout, name = self._layout, self._path.name
        rows = rows_per_chunk(budget_bytes // _PARSER_COPIES, layout.num_cells)
        first_row = 0
        with reading(name, "a table of text"), open_text(self._path) as file:
            checked = CheckedLines(file, layout.delimiter, layout.num_cells, name)
            frames = self._frames(io.BufferedReader(checked, _READ_BYTES), rows)
            while True:
                try:
                    frame = next(frames, None)
                except (DataError, pd.errors.ParserError):
                    raise
                except ValueError as error:
                    raise self._bad_cell(first_row, error) from error
                if frame is None:
                    return
                yield self._chunk(frame, first_row)
                first_row += len(frame)

    def _frames(self, file: io.BufferedReader, rows: int) -> Iterator[pd.DataFrame]:
        layout = self._layout
        leading = layout.num_leading
        # One dtype for all columns is read faster than one for each.
        dtypes: Any = np.float64
        if leading:
            dtypes = {0: str, **dict.fromkeys(range(leading, layout.num_cells), np.float64)}
        yield from pd.read_csv(
            file,
            sep=layout.delimiter,
            header=None,
            names=list(range(layout.num_cells)),
            index_col=False,
            skiprows=layout.num_header_lines,
            dtype=dtypes,
            na_values=list(MISSING_CELLS),
            keep_default_na=False,
            chunksize=rows,
            encoding="utf-8-sig",
            skipinitialspace=True,
        )

    def _chunk(self, frame: pd.DataFrame, first_row: int) -> Chunk:
        leading = self._layout.num_leading
        values = frame.iloc[:, leading:].to_numpy(dtype=np.float64, copy=True)
        seconds = None
        if self.times is not None:
            seconds = self.times.seconds(frame.iloc[:, 0], first_row)
        return Chunk(values=np.ascontiguousarray(values)[..., np.newaxis], seconds=seconds)

    def _bad_cell(self, first_row: int, error: ValueError) -> DataError:
        """Find the cell that pandas could not read, which it does not say: it is in this chunk."""
        layout, name = self._layout, self._path.name
        with open_text(self._path) as binary:
            text = io.TextIOWrapper(binary, encoding="utf-8-sig", newline="")
            lines = csv.reader(text, delimiter=layout.delimiter)
            for line, cells in enumerate(lines):
                if line < first_row + layout.num_header_lines:
                    continue
                for column, cell in enumerate(cells[layout.num_leading :]):
                    if not is_number(cell):
                        row = line - layout.num_header_lines
                        place = column + layout.num_leading
                        title = f"column {place + 1}"
                        if layout.cells is not None:
                            title += f" ({layout.cells[place].strip()})"
                        return DataError(
                            f"{self.row_label(row)}, {title} of {name} holds {cell!r}: it must "
                            "be a number, or empty or NaN where the reading is missing"
                        )
        return DataError(f"{name} cannot be read as a table of numbers: {error}")
