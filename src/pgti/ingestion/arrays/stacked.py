"""Several arrays of one file, each of which holds a channel."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from pgti.display import count_of
from pgti.errors import DataError
from pgti.ingestion.readings import Chunk, Readings

__all__ = ["stack_channels"]


def stack_channels(parts: list[Readings], names: tuple[str, ...], name: str) -> Readings:
    """Join several one-channel sources of one file into channels.

    Raises:
        DataError: if a part has several channels, or the parts differ in shape, ids or times.
    """
    first = parts[0]
    for part, key in zip(parts, names, strict=True):
        if part.num_channels != 1:
            raise DataError(
                f"{key} of {name} has {count_of(part.num_channels, 'channel')}: it must be [steps, "
                "sensors]"
            )
        if (part.num_rows, part.num_nodes) != (first.num_rows, first.num_nodes):
            raise DataError(
                f"{key} of {name} is {part.num_rows} x {part.num_nodes} and {names[0]} is "
                f"{first.num_rows} x {first.num_nodes}: channels must have one shape"
            )
        if part.node_ids != first.node_ids:
            raise DataError(f"{key} and {names[0]} of {name} have other sensors, or another order")

    def chunks(budget_bytes: int) -> Iterator[Chunk]:
        budget = max(1, budget_bytes // (2 * len(parts)))
        for pieces in _in_step([part.chunks(budget) for part in parts], name):
            times = {None if each.seconds is None else each.seconds.tobytes() for each in pieces}
            if len(times) != 1:
                raise DataError(f"the channels of {name} have different times")
            values = np.concatenate([piece.values for piece in pieces], axis=2)
            yield Chunk(values=values, seconds=pieces[0].seconds)

    return replace(first, name=name, num_channels=len(parts), channels=names, chunks=chunks)


def _in_step(streams: list[Iterator[Chunk]], name: str) -> Iterator[list[Chunk]]:
    """Chunks of the same rows of several sources, whose own chunks may end at other rows."""
    held = [next(stream, None) for stream in streams]
    while any(chunk is not None for chunk in held):
        pieces = [chunk for chunk in held if chunk is not None]
        if len(pieces) < len(streams):
            raise DataError(f"the channels of {name} end at different rows")
        size = min(len(chunk.values) for chunk in pieces)
        yield [_rows_of(chunk, 0, size) for chunk in pieces]
        held = [
            next(stream, None) if len(chunk.values) == size else _rows_of(chunk, size, None)
            for stream, chunk in zip(streams, pieces, strict=True)
        ]


def _rows_of(chunk: Chunk, first: int, stop: int | None) -> Chunk:
    seconds = None if chunk.seconds is None else chunk.seconds[first:stop]
    return Chunk(values=chunk.values[first:stop], seconds=seconds)
