"""Split conformal calibration: how far targets lie from forecasts that did not learn from them.

Residuals of a held-out split, its validation windows, become the ends of intervals (Papadopoulos et
al. 2002; Lei et al. 2018). Of a network with quantiles, they are residuals of its quantiles, which
is conformalised quantile regression (Romano, Patterson & Candes 2019). Each tail is calibrated by
itself (their theorem 2), so that an interval is central: as many targets lie below it as above.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from pgti.batching import Batch
from pgti.errors import PARSER_ERRORS, ConfigError
from pgti.forecasting.forecaster import NetworkForecaster, Prediction
from pgti.forecasting.observers import Observer
from pgti.shapes import BHNCQ
from pgti.storage import reraise_os_errors

__all__ = ["Calibration", "base_places", "base_quantiles", "calibrate", "check_levels"]

_BLOCK_BYTES = 1 << 26  # of residuals that are sorted at a time
_MAX_POOLED = 1 << 24  # residuals of a step that stand in for those of a sensor
_SPREAD = (0.1, 0.9)

Floats = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Calibration:
    """What is added to forecasts to make the ends of intervals.

    Attributes:
        levels: probabilities that the intervals cover, rising [I].
        below: what is added to the lower quantile of an interval, or to the point forecast, in the
            target's unit, float32 [I, H, N, C].
        above: the same for the upper end.
        spread: half the distance between the tenth and the ninetieth percentile of the residuals,
            float32 [H, N, C]: the unit of steps of adaptive intervals. Where a sensor has no
            residuals, or most are the same, the mean of the others.
        counts: residuals of each step, sensor and target, int32 [H, N, C].
    """

    levels: tuple[float, ...]
    below: Floats
    above: Floats
    spread: Floats
    counts: NDArray[np.int32]

    def select(self, levels: Sequence[float]) -> Self:
        """The intervals of some of the levels."""
        places = [self.levels.index(level) for level in levels]
        return type(self)(
            levels=tuple(levels),
            below=self.below[places],
            above=self.above[places],
            spread=self.spread,
            counts=self.counts,
        )

    @property
    def num_pooled(self) -> int:
        """Steps of sensors with too few residuals of their own for the widest interval."""
        rank = np.ceil((self.counts + 1) * (0.5 + self.levels[-1] / 2) - 1e-9)
        return int((rank > self.counts).sum())

    def to_bytes(self, key: str) -> bytes:
        """The content of a file, for what `key` names."""
        file = io.BytesIO()
        arrays = {name: getattr(self, name) for name in ("below", "above", "spread", "counts")}
        np.savez(
            file, allow_pickle=False, key=np.array(key), levels=np.array(self.levels), **arrays
        )
        return file.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes, key: str, shape: tuple[int, ...]) -> Self | None:
        """What `to_bytes` wrote; None if it is damaged, or of something else.

        Args:
            content: of the file.
            key: what the calibration must be of.
            shape: (H, N, C).
        """
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            levels = check_levels(arrays.pop("levels").tolist())
            ends = (np.float32, (len(levels), *shape))
            kinds: dict[str, Any] = {"below": ends, "above": ends}
            kinds |= {"spread": (np.float32, shape), "counts": (np.int32, shape)}
            if str(arrays.pop("key")) != key or any(
                (arrays[name].dtype, arrays[name].shape) != kind for name, kind in kinds.items()
            ):
                return None
            return cls(levels=levels, **arrays)
        except PARSER_ERRORS:
            return None


def check_levels(levels: Any) -> tuple[float, ...]:
    """Probabilities of intervals, rising.

    Raises:
        ConfigError: if one does not lie between 0 and 1, or is there twice.
    """
    try:
        numbers = tuple(sorted(float(level) for level in levels))
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not numbers or not all(0 < level < 1 for level in numbers):
        raise ConfigError(
            f"intervals are {levels!r}: each is the probability to cover, between 0 and 1, such as "
            "0.8, 0.95"
        )
    if len(set(numbers)) < len(numbers):
        raise ConfigError(f"intervals are {levels!r}: give each probability once")
    return numbers


def base_places(forecaster: NetworkForecaster, levels: Sequence[float]) -> list[tuple[int, int]]:
    """Positions of the quantiles that become the ends of each interval: the nearest that there are.

    Of point forecasts, both are the forecast.
    """
    known = forecaster.quantile_levels or (0.5,)

    def nearest(level: float) -> int:
        return min(range(len(known)), key=lambda place: abs(known[place] - level))

    return [(nearest(0.5 - level / 2), nearest(0.5 + level / 2)) for level in levels]


def base_quantiles(prediction: Prediction) -> BHNCQ:
    """The quantiles of a prediction, or its point forecast as the only one."""
    return prediction.point[..., None] if prediction.quantiles is None else prediction.quantiles


def calibrate(
    forecaster: NetworkForecaster,
    batches: Iterable[Batch],
    levels: Sequence[float],
    *,
    scratch: Path | None = None,
    observers: Sequence[Observer] = (),
) -> Calibration:
    """Calibrate intervals for each step, sensor and target on windows that were not trained on.

    Of n residuals, the end of the tail that an interval leaves out, a of them, is the one of rank
    ceil((n + 1) (1 - a)), so that a new residual, exchangeable with them, lies within with
    probability 1 - a at least. Where that rank is above n, the residuals of all sensors at that
    step stand in. Residuals are written to a file without a name, and sorted in blocks: memory does
    not grow with the windows, and the result is exact.

    Args:
        forecaster: on the device of the batches, in evaluation mode.
        batches: windows with targets, in any order.
        levels: probabilities of the intervals, rising.
        scratch: directory of that file; that of temporary files by default.
        observers: shown the progress.

    Raises:
        ConfigError: if no target of a step was observed often enough.
    """
    bases = base_places(forecaster, levels)
    used = sorted({place for pair in bases for place in pair})
    with _open_scratch(scratch) as file:
        residuals = _Residuals(file)
        for batch in batches:
            residuals.append(_residuals_of(forecaster, batch, used))
            for observer in observers:
                observer.advance(batch.num_windows)
        if not residuals.num_windows:
            raise ConfigError("there is no validation window to calibrate intervals on")
        places = [(used.index(low), used.index(high)) for low, high in bases]
        return _calibration(residuals, levels, places)


@contextmanager
def _open_scratch(scratch: Path | None) -> Iterator[IO[bytes]]:
    try:
        file = TemporaryFile(dir=scratch)  # noqa: SIM115 - closed below
    except OSError:  # a run may be read-only
        file = TemporaryFile()  # noqa: SIM115
    with file:
        yield file


class _Residuals:
    """Residuals [W, H, N, C, R] in a file; plain reads, since pages of a map count as memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.num_windows = 0
        self.shape = (0, 0, 0, 0)

    def append(self, residuals: Floats) -> None:
        """Add those of a batch, [B, H, N, C, R]."""
        with reraise_os_errors("the residuals for intervals cannot be written"):
            self._file.write(residuals.tobytes())
        self.num_windows += len(residuals)
        self.shape = residuals.shape[1:]

    def read(self, step: int, nodes: slice, stride: int = 1) -> Floats:
        """Those of some sensors at a step, of every stride-th window, [W, n, C, R]."""
        horizon, num_nodes, num_targets, num_bases = self.shape
        first, stop, _ = nodes.indices(num_nodes)
        windows = range(0, self.num_windows, stride)
        block = np.empty((len(windows), stop - first, num_targets, num_bases), np.float32)
        for row, window in zip(block, windows, strict=True):
            position = (window * horizon + step) * num_nodes + first
            self._file.seek(position * num_targets * num_bases * 4)
            self._file.readinto(row.data)  # type: ignore[attr-defined] # of every binary file
        return block


