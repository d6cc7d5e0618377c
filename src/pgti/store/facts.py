"""What a store shows of itself."""

from typing import TYPE_CHECKING

from pgti.display import count_of, shorten

if TYPE_CHECKING:
    from pgti.store.store import SeriesStore

__all__ = ["describe_store"]


def describe_store(store: "SeriesStore") -> tuple[str, dict[str, str]]:
    """A title, and facts by name; each is one line."""
    meta = store.meta
    channels = [
        f"{name} ({unit})" if unit else name
        for name, unit in zip(meta.channels, meta.units, strict=True)
    ]
    facts = {
        "series": f"{count_of(meta.num_steps, 'step')} of {count_of(meta.num_nodes, 'sensor')}"
        f", {shorten(channels)}",
        "times": store.time_axis.describe(),
        "sensors": shorten(meta.node_ids),
        "graph": count_of(meta.num_edges, "edge"),
    }
    if meta.known_future:
        facts["known in advance"] = _describe_future(store)
    if store.static_features is not None:
        facts["static"] = store.static_features.describe()
    facts |= {
        "missing": f"{meta.missing_fraction:.2%}",
        "stored": f"{meta.dtype}, {store.num_bytes / 1e6:,.1f} MB",
    }
    if store.notes:
        facts["notes"] = shorten(store.notes, 1)
    return f"SeriesStore {store.path}", facts


def _describe_future(store: "SeriesStore") -> str:
    """The channels known in advance, and how far."""
    meta, axis = store.meta, store.time_axis
    names = shorten(meta.known_future)
    if not meta.future_steps:
        return f"{names}; no row after the last reading"
    until = meta.num_steps + meta.future_steps - 1
    end = f", until {axis.isoformat(until)}" if axis.is_dated else ""
    return f"{names}; {count_of(meta.future_steps, 'row')} after the last reading{end}"
