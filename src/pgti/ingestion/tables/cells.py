"""Cells of text: which are missing, which are numbers, and how numbers are written.

A file writes its numbers with one decimal sign. "1,234" could be either of two numbers: what other
cells show decides, or else the user.
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from pgti.errors import DataError, option

__all__ = ["GROUP_SIGNS", "MISSING_WORDS", "Numerals", "find_decimal", "is_missing", "is_number"]

MISSING_WORDS = (
    *("", "NA", "N/A", "n/a", "#N/A", "#NA", "#N/A N/A", "<NA>", "NaN", "nan", "NAN", "-nan"),
    *("-NaN", "null", "NULL", "Null", "None", "none", "#DIV/0!", "#NUM!"),
    *("1.#QNAN", "-1.#QNAN", "1.#IND", "-1.#IND"),
)
GROUP_SIGNS = (" ", "\u00a0", "\u202f", "\u2009", "'", "\u2019")
"""Between thousands, whatever the decimal sign; a comma or a dot may be one more."""

_SIGN = r"[+\-\u2212]?"
_SHAPES = {
    "several commas": rf"{_SIGN}\d{{1,3}}(,\d{{3}}){{2,}}",
    "several dots": rf"{_SIGN}\d{{1,3}}(\.\d{{3}}){{2,}}",
    "commas, then a dot": rf"{_SIGN}\d{{1,3}}(,\d{{3}})+\.\d*",
    "dots, then a comma": rf"{_SIGN}\d{{1,3}}(\.\d{{3}})+,\d*",
    "a comma or a group": rf"{_SIGN}[1-9]\d{{0,2}},\d{{3}}",
    "a dot or a group": rf"{_SIGN}[1-9]\d{{0,2}}\.\d{{3}}",
    "a comma": rf"{_SIGN}\d*,\d*([eE][+-]?\d+)?",
    "a dot": rf"{_SIGN}\d*\.\d*([eE][+-]?\d+)?",
    "whole": rf"{_SIGN}\d{{1,3}}",
    "long whole": rf"{_SIGN}\d{{4,}}",
}
_SHAPE = re.compile(
    "|".join(f"(?P<s{place}>{each})" for place, each in enumerate(_SHAPES.values()))
)
_SHAPE_NAMES = {f"s{place}": name for place, name in enumerate(_SHAPES)}
_SHOWS = {
    **dict.fromkeys(("several commas", "commas, then a dot", "a dot"), "."),
    **dict.fromkeys(("several dots", "dots, then a comma", "a comma"), ","),
}
_BLANK_GROUPS = re.compile(
    rf"{_SIGN}\d{{1,3}}(?P<sign>[{''.join(GROUP_SIGNS)}])\d{{3}}((?P=sign)\d{{3}})*"
    r"(?P<decimal>[.,])\d*"
)
_GROUPS = {  # by decimal sign
    sign: re.compile(rf"{_SIGN}\d{{1,3}}(?P<sign>[{other}{''.join(GROUP_SIGNS)}])\d{{3}}"
                     rf"((?P=sign)\d{{3}})*({re.escape(sign)}\d*)?")
    for sign, other in ((".", ","), (",", "."))
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerals:
    """How a file writes numbers, and what it writes where there is none.

    Attributes:
        decimal: the decimal sign.
        is_certain: whether the decimal sign was said or shown, so that the other sign, a comma or
            a dot, stands between thousands.
        missing: texts that mean "missing".
        codes: numbers that do.
    """

    decimal: str = "."
    is_certain: bool = False
    missing: tuple[str, ...] = MISSING_WORDS
    codes: tuple[float, ...] = ()

    def is_missing(self, cell: str) -> bool:
        """Whether a cell is empty, or a text that means "missing"."""
        return cell.strip() in self.missing

    def find_decimal(
        self, cells: Iterable[str], name: str, *, may_group_by_dots: bool
    ) -> str | None:
        """The same as `find_decimal`, of the cells that do not mean "missing"."""
        observed = (
            cell
            for cell in cells
            if not self.is_missing(cell) and (not self.codes or self.value(cell) not in self.codes)
        )
        return find_decimal(observed, name, may_group_by_dots=may_group_by_dots)

    def is_number(self, cell: str) -> bool:
        """Whether a cell is a number (missing and infinite included)."""
        return self.value(cell) is not None or self.is_missing(cell)

    def are_numbers(self, cells: tuple[str, ...]) -> bool:
        """Whether all cells are numbers (missing and infinite included)."""
        if self.decimal == ".":
            with suppress(ValueError):
                return len(tuple(map(float, cells))) >= 0  # quick, for thousands of columns
        return all(map(self.is_number, cells))

    def value(self, cell: str) -> float | None:
        """The number in a cell; None if it is not one."""
        number = _to_float(cell) if self.decimal == "." else None
        return _to_float(self._plain(cell)) if number is None else number

    def _plain(self, cell: str) -> str:
        """A cell as Python writes a number, if it is one."""
        text = cell.strip()
        grouped = _GROUPS[self.decimal].fullmatch(text)
        if grouped and (self.is_certain or grouped["sign"] in GROUP_SIGNS):
            text = text.replace(grouped["sign"], "")
        if self.decimal != ".":
            text = text.replace(".", "?").replace(self.decimal, ".")
        return text.replace("\u2212", "-")


def _to_float(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


_PLAIN = Numerals()


def is_number(cell: str) -> bool:
    """Whether a cell is a number (missing and infinite included), with a decimal point if any."""
    return _PLAIN.is_number(cell)


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or a word that means "missing" everywhere."""
    return _PLAIN.is_missing(cell)


def find_decimal(cells: Iterable[str], name: str, *, may_group_by_dots: bool) -> str | None:
    """The decimal sign that cells show; None if they show none.

    Args:
        cells: some of the file.
        name: what messages call the file.
        may_group_by_dots: whether dots could stand between thousands, as where commas do not
            separate cells.

    Raises:
        DataError: if the cells could be numbers of either sign, or show both.
    """
    first: dict[str, str] = {}
    for cell in cells:
        text = cell.strip()
        blanks = _BLANK_GROUPS.fullmatch(text)
        if blanks is not None:
            first.setdefault("a comma" if blanks["decimal"] == "," else "a dot", text)
        shape = _SHAPE.fullmatch(text)
        if shape is not None and shape.lastgroup is not None:
            first.setdefault(_SHAPE_NAMES[shape.lastgroup], text)
    shown = {_SHOWS[shape]: text for shape, text in first.items() if shape in _SHOWS}
    if len(shown) == 2:
        raise DataError(
            f"{name} holds {shown['.']!r}, with a decimal point, and {shown[',']!r}, with a "
            "decimal comma: write all numbers the same way"
        )
    if shown:
        return next(iter(shown))
    unclear = first.get("a comma or a group")
    # Where dots stand between thousands, numbers without one are short.
    if unclear is None and may_group_by_dots and "whole" in first and "long whole" not in first:
        unclear = first.get("a dot or a group")
    if unclear is not None:
        whole = re.sub(r"[.,]", "", unclear)
        part = unclear.replace(",", ".")
        what, other = ("comma", ".") if "," in unclear else ("dot", ",")
        raise DataError(
            f"{name} holds {unclear!r}, which is {part} if the {what} is the decimal sign (pass "
            f"{option('decimal', '.,'.replace(other, ''))}), or {whole} if it stands between "
            f"thousands (pass {option('decimal', other)})"
        )
    return None
