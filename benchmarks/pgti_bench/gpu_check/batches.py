"""Batches on the GPU against those of the standard strategy on the CPU, bit for bit."""

import itertools
from typing import get_args

import numpy as np
import torch

from pgti.batching import Batch, WindowSource, build_batcher, build_loader
from pgti.batching.config import Fill
from pgti.graph import SensorGraph
from pgti.store import Scaler, SeriesStore, StoreWriter, TypicalReadings
from pgti.windows import BlockShuffle, GlobalShuffle, WindowSpec
from pgti_bench.gpu_check.setting import Setting

__all__ = ["check"]

_NUM_STEPS, _BATCH_SIZE = 120, 16
_SPEC = WindowSpec(input_steps=6, horizon=3)


def check(setting: Setting) -> None:
    """Compare sources with and without a grid, gaps, filling and climatologies, in two orders."""
    for grid, has_gaps, fill in itertools.product((True, False), (True, False), get_args(Fill)):
        name = ", ".join(
            [
                "int16" if grid else "float32",
                "with gaps" if has_gaps else "complete",
                f"filled by the {'last reading' if fill == 'last' else 'mean'}",
            ]
        )
        with setting.guard(name):
            source = _source(setting, grid=grid, has_gaps=has_gaps, fill=fill)
            compared = differing = 0
            for batching in ("index", "device", "standard"):
                for order in (GlobalShuffle(1), BlockShuffle(1, 8)):
                    loader = build_loader(
                        source,
                        _SPEC.starts(_NUM_STEPS),
                        _BATCH_SIZE,
                        order,
                        device=setting.device,
                        batching=batching,
                    )
                    oracle = build_batcher("standard", source, torch.device("cpu"))
                    for batch in loader.epoch(0):
                        compared += 1
                        differing += not _equal(batch, oracle.gather(batch.starts))
            setting.add(name, {"batches": compared, "differing": differing}, passed=differing == 0)


def _source(setting: Setting, *, grid: bool, has_gaps: bool, fill: Fill) -> WindowSource:
    generator = np.random.default_rng(5)
    values = generator.integers(-200, 900, (_NUM_STEPS, 20, 2)) / (10 if grid else 3)
    if has_gaps:
        values[generator.random(values.shape) < 0.2] = np.nan
    path = setting.scratch / f"batches-{grid}-{has_gaps}-{fill}"
    with StoreWriter(
        path,
        node_ids=tuple(map(str, range(20))),
        channels=("speed", "flow"),
        graph=SensorGraph.empty(20),
    ) as writer:
        writer.append(values)
        writer.finish(start=np.datetime64("2025-10-01T00:00"), interval_seconds=300)
    store = SeriesStore.open(path)
    train = range(_NUM_STEPS // 2)
    return WindowSource(
        store=store,
        spec=_SPEC,
        scaler=Scaler.fit(store, train),
        target_indices=(0,),
        calendar=("time-of-day", "day-of-week"),
        typical=TypicalReadings.fit(store, train),
        fill=fill,
        observed_mask=has_gaps,
        climatology=True,
    )


def _equal(found: Batch, expected: Batch) -> bool:
    pairs = [
        (getattr(found, name), getattr(expected, name))
        for name in ("x", "x_mask", "y", "y_mask", "calendar")
    ]
    return all(torch.equal(left.cpu(), right) for left, right in pairs)
