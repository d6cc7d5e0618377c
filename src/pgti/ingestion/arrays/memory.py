"""Readings in a NumPy array."""

from contextlib import nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.ingestion.arrays.axes_arrays import StoredArray
from pgti.ingestion.arrays.axes_labels import Labels, label_axes, open_stored
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Readings

__all__ = ["open_array"]


def open_array(
    array: NDArray[Any], name: str = "the array", options: IngestOptions | None = None
) -> Readings:
    """Readings in an array [T, N] or [T, N, C], or with the axes of the options.

    Raises:
        DataError: if it is not numbers of such a shape.
    """
    options = options or IngestOptions()
    stored = StoredArray(
        name=name,
        shape=array.shape,
        dtype=array.dtype,
        open=lambda: nullcontext(array.__getitem__),
        is_in_memory=not isinstance(array, np.memmap),  # whose file is read in its own order
    )
    labels = Labels(name=name, arrays={}, read=dict[str, NDArray[Any]]().__getitem__)
    return label_axes(open_stored(stored, options), array.shape, labels, options)
