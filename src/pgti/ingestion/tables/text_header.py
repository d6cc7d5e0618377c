"""Whether the first line of a text file holds titles or data."""

from pgti.errors import DataError, option
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.tables.cells import Numerals
from pgti.ingestion.times.columns import find_epoch_unit
from pgti.ingestion.times.texts import fit_format, is_date

__all__ = ["find_header", "find_level_lines"]

_MIN_COUNTED_IDS = 8  # fewer readings may well rise 0, 1, 2, ...
_MIN_ID, _ID_FACTOR = 1000, 10  # ids that are far above every reading


def find_header(
    rows: list[tuple[str, ...]], options: IngestOptions, numerals: Numerals, name: str
) -> bool:
    """Whether the first of some rows of cells is a header.

    Raises:
        DataError: if it could hold sensor ids or readings.
    """
    said = _shown_by_names(rows[0], options) if options.header is None else options.header
    if said is not None:
        return said
    body = rows[1:]
    dated = _dated_columns(body or rows, options)
    times = [rows[0][place].strip() for place in sorted(dated)]
    if any(_is_time(cell, options, numerals) for cell in times):
        return False
    kept = [place for place in range(len(rows[0])) if place not in dated]
    cells = tuple(rows[0][place] for place in kept)
    below = [tuple(row[place] for place in kept) for row in body if len(row) == len(rows[0])]
    if not all(map(numerals.is_number, cells)):
        if not any(_is_decimal(cell, numerals) for cell in cells):
            return True
    elif dated:
        return True  # the first line has no time, unlike those below it
    elif not _could_be_ids(cells):
        return False
    elif _look_like_ids(cells, below, numerals):
        return True
    raise DataError(
        f"the first line of {name} ({', '.join(cells[:3])}, ...) could hold sensor ids or "
        f"readings: pass {option('header', value=True)} or {option('header', value=False)}"
    )


def _shown_by_names(cells: tuple[str, ...], options: IngestOptions) -> bool | None:
    """Whether the columns that the user names have these titles, or numbers; None if neither."""
    names = {each.strip().lower() for each in (*options.time_columns, *options.long)}
    names |= {each.strip().lower() for each in options.ignore}
    if names and names <= {cell.strip().lower() for cell in cells}:
        return True
    is_count = all(each.isdecimal() and 0 < int(each) <= len(cells) for each in names)
    return False if names and is_count else None


def find_level_lines(
    rows: list[tuple[str, ...]], options: IngestOptions, numerals: Numerals
) -> int:
    """How many of the first rows hold columns of two levels, as pandas writes them; else 0.

    Two lines have the labels, behind the name of each level; a third may have the index's name.
    """
    if options.header is False or options.transpose or len(rows) < 3:
        return 0
    (head, *outer), (below, *inner) = rows[0], rows[1]
    if len(outer) != len(inner) or len(outer) < 2 or not all((*outer, *inner)):
        return 0
    pairs = set(zip(outer, inner, strict=True))
    is_product = len(pairs) == len(outer) == len(set(outer)) * len(set(inner))
    repeats = len(set(outer)) < len(outer)  # titles of one level never do
    are_names = not any(numerals.value(cell) is not None or is_date(cell) for cell in (head, below))
    if not is_product or not repeats or not are_names:
        return 0
    first, *others = rows[2]
    has_name = not any(others) and numerals.value(first) is None and not is_date(first)
    return 2 + has_name


def _dated_columns(rows: list[tuple[str, ...]], options: IngestOptions) -> set[int]:
    """Positions of the columns that hold times."""
    if options.timestamps is False or options.transpose:
        return set()
    columns = list(enumerate(zip(*rows, strict=False)))
    form = options.time_format
    if options.timestamps or form is not None:
        return {place for place, cells in columns if form and fit_format(cells, form)} or {0}
    return {place for place, cells in columns if all(map(is_date, cells))}


def _is_time(cell: str, options: IngestOptions, numerals: Numerals) -> bool:
    """Whether a cell of the first line is a time, so that the line is not a header."""
    if options.time_format is not None:
        return fit_format((cell,), options.time_format)
    number = numerals.value(cell)
    return is_date(cell) or (number is not None and find_epoch_unit(number) is not None)


def _is_decimal(cell: str, numerals: Numerals) -> bool:
    return (
        not cell.strip().isdecimal()
        and numerals.value(cell) is not None
        and not numerals.is_missing(cell)
    )


def _could_be_ids(cells: tuple[str, ...]) -> bool:
    texts = [cell.strip() for cell in cells]
    # pandas writes an empty cell above row numbers.
    texts = texts[1:] if texts[0] == "" else texts
    return bool(texts) and all(text.isdecimal() for text in texts) and len(set(texts)) == len(texts)


def _look_like_ids(cells: tuple[str, ...], body: list[tuple[str, ...]], numerals: Numerals) -> bool:
    """Whether whole numbers are sensor ids: counted, unlike the readings, or far above them."""
    if cells[0].strip() == "":
        return bool(body) and [row[0].strip() for row in body] == list(map(str, range(len(body))))
    ids = [int(cell) for cell in cells]
    if len(ids) >= _MIN_COUNTED_IDS and ids == list(range(len(ids))):
        return True
    texts = [cell for row in body for cell in row if not numerals.is_missing(cell)]
    values = [abs(value) for cell in texts if (value := numerals.value(cell)) is not None]
    if not values:
        return False
    if any(_is_decimal(cell, numerals) for cell in texts):
        return True
    return min(ids) >= _MIN_ID and min(ids) >= _ID_FACTOR * max(values)
