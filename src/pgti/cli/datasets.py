"""`pgti datasets`: list and describe published data sets."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rich.table import Table

from pgti.cli.flags import JsonFlag
from pgti.cli.output import build_table, facts_table, print_results

if TYPE_CHECKING:
    from pgti.datasets import Dataset

__all__ = ["datasets_command"]


def datasets_command(name: str | None = None, /, *, json: JsonFlag = False) -> None:
    """List the data sets that `pgti fetch` can download, or describe one.

    Args:
        name: Data set to describe. By default all are listed.
    """
    from pgti.datasets import DATASETS, find_dataset

    if name is not None:
        described = _describe(find_dataset(name))
        print_results(described, _details(described), as_json=json)
        return
    described = {"datasets": [_describe(dataset) for dataset in DATASETS.values()]}
    print_results(described, _listing(list(DATASETS.values())), as_json=json)


def _describe(dataset: "Dataset") -> dict[str, Any]:
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
        "protocol": None if dataset.protocol is None else asdict(dataset.protocol),
    }


def _listing(datasets: "list[Dataset]") -> Table:
    columns = ("name", "T x N x C", "interval", "licence", "source", "download", "store")
    rows = [
        (
            each.name,
            " x ".join(f"{size:,}" for size in each.shape),
            each.interval,
            each.licence,
            urlsplit(each.source_page).netloc.removeprefix("www."),
            _download(each),
            f"<= {_size(each.store_bytes_at_most)}",
        )
        for each in datasets
    ]
    return build_table("data sets for `pgti fetch NAME`", columns, rows, num_texts=5)


def _details(described: dict[str, Any]) -> Table:
    shown = {**described, "protocol": _protocol_text(described["protocol"])}
    facts = {name.replace("_", " "): _shown(name, value) for name, value in shown.items()}
    return facts_table(described["name"], facts)


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


def _protocol_text(described: dict[str, Any] | None) -> str:
    from pgti.datasets import Protocol

    if described is None:
        return "none is published"
    protocol = Protocol(**described)
    return "\n".join((protocol.summary, *protocol.notes, f"source: {protocol.source}"))


def _download(dataset: "Dataset") -> str:
    if not dataset.downloads:
        return "by hand"
    return "unknown" if dataset.download_bytes is None else _size(dataset.download_bytes)


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1e3:.0f} kB"
