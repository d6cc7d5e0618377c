"""Ids of sensors as text, and the array of an archive or file that holds them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pgti.errors import ConfigError

__all__ = ["ID_NAMES", "Described", "find_ids", "text_ids"]

ID_NAMES = ("node_ids", "sensor_ids", "sensor_id", "station", "ids", "id")


class Described(Protocol):
    """An array that is not read yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its dtype."""


def find_ids(
    arrays: Mapping[str, Described],
    read: Callable[[str], NDArray[Any]],
    num_nodes: int,
    wanted: str | None,
    name: str,
    *,
    kinds: str = "iuSU",
) -> tuple[str, ...] | None:
    """Sensor ids from the wanted array, or from the first of the customary names that fits.

    Args:
        arrays: what there is.
        read: gives the array of a name.
        num_nodes: sensors.
        wanted: the name that the user gave.
        name: what messages call the source.
        kinds: kinds of dtypes that may hold ids.

    Raises:
        ConfigError: if the wanted array does not hold one id for each sensor.
    """
    for key in ID_NAMES if wanted is None else (wanted,):
        found = arrays.get(key)
        if found is not None and found.shape == (num_nodes,) and found.dtype.kind in kinds:
            return text_ids(read(key))
    if wanted is None:
        return None
    shown = arrays.get(wanted)
    what = "there is no such array" if shown is None else f"it is {shown.dtype} {shown.shape}"
    raise ConfigError(f"{name} has no array {wanted!r} of {num_nodes} ids (--ids): {what}")


def text_ids(ids: NDArray[Any] | list[Any]) -> tuple[str, ...]:
    """Ids as text: bytes decoded, whole numbers without a decimal point."""
    return tuple(
        _text_id(label) for label in (ids.tolist() if isinstance(ids, np.ndarray) else ids)
    )


def _text_id(label: object) -> str:
    if isinstance(label, bytes):
        return label.decode("latin1")
    if isinstance(label, float) and label.is_integer():
        return str(int(label))
    return str(label)
