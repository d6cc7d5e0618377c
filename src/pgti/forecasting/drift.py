"""Drift: how far the inputs of an evaluation lie from the readings of training."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from pgti.distributed import Communicator, SingleProcess
from pgti.errors import ConfigError
from pgti.store import Scaler, SeriesStore, TypicalReadings
from pgti.windows import even_part

__all__ = ["LARGE_PSI", "describe_drift", "drift_frame", "measure_drift"]

LARGE_PSI = 0.25
"""A population stability index above it is a major shift, by the usual rule."""

_BINS = 10
_LEAST_SHARE = 1e-4  # of an empty bin, whose logarithm would be infinite
_MAX_SAMPLED = 1 << 20  # readings of a channel that its histogram is of
_CHUNK_READINGS = 1 << 22
_NUM_SENSORS = 5  # in the list of the worst
_LARGE_SHIFT = 0.25  # standard deviations from what is typical of the hours that were evaluated
_LARGE_MISSING = 0.1  # more missing readings than in training, as a share of all
_LARGE_OUTSIDE = 0.01  # share of readings outside the range of training


def measure_drift(
    store: SeriesStore,
    rows: range,
    typical: TypicalReadings,
    scaler: Scaler,
    *,
    communicator: Communicator | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """Compare the readings of `rows` with those of training, in one pass of bounded memory.

    The population stability index is the sum over ten bins, which are the tenths of the training
    readings, of (p - q) ln(p / q), p and q being the shares of readings in a bin now and in
    training (N. Siddiqi, Credit Risk Scorecards, 2006). Above 0.1 it means a moderate shift and
    above 0.25 a major one. It is of at most 2^20 readings, from evenly spaced rows.

    Args:
        store: the series that is evaluated.
        rows: its rows that are inputs.
        typical: typical readings, range and quantiles of training.
        scaler: mean and standard deviation of training.
        communicator: the ranks, each of which reads a part of the rows; one process by default.
        device: where ranks sum; the CPU by default.

    Returns:
        "channels": for each channel "mean", "std", "missing" and "outside" (the share of observed
        readings outside the range of training), with "training_mean", "training_std" and
        "training_missing" beside them, "psi", and "shift": the mean of reading minus typical
        reading of that sensor at that time, in standard deviations of training. "sensors": for each
        channel the five sensors with the largest shift, and their shares "missing" and "outside".
        None stands for what no reading was observed for.
    """
    communicator = SingleProcess() if communicator is None else communicator
    channels = store.meta.channels
    edges, expected = zip(*(_tenths(of_one) for of_one in typical.quantiles.T), strict=True)
    sums = np.zeros((3, store.meta.num_nodes, len(channels)))  # observed, outside, shift
    histogram = np.zeros((len(channels), _BINS))
    stride = max(1, -(-len(rows) * store.meta.num_nodes // _MAX_SAMPLED))
    part = even_part(len(rows), communicator.world_size, communicator.rank)
    for first, chunk in _chunks(store, rows[part.start : part.stop]):
        bins = typical.bins(store.time_axis, np.arange(first, first + len(chunk)))
        observed = ~np.isnan(chunk)
        sums[0] += observed.sum(axis=0)
        sums[1] += ((chunk < typical.minimum) | (chunk > typical.maximum)).sum(axis=0)
        sums[2] += np.nansum(chunk - typical.table[bins], axis=0, dtype=np.float64)
        sampled = chunk[(rows.start - first) % stride :: stride]
        for c in range(len(channels)):
            values = sampled[..., c].ravel()
            places = np.searchsorted(edges[c], values[~np.isnan(values)], side="right")
            histogram[c] += np.bincount(places, minlength=_BINS)
    tensors = [torch.from_numpy(each).to(device or "cpu") for each in (sums, histogram)]
    communicator.all_reduce_coalesced_(tensors, "metrics")
    sums, histogram = (each.cpu().numpy() for each in tensors)
    moments, num_readings = store.moments(rows), max(1, len(rows) * store.meta.num_nodes)
    std = np.sqrt(moments.m2 / np.maximum(moments.count, 1))
    training_mean, training_std = _training_moments(scaler, typical)
    found: dict[str, Any] = {"channels": {}, "sensors": {}}
    for c, name in enumerate(channels):
        count = moments.count[c]
        found["channels"][name] = {
            "mean": float(moments.mean[c]) if count else None,
            "training_mean": float(training_mean[c]),
            "std": float(std[c]) if count else None,
            "training_std": float(training_std[c]),
            "missing": float(1 - count / num_readings),
            "training_missing": float(1 - typical.observed[:, c].astype(np.float64).mean()),
            "outside": float(sums[1, :, c].sum() / count) if count else None,
            "psi": _psi(histogram[c], expected[c]),
            "shift": float(sums[2, :, c].sum() / count / scaler.std[c]) if count else None,
        }
        found["sensors"][name] = _worst(sums[..., c], scaler.std[c], len(rows), store.meta.node_ids)
    return found


def _training_moments(
    scaler: Scaler, typical: TypicalReadings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel in training, [C].

    With offsets the deviation is a close one: that of a scaler with offsets is a power of two.
    """
    mean, std = np.array(scaler.mean), np.array(scaler.std)
    offsets = scaler.offset_array
    if offsets is None:
        return mean, std
    shares = typical.observed / typical.observed.sum(axis=0)
    center = (shares * offsets).sum(axis=0)
    return center, np.sqrt((shares * np.square(offsets - center)).sum(axis=0) + np.square(std))


