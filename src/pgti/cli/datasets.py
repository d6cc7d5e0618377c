"""`pgti datasets`: list and describe published data sets."""

from typing import Any, Literal
from urllib.parse import urlsplit

from rich.table import Table

from pgti.cli.output import print_json, show
from pgti.datasets import DATASETS, Dataset, find_dataset

__all__ = ["datasets_command"]


def datasets_command(name: str | None = None, /, *, json: bool = False) -> None:
    """List the data sets that `pgti fetch` can download, or describe one.

    Args:
        name: Data set to describe. By default all are listed.
        json: Print one JSON object as the last line of standard output.
    """
    if name is not None:
        described = _describe(find_dataset(name))
        show(_details(described))
        if json:
            print_json(described)
        return
    show(_listing())
    if json:
        print_json({"datasets": [_describe(dataset) for dataset in DATASETS.values()]})


def _describe(dataset: Dataset) -> dict[str, Any]:
    """Facts about a data set, by name."""
    return {
        "name": dataset.name,
        "summary": dataset.summary,
        "shape": list(dataset.shape),
        "channels": list(dataset.channels),
        "units": list(dataset.units),
        "interval": dataset.interval,
        "start": dataset.start,
        "years": list(dataset.years),
        "zeros": dataset.zeros,
        "can_download": bool(dataset.downloads),
        "download_bytes": dataset.download_bytes,
        "store_bytes_at_most": dataset.store_bytes_at_most,
        "licence": dataset.licence,
        "source_page": dataset.source_page,
        "downloads": {download.name: download.url for download in dataset.downloads},
        "files": [
            {"names": list(form.files), "archives": list(form.archives)}
            for form in dataset.file_sets
        ],
        "notes": [note for note in (dataset.zeros_note, *dataset.notes) if note],
    }


def _listing() -> Table:
    table = Table(title="data sets for `pgti fetch NAME`", title_justify="left")
    for title in ("name", "T x N x C", "interval", "download", "store", "licence", "source"):
        justify: Literal["left", "right"] = "right" if title in ("download", "store") else "left"
        table.add_column(title, justify=justify, no_wrap=title in ("name", "T x N x C"))
    for dataset in DATASETS.values():
        table.add_row(
            dataset.name,
            " x ".join(f"{size:,}" for size in dataset.shape),
            dataset.interval,
            _download(dataset),
            f"<= {_size(dataset.store_bytes_at_most)}",
            dataset.licence,
            urlsplit(dataset.source_page).netloc.removeprefix("www."),
        )
    table.caption = "\n".join(dict.fromkeys(each.source_page for each in DATASETS.values()))
    table.caption_justify = "left"
    return table


def _details(described: dict[str, Any]) -> Table:
    table = Table(title=described["name"], title_justify="left", show_header=False)
    for name, value in described.items():
        table.add_row(name.replace("_", " "), _shown(name, value))
    return table


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name == "files":
        return "\nor ".join(", ".join((*form["names"], *form["archives"])) for form in value)
    if isinstance(value, dict):
        return "\n".join(f"{key}: {item}" for key, item in value.items())
    if isinstance(value, list):
        return ("\n" if name == "notes" else ", ").join(str(item) for item in value)
    if name.endswith(("_bytes", "_bytes_at_most")):
        return _size(value)
    return str(value)


def _download(dataset: Dataset) -> str:
    if not dataset.downloads:
        return "by hand"
    return "unknown" if dataset.download_bytes is None else _size(dataset.download_bytes)


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
