"""`pgti info`: describe a store."""

from pathlib import Path
from typing import Any

from rich.table import Table

from pgti.cli.output import print_json, show
from pgti.store import SeriesStore

__all__ = ["info_command", "store_summary"]


def info_command(store: Path, /, *, verify: bool = False, json: bool = False) -> None:
    """Describe a store.

    Args:
        store: The store to describe.
        verify: Check every file of the store against its SHA-256.
        json: Print one JSON object as the last line of standard output.
    """
    opened = SeriesStore.open(store)
    if verify:
        opened.verify()
    summary = store_summary(opened)
    table = Table(title=str(store), title_justify="left", show_header=False)
    for name, value in summary.items():
        table.add_row(name.replace("_", " "), _shown(value))
    show(table)
    if json:
        print_json(summary)


def store_summary(store: SeriesStore) -> dict[str, Any]:
    """Facts about a store, by name."""
    meta = store.meta
    return {
        "steps": meta.num_steps,
        "sensors": meta.num_nodes,
        "channels": list(meta.channels),
        "units": list(meta.units),
        "edges": meta.num_edges,
        "dtype": meta.dtype,
        "bytes": store.num_bytes,
        "missing_fraction": meta.missing_count
        / (meta.num_steps * meta.num_nodes * meta.num_channels),
        "start": meta.start,
        "interval_seconds": meta.interval_seconds,
        "regular": meta.is_regular,
        "time_zone": meta.time_zone,
        "fingerprint": store.fingerprint,
    }


def _shown(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
