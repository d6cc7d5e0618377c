"""How objects show themselves: a title and a few facts, as text and in a notebook."""

import html
import re
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from itertools import chain

__all__ = [
    "Display",
    "clipped",
    "count_of",
    "csv_text",
    "print_line",
    "printable",
    "shorten",
    "size_text",
]

_MAX_MESSAGE = 2000
_FORMULA = re.compile(r"[=@\t\r]|[+-](?![0-9.])")
_ESCAPES = {
    code: ascii(chr(code))[1:-1]
    for code in chain(
        range(0x20),
        range(0x7F, 0xA0),  # DEL and the controls of ISO 8859
        (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)),  # direction
        (0x2028, 0x2029),  # ends of lines
        range(0xD800, 0xE000),  # halves of pairs
    )
}


class Display:
    """Base of classes whose `repr` is a title and a few lines, whatever their size."""

    __slots__ = ()

    @abstractmethod
    def describe(self) -> tuple[str, Mapping[str, str]]:
        """A title, and facts by name; each is one line."""

    def __repr__(self) -> str:
        title, facts = _printable_facts(*self.describe())
        width = max(map(len, facts), default=0)
        return "\n".join([title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())])

    def _repr_html_(self) -> str:
        title, facts = _printable_facts(*self.describe())
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(fact)}</td></tr>"
            for name, fact in facts.items()
        )
        return f"<p>{html.escape(title)}</p><table>{rows}</table>"


def _printable_facts(title: str, facts: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    return printable(title), {printable(name): printable(fact) for name, fact in facts.items()}


def printable(text: str) -> str:
    r"""A text of one line that a terminal, a log or a page shows and does not obey.

    Control characters, ends of lines, marks of direction and unpaired surrogates become escapes
    such as `\x1b`; letters of every language stay.
    """
    try:
        return text if text.isprintable() else text.translate(_ESCAPES)
    except SystemError:  # NumPy reads text of any numbers, also of those beyond Unicode
        return ascii(text)[1:-1]


def clipped(text: str) -> str:
    """A message without its middle, if it repeats more of a file than anybody reads."""
    half = _MAX_MESSAGE // 2
    return text if len(text) <= _MAX_MESSAGE else f"{text[:half]} ... {text[-half:]}"


def csv_text(text: str) -> str:
    """A text as a CSV file holds it: a spreadsheet would compute `=1+1`, and shows `'=1+1`.

    Numbers stay as they are, also with a sign.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: "1 window", "2,000 windows"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shorten(names: Sequence[str], limit: int = 4) -> str:
    """Names separated by commas, the first few of many."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names):,} in all)"


def print_line(line: str) -> None:
    """Print a line for a user of Python on standard error."""
    print(f"pgti: {printable(line)}", file=sys.stderr)  # noqa: T201 - notes and choices


def size_text(num_bytes: float) -> str:
    """A number of bytes to read: "0.5 KiB", "73.6 MiB", "2.19 GiB"."""
    if num_bytes >= 2**27:
        return f"{num_bytes / 2**30:,.2f} GiB"
    exponent, unit = (20, "MiB") if num_bytes >= 2**17 else (10, "KiB")
    return f"{num_bytes / 2**exponent:.1f} {unit}"
