"""`pgti info`: describe a store."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from pgti.cli.flags import JsonFlag
from pgti.cli.output import build_table, facts_table, log, print_results

if TYPE_CHECKING:
    from pgti.store import SeriesStore
    from pgti.store.summary import ReadingsSummary

__all__ = ["info_command", "log_store", "store_facts"]

_NUM_SENSORS = 5  # whose readings are missing most


def info_command(
    store: Path,
    /,
    *,
    brief: bool = False,
    verify: bool = False,
    json: JsonFlag = False,
) -> None:
    """Describe a store: its times, channels and graph, and what is missing.

    Minimum, maximum and the sensors with most missing readings take a pass over the readings,
    about half a second per gigabyte if the file is in the page cache.

    Args:
        store: The store to describe.
        brief: Leave out what takes a pass over the readings.
        verify: Check every file of the store against its SHA-256.
    """
    from pgti.cli.progress import progress_bars
    from pgti.store import SeriesStore
    from pgti.store.summary import summarize

    opened = SeriesStore.open(store)
    if verify:
        opened.verify()
    facts, tables = store_facts(opened), [_facts_table(opened)]
    if not brief:
        with progress_bars("read") as bars:
            summary = summarize(opened, bars.rows)
        facts |= _readings_facts(opened, summary)
        tables.append(_channels_table(facts))
        if facts["most_missing"]:
            tables.append(_sensors_table(facts))
    print_results(facts, *tables, as_json=json)


def log_store(store: "SeriesStore") -> None:
    """Say what a command has written, and what writing it found."""
    for note in store.notes:
        log(note)
    facts = store.describe()[1]
    log(
        f"{facts['series']}, {facts['graph']}, {facts['missing']} missing, "
        f"{facts['stored']}: {store.path}"
    )


def store_facts(store: "SeriesStore") -> dict[str, Any]:
    """Facts about a store, by name, without a pass over its readings."""
    meta, axis = store.meta, store.time_axis
    first, last = (
        axis.isoformat(row).replace(" ", "T") if axis.is_dated else None
        for row in (0, meta.num_steps - 1)
    )
    return {
        "steps": meta.num_steps,
        "sensors": meta.num_nodes,
        "channels": list(meta.channels),
        "units": list(meta.units),
        "edges": meta.num_edges,
        "dtype": meta.dtype,
        "bytes": store.num_bytes,
        "missing_fraction": meta.missing_fraction,
        "start": first,
        "end": last,
        "interval_seconds": meta.interval_seconds,
        "regular": meta.is_regular,
        "time_rule": None if axis.rule is None else axis.rule.describe(),
        "holes": len(axis.holes),
        "time_zone": meta.time_zone,
        "known_future": list(meta.known_future),
        "future_steps": meta.future_steps,
        "static": _static_facts(store),
        "fingerprint": store.fingerprint,
    }


def _static_facts(store: "SeriesStore") -> list[dict[str, Any]]:
    """Name, unit and categories of each feature of the sensors, and the share missing."""
    import numpy as np

    features = store.static_features
    if features is None:
        return []
    missing = np.isnan(features.values).mean(axis=0).tolist()
    columns = (features.names, features.units, features.categories, missing)
    return [
        {"feature": name, "unit": unit, "categories": list(words), "missing_fraction": share}
        for name, unit, words, share in zip(*columns, strict=True)
    ]


def _readings_facts(store: "SeriesStore", summary: "ReadingsSummary") -> dict[str, Any]:
    """What a pass over the readings finds: the range of each channel, and what is missing."""
    import numpy as np

    meta = store.meta
    mean = store.moments(range(meta.num_steps)).mean
    num_missing = summary.num_missing.sum(axis=1)
    most = np.argsort(-num_missing, kind="stable")[:_NUM_SENSORS]
    return {
        "readings": [
            {
                "channel": name,
                "unit": meta.units[channel],
                "minimum": _number(np.fmin.reduce(summary.minimum[:, channel])),
                "mean": _number(mean[channel]),
                "maximum": _number(np.fmax.reduce(summary.maximum[:, channel])),
                "missing_fraction": int(summary.num_missing[:, channel].sum())
                / (meta.num_steps * meta.num_nodes),
            }
            for channel, name in enumerate(meta.channels)
        ],
        "most_missing": [
            {
                "sensor": meta.node_ids[node],
                "missing_fraction": int(num_missing[node]) / (meta.num_steps * meta.num_channels),
            }
            for node in most
            if num_missing[node]
        ],
    }


def _number(value: float) -> float | None:
    """A number as JSON: float32 as the shortest decimal that stands for it, None for no number."""
    return None if value != value else float(str(value))  # noqa: PLR0124 - NaN


def _facts_table(store: "SeriesStore") -> Table:
    _, facts = store.describe()
    zone = {} if store.meta.time_zone is None else {"time zone": store.meta.time_zone}
    return facts_table(str(store.path), {**facts, **zone, "fingerprint": store.fingerprint})


def _channels_table(facts: dict[str, Any]) -> Table:
    columns = ("channel", "unit", "minimum", "mean", "maximum", "missing")
    digits = 6 if facts["dtype"] in ("int16", "float32") else 12
    rows = [
        (
            each["channel"],
            each["unit"] or "-",
            *("-" if each[name] is None else f"{each[name]:,.{digits}g}" for name in columns[2:5]),
            f"{each['missing_fraction']:.2%}",
        )
        for each in facts["readings"]
    ]
    return build_table("", columns, rows, num_texts=2)


def _sensors_table(facts: dict[str, Any]) -> Table:
    rows = [(each["sensor"], f"{each['missing_fraction']:.2%}") for each in facts["most_missing"]]
    return build_table("sensors with most missing readings", ("sensor", "missing"), rows)
