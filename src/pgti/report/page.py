"""A report as plain contents, and as one HTML file that asks for nothing outside itself."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import numpy as np

from pgti.display import printable
from pgti.errors import MissingExtraError

__all__ = ["Missing", "Page", "Panel", "Section", "Table", "render_page"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A figure of a page.

    Attributes:
        name: of the element, unique on the page.
        figure: a plotly figure, without a title.
        caption: what it shows, in a sentence or two: text beside the figure, and for readers that
            do not see it.
        choices: what a list above the figure offers, by its label: the `values` of each sensor (an
            array with NaN where there is none), `label` of the color bar and `difference`.
        action: what a click on it does; "curves" shows the series of the sensor.
    """

    name: str
    figure: Any
    caption: str
    choices: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    action: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table of texts.

    Attributes:
        caption: what it shows.
        columns: their headings.
        rows: the texts of each row.
        num_texts: columns of text at the left; the others are numbers, aligned at the right.
        sensors: of each row, the position of the sensor that its first text names, to be clicked;
            empty for rows that name none.
        is_folded: whether it is shown only once its caption is clicked.
        note: what its words mean, shown below it.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    num_texts: int = 1
    sensors: Sequence[int] = ()
    is_folded: bool = False
    note: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """What a report lacks.

    Attributes:
        text: what is missing, and why.
        command: what fills it; empty where nothing does.
    """

    text: str
    command: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a page with a heading.

    Attributes:
        heading: its title.
        texts: paragraphs.
        panels: figures.
        tables: tables.
        missing: what it lacks.
        is_wide: whether each figure takes the whole width.
    """

    heading: str
    texts: Sequence[str] = ()
    panels: Sequence[Panel] = ()
    tables: Sequence[Table] = ()
    missing: Sequence[Missing] = ()
    is_wide: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A report.

    Attributes:
        title: of the page.
        lead: the main findings, a sentence each.
        sections: in their order.
        ids: of the sensors.
        curves: series of each sensor for the panel "curves": see `page.js`; None without them.
        written: when and by what the page was written.
    """

    title: str
    lead: Sequence[str]
    sections: Sequence[Section]
    ids: Sequence[str] = ()
    curves: Mapping[str, Any] | None = None
    written: str = ""


def render_page(page: Page) -> str:
    """The page as HTML with plotly, styles, scripts and data inside.

    Texts are escaped everywhere. The page has a content security policy that forbids every request.

    Raises:
        MissingExtraError: if plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingExtraError("plotly", "report") from None
    from jinja2 import Environment, PackageLoader  # noqa: PLC0415 - takes a while
    from markupsafe import Markup  # noqa: PLC0415

    environment = Environment(
        loader=PackageLoader("pgti.report", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: printable(value) if type(value) is str else value,
    )
    panels = [panel for section in page.sections for panel in section.panels]
    data = {
        "figures": {panel.name: panel.figure.to_plotly_json() for panel in panels},
        "choices": {panel.name: panel.choices for panel in panels if panel.choices},
        "actions": {panel.name: panel.action for panel in panels if panel.action},
        "ids": list(page.ids),
        "curves": page.curves,
    }
    return environment.get_template("page.html.jinja").render(
        page=page,
        style=Markup(_resource("page.css")),
        script=Markup(_resource("page.js")),
        plotly=Markup(get_plotlyjs()),
        data=Markup(_script_json(data)),
    )


def _resource(name: str) -> str:
    return files("pgti.report").joinpath(name).read_text(encoding="utf-8")


def _script_json(value: Any) -> str:
    """JSON that no content can end: without `<`, `>`, `&` and line separators."""
    text = json.dumps(value, default=_encode, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _encode(value: Any) -> Any:
    """Arrays of numbers as plotly writes them, base64 of their bytes; others as lists."""
    if isinstance(value, np.generic):
        return _finite(value.item())
    if hasattr(value, "to_numpy"):
        value = value.to_numpy()
    if not isinstance(value, np.ndarray):
        return str(value)
    if (
        value.dtype.kind not in "iuf"
        or value.dtype.itemsize > 8
        or value.dtype.kind + str(value.dtype.itemsize) in ("i8", "u8")
    ):
        return [_finite(each) for each in value.tolist()] if value.ndim == 1 else value.tolist()
    kind = f"{value.dtype.kind}{value.dtype.itemsize}"
    plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
    packed = {"dtype": kind, "bdata": base64.b64encode(plain.tobytes()).decode()}
    return packed | ({"shape": ",".join(map(str, value.shape))} if value.ndim > 1 else {})


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