@torch.no_grad()
def _residuals_of(forecaster: NetworkForecaster, batch: Batch, used: Sequence[int]) -> Floats:
    """Target minus quantiles, NaN where it is missing [B, H, N, C, R]."""
    assert batch.y is not None
    assert batch.y_mask is not None
    quantiles = base_quantiles(forecaster.predict(batch))
    chosen = torch.stack([quantiles[..., place] for place in used], dim=-1)
    residuals = torch.where(batch.y_mask[..., None], batch.y[..., None] - chosen, torch.nan)
    array: Floats = residuals.float().cpu().numpy()
    return array


def _calibration(
    residuals: _Residuals, levels: Sequence[float], places: Sequence[tuple[int, int]]
) -> Calibration:
    """Order statistics of residuals, a block of sensors at a time."""
    horizon, num_nodes, num_targets, num_bases = residuals.shape
    shape = (horizon, num_nodes, num_targets)
    below, above = (np.empty((len(levels), *shape), np.float32) for _ in range(2))
    spread, counts = np.empty(shape, np.float32), np.empty(shape, np.int32)
    size = max(1, _BLOCK_BYTES // (4 * residuals.num_windows * num_targets * num_bases))
    for step in range(horizon):
        for first in range(0, num_nodes, size):
            nodes = slice(first, first + size)
            # [n, C, R, W], NaN last
            block = np.moveaxis(residuals.read(step, nodes), 0, -1)
            block.sort(axis=-1)
            number = (~np.isnan(block[..., 0, :])).sum(axis=-1)
            counts[step, nodes] = number
            for index, (level, ends) in enumerate(zip(levels, places, strict=True)):
                low, high = _ends(block, number, level, ends)
                below[index, step, nodes], above[index, step, nodes] = low, high
            median = block[..., num_bases // 2, :]
            low, high = (_at(median, np.floor(share * (number - 1))) for share in _SPREAD)
            spread[step, nodes] = (high - low) / 2
        _fill_from_all(residuals, step, levels, places, (below[:, step], above[:, step]))
        known = spread[step] > 0
        mean_C = np.where(known, spread[step], 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        spread[step] = np.where(known, spread[step], mean_C)
    return Calibration(levels=tuple(levels), below=below, above=above, spread=spread, counts=counts)


def _ends(
    block: Floats, number: NDArray[np.int64], level: float, places: tuple[int, int]
) -> tuple[Floats, Floats]:
    """Ends of an interval from sorted residuals [.., R, W]; NaN where there are too few."""
    rank = np.ceil((number + 1) * (0.5 + level / 2) - 1e-9)  # of each tail, from 1
    rank = np.where(rank > number, np.nan, rank)
    return _at(block[..., places[0], :], number - rank), _at(block[..., places[1], :], rank - 1)


def _at(ordered: Floats, positions: NDArray[Any]) -> Floats:
    """The values of sorted numbers [.., W] at positions [..]; NaN where that is NaN or negative."""
    known = positions >= 0  # False for NaN
    places = np.where(known, positions, 0).astype(np.int64)
    values = np.take_along_axis(ordered, places[..., None], axis=-1)[..., 0]
    found: Floats = np.where(known, values, np.nan)
    return found


def _fill_from_all(
    residuals: _Residuals,
    step: int,
    levels: Sequence[float],
    places: Sequence[tuple[int, int]],
    tails: tuple[Floats, Floats],
) -> None:
    """Ends of a step's sensors with too few residuals, from those of all sensors, in place.

    Args:
        residuals: of very many, those of windows spread evenly count.
        step: of the horizon.
        levels: of the intervals.
        places: of their bases among the R.
        tails: lower and upper ends [I, N, C], NaN where they are to be filled.

    Raises:
        ConfigError: if all of them are too few.
    """
    below, above = tails
    for channel in range(below.shape[-1]):
        lacking = np.isnan(below[..., channel]) | np.isnan(above[..., channel])
        if not lacking.any():
            continue
        stride = -(-residuals.num_windows * residuals.shape[1] // _MAX_POOLED)
        every = residuals.read(step, slice(None), stride)[:, :, channel]
        pooled = np.sort(every.reshape(-1, every.shape[-1]).T)
        number = np.array((~np.isnan(pooled[0])).sum())
        for index, (level, ends) in enumerate(zip(levels, places, strict=True)):
            if not lacking[index].any():
                continue
            low, high = _ends(pooled, number, level, ends)
            if np.isnan(low) or np.isnan(high):
                raise ConfigError(
                    f"intervals of {level:g} need {math.ceil((1 + level) / (1 - level))} observed "
                    f"targets of the validation windows at each step, and there are {number}: use "
                    "lower ones, or give the validation split a larger fraction"
                )
            below[index, lacking[index], channel] = low
            above[index, lacking[index], channel] = high
