"""How objects show themselves: a title and a few facts, as text and in a notebook."""

import html
import sys
from abc import abstractmethod
from collections.abc import Mapping, Sequence

__all__ = ["Display", "count_of", "print_line", "shorten", "size_text"]


class Display:
    """Base of classes whose `repr` is a title and a few lines, whatever their size."""

    __slots__ = ()

    @abstractmethod
    def describe(self) -> tuple[str, Mapping[str, str]]:
        """A title, and facts by name; each is one line."""

    def __repr__(self) -> str:
        title, facts = self.describe()
        width = max(map(len, facts), default=0)
        return "\n".join([title, *(f"  {name:<{width}}  {fact}" for name, fact in facts.items())])

    def _repr_html_(self) -> str:
        title, facts = self.describe()
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(fact)}</td></tr>"
            for name, fact in facts.items()
        )
        return f"<p>{html.escape(title)}</p><table>{rows}</table>"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """A number and what it counts: "1 window", "2,000 windows"."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def shorten(names: Sequence[str], limit: int = 4) -> str:
    """Names separated by commas, the first few of many."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names):,} in all)"


def print_line(line: str) -> None:
    """Print a line for a user of Python on standard error."""
    print(f"pgti: {line}", file=sys.stderr)  # noqa: T201 - notes and choices


def size_text(num_bytes: float) -> str:
    """A number of bytes to read: "0.5 KiB", "73.6 MiB", "2.19 GiB"."""
    if num_bytes >= 2**27:
        return f"{num_bytes / 2**30:,.2f} GiB"
    exponent, unit = (20, "MiB") if num_bytes >= 2**17 else (10, "KiB")
    return f"{num_bytes / 2**exponent:.1f} {unit}"
