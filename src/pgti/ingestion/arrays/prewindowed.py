"""Windows that were cut from a series beforehand, joined back to it where they are consecutive.

DCRNN and Graph WaveNet train on `train.npz`, `val.npz` and `test.npz` with inputs x [S, L, N, C]
and targets y [S, H, N, C]; LibCity and ASTGCN store all three in one archive (`x_train`,
`train_target`), ASTGCN with the steps last and inputs that are scaled.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.display import count_of
from pgti.errors import DataError, option
from pgti.ingestion.arrays.calendar_channels import TimeOfDay, find_time_of_day
from pgti.ingestion.arrays.npy import npz_headers, open_npz, read_blocks
from pgti.ingestion.arrays.window_pairs import WindowPair, find_windows, window_files
from pgti.ingestion.options import IngestOptions
from pgti.ingestion.readings import Chunk, Readings, as_floats, reraise_read_errors

__all__ = ["are_windows", "open_archive", "open_windows"]

_FIRST_WINDOWS = 16


def open_archive(path: Path, options: IngestOptions, has_graph: bool) -> Readings:
    """Readings in an `.npz` archive: a series, or windows if no option names arrays or axes.

    Raises:
        ConfigError: if options name what the archive does not have.
        DataError: if it is damaged, several arrays could be meant, or windows are not consecutive.
    """
    if are_windows((path,), options):
        return open_windows((path,), options)
    return open_npz(path, options, has_graph)


def are_windows(sources: tuple[Any, ...], options: IngestOptions) -> bool:
    """Whether sources are archives of windows, and no option names arrays or axes.

    Raises:
        DataError: if an archive is damaged.
    """
    if options.values or options.axes or options.transpose:
        return False
    for path in sources:
        if not isinstance(path, Path) or path.suffix.lower() != ".npz":
            return False
        with reraise_read_errors(path.name, "an npz archive"):
            if not find_windows(path, npz_headers(path)):
                return False
    return True


def open_windows(paths: tuple[Path, ...], options: IngestOptions) -> Readings:
    """The series of which archives hold windows.

    Consecutive windows must repeat one another exactly, from file to file as well. A channel that
    is the time of day is left out, unless the user names every channel.

    Raises:
        DataError: if windows are not consecutive, or a file has none.
    """
    pairs: list[WindowPair] = []
    for path in paths:
        with reraise_read_errors(path.name, "an npz archive"):
            found = find_windows(path, npz_headers(path))
        if not found:
            raise DataError(f"{path.name} holds no windows (x and y): leave it out")
        pairs.extend(found)
    pairs.sort(key=lambda pair: pair.order)
    name = ", ".join(dict.fromkeys(pair.path.name for pair in pairs))
    layout = _find_layout(pairs[0])
    for pair in pairs[1:]:
        if any(a[1:] != b[1:] for a, b in zip(pair.shapes, pairs[0].shapes, strict=True)):
            raise DataError(
                f"{pair.name} have the shapes {pair.shapes[0]} and {pair.shapes[1]}, unlike "
                f"{pairs[0].name} ({pairs[0].shapes[0]} and {pairs[0].shapes[1]}): windows of one "
                "series have one shape"
            )
    time_of_day = None
    if len(options.channels) != layout.num_channels:
        time_of_day = find_time_of_day(layout.first_rows)
    joined = _Joined(tuple(pairs), layout, time_of_day)
    num_windows = sum(pair.shapes[0][0] for pair in pairs)
    notes = [
        f"{name} {'holds' if len(paths) == 1 else 'hold'} {count_of(num_windows, 'window')} that "
        f"start {count_of(layout.stride, 'step')} after one another: they were joined to a series "
        f"of {joined.num_rows} steps"
    ]
    if layout.targets_only:
        notes.append(
            f"the inputs of {name} are not what its targets are (they are scaled, or other "
            "channels): the series is that of the targets"
        )
    others = [each.name for each in window_files(paths[0].parent) if each not in paths]
    if len(paths) == 1 and others:
        notes.append(f"{' and '.join(others)} beside {name} were not read: give their directory")
    interval = None
    if time_of_day is not None:
        notes.append(time_of_day.describe(f"{pairs[0].inputs} of {name}"))
        interval = time_of_day.interval_seconds
    return Readings(
        name=name,
        num_rows=joined.num_rows,
        num_nodes=layout.num_nodes,
        num_channels=layout.num_channels - (time_of_day is not None),
        interval_seconds=interval,
        has_named_axes=True,
        notes=tuple(notes),
        chunks=joined.chunks,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Layout:
    """How the windows of an archive lie.

    Attributes:
        axis: the axis of steps of inputs and of targets.
        stride: steps from the start of a window to that of the next one.
        targets_only: whether the series is that of the targets.
        first_rows: steps of the first window, [L, N, C].
        num_targets: channels of the targets.
    """

    axis: tuple[int, int]
    stride: int
    targets_only: bool
    first_rows: NDArray[np.floating[Any]]
    num_targets: int

    @property
    def num_nodes(self) -> int:
        """Sensors, N."""
        return int(self.first_rows.shape[1])

    @property
    def num_channels(self) -> int:
        """Channels, C."""
        return int(self.first_rows.shape[2])


def _in_order(windows: NDArray[Any], axis: int) -> NDArray[np.floating[Any]]:
    """Windows [S, steps, N, C] of an array whose axis of steps is 1 or the last."""
    moved = np.moveaxis(windows, axis, 1)
    return as_floats(moved if moved.ndim == 4 else moved[..., np.newaxis])


def _find_layout(pair: WindowPair) -> _Layout:
    """The axis of steps and the stride, from the first windows.

    Raises:
        DataError: if no axis and stride make them consecutive.
    """
    x, y = (
        next(iter(read_blocks(pair.path, key, _FIRST_WINDOWS)))
        for key in (pair.inputs, pair.targets)
    )
    for axis in ((1, 1), (x.ndim - 1, y.ndim - 1)):
        inputs, targets = _in_order(x, axis[0]), _in_order(y, axis[1])
        if inputs.shape[2] != targets.shape[2] or len(inputs) < 2:
            continue
        stride = _find_stride(pair, pair.inputs, axis[0])
        stride_of_targets = _find_stride(pair, pair.targets, axis[1])
        if stride is not None and _continues(inputs, targets, stride):
            return _Layout(
                axis=axis,
                stride=stride,
                targets_only=False,
                first_rows=inputs[0],
                num_targets=targets.shape[3],
            )
        if stride_of_targets is not None and stride is not None:
            return _Layout(
                axis=axis,
                stride=stride_of_targets,
                targets_only=True,
                first_rows=targets[0],
                num_targets=targets.shape[3],
            )
    raise DataError(
        f"{pair.name}, of shapes {pair.shapes[0]} and {pair.shapes[1]}, are not consecutive "
        "windows: the second does not repeat the first at any stride, so they are shuffled, scaled "
        "one by one, or too far apart to be joined; give the series from which they were cut (if "
        f"one of them is a series, name it with {option('values', (pair.inputs,))})"
    )


def _find_stride(pair: WindowPair, key: str, axis: int) -> int | None:
    """The smallest stride at which windows repeat one another; None if there is none.

    Where the first ones are alike, as in a night without traffic, more of them are compared.
    """
    strides: list[int] | None = None
    last: NDArray[Any] | None = None
    for block in read_blocks(pair.path, key, _FIRST_WINDOWS):
        windows = _in_order(block, axis)
        windows = windows if last is None else np.concatenate([last, windows])
        if strides is None:
            strides = list(range(1, windows.shape[1]))
        for part in (windows[:2, :, :1], windows):  # most are wrong at the first sensor
            strides = [each for each in strides if _equal(part[:-1, each:], part[1:, :-each])]
        if len(strides) < 2:
            break
        last = windows[-1:]
    return strides[0] if strides else None


def _continues(inputs: NDArray[Any], targets: NDArray[Any], stride: int) -> bool:
    """Whether targets are the steps that follow the inputs, as later inputs show them."""
    if targets.shape[3] > inputs.shape[3]:
        return False
    size = min(stride, targets.shape[1])
    first = inputs.shape[1] - stride
    later = inputs[1:, first : first + size, :, : targets.shape[3]]
    return len(inputs) > 1 and _equal(targets[:-1, :size], later)


def _equal(first: NDArray[Any], second: NDArray[Any]) -> bool:
    return bool(((first == second) | (np.isnan(first) & np.isnan(second))).all())


@dataclass(frozen=True, slots=True)
class _Joined:
    """The series of windows.

    Attributes:
        pairs: the windows, in the order of time.
        layout: how they lie.
        time_of_day: the channel that is left out, if any.
    """

    pairs: tuple[WindowPair, ...]
    layout: _Layout
    time_of_day: TimeOfDay | None

    @property
    def num_rows(self) -> int:
        """Steps of the series."""
        layout, shapes = self.layout, self.pairs[0].shapes
        num_windows = sum(pair.shapes[0][0] for pair in self.pairs)
        inputs, targets = (shapes[i][layout.axis[i]] for i in range(2))
        length = targets if layout.targets_only else inputs + targets
        return length + (num_windows - 1) * layout.stride

    def chunks(self, budget_bytes: int) -> Iterator[Chunk]:
        """Consecutive rows, each once; every repetition is compared with the first."""
        first_row = 0
        for rows in self._rows(budget_bytes):
            if not len(rows):
                continue
            values = rows
            if self.time_of_day is not None:
                self.time_of_day.check(rows, first_row, self.pairs[0].path.name)
                values = np.delete(rows, self.time_of_day.channel, axis=2)
            yield Chunk(values=np.ascontiguousarray(values))
            first_row += len(rows)

    def _rows(self, budget_bytes: int) -> Iterator[NDArray[np.floating[Any]]]:
        before: tuple[NDArray[Any], NDArray[Any]] | None = None
        for pair in self.pairs:
            first_window = 0
            for block in self._blocks(pair, budget_bytes):
                inputs, targets = block
                if before is None:
                    yield self._ours(*block)[0]
                else:
                    inputs, targets = (
                        np.concatenate([last, part])
                        for last, part in zip(before, block, strict=True)
                    )
                self._check(pair, inputs, targets, first_window - (before is not None))
                ours = self._ours(inputs, targets)
                yield ours[1:, -self.layout.stride :].reshape(-1, *ours.shape[2:])
                first_window += len(block[0])
                before = inputs[-1:], targets[-1:]
        if before is not None and not self.layout.targets_only:
            yield self._tail(before[0][0], before[1][0])

    def _ours(self, inputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        return targets if self.layout.targets_only else inputs

    def _tail(self, inputs: NDArray[Any], targets: NDArray[Any]) -> NDArray[Any]:
        """The targets of the last window; channels that only inputs have are missing in them."""
        tail = np.full((len(targets), *inputs.shape[1:]), np.nan, inputs.dtype)
        tail[..., : targets.shape[2]] = targets
        if self.time_of_day is not None and self.time_of_day.channel >= targets.shape[2]:
            tail[..., self.time_of_day.channel] = self.time_of_day.after(inputs, len(tail))
        return tail

    def _blocks(
        self, pair: WindowPair, budget_bytes: int
    ) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Inputs and targets of consecutive windows, [S, steps, N, C]."""
        values = sum(int(np.prod(shape[1:])) for shape in pair.shapes)
        size = max(1, budget_bytes // (4 * 8 * values))
        streams = (read_blocks(pair.path, key, size) for key in (pair.inputs, pair.targets))
        for x, y in zip_longest(*streams):
            yield _in_order(x, self.layout.axis[0]), _in_order(y, self.layout.axis[1])

    def _check(
        self, pair: WindowPair, inputs: NDArray[Any], targets: NDArray[Any], first_window: int
    ) -> None:
        """Refuse windows that are not consecutive.

        Raises:
            DataError: naming the first that does not follow.
        """
        if self._follow(inputs, targets):
            return
        place = next(
            place
            for place in range(1, len(inputs))
            if not self._follow(inputs[place - 1 : place + 1], targets[place - 1 : place + 1])
        )
        window = first_window + place
        what = f"window {window} of {pair.name} does not follow window {window - 1}"
        if window == 0:
            what = f"the first windows of {pair.name} do not follow the last ones before"
        raise DataError(
            f"{what} {count_of(self.layout.stride, 'step')} later, as others do: they are not "
            "consecutive (shuffled, or rows are missing between them); give the series from which "
            "they were cut"
        )

    def _follow(self, inputs: NDArray[Any], targets: NDArray[Any]) -> bool:
        """Whether windows repeat those before them."""
        stride = self.layout.stride
        if len(inputs) < 2:
            return True
        return all(
            _equal(part[:-1, stride:], part[1:, :-stride])
            for part in (inputs, targets)
            if part.shape[1] > stride
        ) and (self.layout.targets_only or _continues(inputs, targets, stride))
