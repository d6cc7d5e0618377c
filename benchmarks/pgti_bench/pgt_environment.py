"""PyTorch Geometric Temporal (PGT): its separate environment, and the files its loader reads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pgti.errors import ConfigError
from pgti.store import SeriesStore, calendar_features, default_calendar

__all__ = [
    "COPIES_HELD",
    "DEFAULT_PGT",
    "NO_PGT",
    "PGT_VARIANTS",
    "find_pgt",
    "pgt_command",
    "series_bytes",
    "write_for_pgt",
]

DEFAULT_PGT = Path(".venv-pgt/bin/python")
NO_PGT = f"PGT: {DEFAULT_PGT} does not exist here; `make bench-pgt` installs it"

PGT_VARIANTS = {"PGT": False, "PGT, freed memory retained": True}
"""How PGT is run: as its users run it, and with malloc configured as pgti configures its own.

The name, and whether malloc retains freed memory for the next step."""

COPIES_HELD = 3
"""Copies of the series that PGT's loader holds at once while it standardises."""

_CHUNK_READINGS = 1 << 22


def find_pgt(path: Path | None) -> Path | None:
    """The interpreter of PGT's environment; None if none is given and the default does not exist.

    Args:
        path: the interpreter, if the user passed one.

    Raises:
        ConfigError: it does not exist.
    """
    if path is None:
        return DEFAULT_PGT if DEFAULT_PGT.is_file() else None
    if not path.is_file():
        raise ConfigError(
            f"pgt is {path}, which is not a file: pass the Python interpreter of an environment "
            "with torch-geometric-temporal, as `make bench-pgt` builds it"
        )
    return path


def pgt_command(python: Path) -> Sequence[str]:
    """The command that starts the process running PGT, isolated from this one's Python settings."""
    # Absolute, but not resolved: a virtual environment's interpreter is a link.
    return [str(python.absolute()), "-I", str(Path(__file__).with_name("pgt_worker.py"))]


def series_bytes(store: SeriesStore) -> int:
    """Bytes of the series as PGT reads it: observations and calendar of every sensor, float32."""
    meta = store.meta
    features = meta.num_channels + len(default_calendar(store.time_axis))
    return 4 * meta.num_steps * meta.num_nodes * features


def write_for_pgt(store: SeriesStore, directory: Path) -> None:
    """Write a store as the files of PGT's METR-LA loader.

    These are the observations [T, N, F] with the calendar in every sensor, and the adjacency
    matrix. A missing observation becomes 0. An empty archive keeps PGT from downloading one.
    """
    directory.mkdir()
    meta = store.meta
    calendar = default_calendar(store.time_axis)
    shape = (meta.num_steps, meta.num_nodes, meta.num_channels + len(calendar))
    path = directory / "node_values.npy"
    values = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
    rows = max(1, _CHUNK_READINGS // (shape[1] * shape[2]))
    for first in range(0, meta.num_steps, rows):
        numbers = np.arange(first, min(first + rows, meta.num_steps))
        read = store.read(first, first + len(numbers))
        values[numbers, :, : meta.num_channels] = np.nan_to_num(read)
        features = calendar_features(store.time_axis, calendar, numbers)
        values[numbers, :, meta.num_channels :] = features[:, None, :]
    values.flush()
    np.save(directory / "adj_mat.npy", store.graph.adjacency.toarray())
    (directory / "METR-LA.zip").touch()