def describe_drift(drift: Mapping[str, Any], units: Mapping[str, str]) -> str | None:
    """One line that says which channels have drifted far; None if none has.

    A large index alone is no drift: a few hours of a day are distributed in another way than whole
    weeks. It counts where readings are also far from what is typical of those hours.

    Args:
        drift: as `measure_drift` returns it.
        units: of the channels by name, "" where unknown.
    """
    lines = []
    for name, of_one in drift["channels"].items():
        if of_one["mean"] is None:
            lines.append(f"{name} was never observed")
            continue
        signs = []
        if of_one["psi"] > LARGE_PSI and abs(of_one["shift"]) > _LARGE_SHIFT:
            behind = f" {units[name]}" if units.get(name) else ""
            signs.append(
                f"mean {of_one['mean']:.4g}{behind}, in training {of_one['training_mean']:.4g} "
                f"(population stability index {of_one['psi']:.2f})"
            )
        if of_one["missing"] - of_one["training_missing"] > _LARGE_MISSING:
            signs.append(
                f"{of_one['missing']:.0%} missing, in training {of_one['training_missing']:.0%}"
            )
        if of_one["outside"] > _LARGE_OUTSIDE:
            signs.append(f"{of_one['outside']:.0%} outside the range of training")
        if signs:
            lines.append(f"{name}: {', '.join(signs)}")
    return f"the inputs differ from those of training: {'; '.join(lines)}" if lines else None


def drift_frame(splits: Mapping[str, Mapping[str, Any]], level: str) -> pd.DataFrame:
    """What `measure_drift` returned for each split as a table.

    Args:
        splits: contents of a report; "drift" of each is used.
        level: "channels", a row each, or "sensors", a row for each that is listed.

    Raises:
        ConfigError: if a split has no drift, because an earlier version evaluated it.
    """
    rows: list[dict[str, Any]] = []
    for split, content in splits.items():
        if "drift" not in content:
            raise ConfigError("the report has no drift: evaluate the run again to measure it")
        for channel, found in content["drift"][level].items():
            several = found if level == "sensors" else [found]
            rows += [{"split": split, "channel": channel, **each} for each in several]
    frame = pd.DataFrame(rows)
    texts = [name for name in ("split", "channel", "sensor") if name in frame]
    numbers = [name for name in frame if name not in texts]
    return frame.astype(dict.fromkeys(texts, "str") | dict.fromkeys(numbers, "float64"))


def _chunks(store: SeriesStore, rows: range) -> Iterator[tuple[int, NDArray[np.floating[Any]]]]:
    """First row and readings of one chunk after the other."""
    size = max(1, _CHUNK_READINGS // (store.meta.num_nodes * store.meta.num_channels))
    for first in range(rows.start, rows.stop, size):
        yield first, store.read(first, min(first + size, rows.stop))
        store.release()


def _tenths(
    quantiles: NDArray[np.floating[Any]],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Edges between the tenths of the training readings, and the share of training in each bin.

    Where many readings are equal, some bins are empty in training and others hold more.
    """
    step = (len(quantiles) - 1) // _BINS
    edges = quantiles[step:-1:step]
    between = (quantiles[1:] + quantiles[:-1]) / 2  # each stands for as many training readings
    counts = np.bincount(np.searchsorted(edges, between, side="right"), minlength=_BINS)
    return edges, counts / len(between)


def _psi(counts: NDArray[np.float64], expected: NDArray[np.float64]) -> float | None:
    if not counts.sum():
        return None
    now = np.maximum(counts / counts.sum(), _LEAST_SHARE)
    before = np.maximum(expected, _LEAST_SHARE)
    return float(((now - before) * np.log(now / before)).sum())


def _worst(
    sums: NDArray[np.float64], std: float, num_rows: int, node_ids: tuple[str, ...]
) -> list[dict[str, Any]]:
    """The sensors that differ most from what is typical of them; first those never observed."""
    observed, outside, shift = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        shift, outside = shift / observed / std, outside / observed
    order = np.argsort(-np.nan_to_num(np.abs(shift), nan=math.inf), kind="stable")
    return [
        {
            "sensor": node_ids[node],
            "shift": float(shift[node]) if observed[node] else None,
            "missing": float(1 - observed[node] / max(1, num_rows)),
            "outside": float(outside[node]) if observed[node] else None,
        }
        for node in order[:_NUM_SENSORS]
    ]
