"""`IndexDataset`: PGT's windows, views of the series, and a batch in one gather."""

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from pgti.errors import ConfigError
from pgti.interop.pgt import IndexDataset, collate_windows

from .data_files import import_pgt, needs_pgt

INDICES = np.array([0, 7, 3, 12, 3])


def series(dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(1).normal(size=(23, 4, 2)).astype(dtype)


def read_only(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


class Lazy:
    """What a dask array is to PGT: slices that have `compute()`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.shape, self.computed = array, array.shape, 0

    def __getitem__(self, rows: Any) -> "Piece":
        return Piece(self, rows)


class Piece:
    """A slice of it."""

    def __init__(self, whole: Lazy, rows: Any) -> None:
        self.whole, self.rows = whole, rows

    def compute(self) -> np.ndarray:
        """The slice's numbers."""
        self.whole.computed += 1
        return self.whole.array[self.rows]


def dask_array(array: np.ndarray) -> Any:
    return pytest.importorskip("dask.array").from_array(array, chunks=(5, -1, -1))


def as_given(array: np.ndarray) -> np.ndarray:
    return array


def fortran(array: np.ndarray) -> np.ndarray:
    return np.asfortranarray(array)


def backwards(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array[::-1])[::-1]


CONTAINERS = [as_given, read_only, fortran, backwards, torch.from_numpy, Lazy, dask_array]


@needs_pgt
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("collate", [collate_windows, None], ids=["one gather", "torch's"])
def test_batches_are_those_of_pgt(dtype: str, collate: Any) -> None:
    theirs = import_pgt("signal.index_dataset").IndexDataset(INDICES, series(dtype), 4)
    ours = IndexDataset(INDICES, series(dtype), 4)
    assert len(ours) == len(theirs) == 5
    assert (ours.horizon, ours.lazy, ours.gpu) == (theirs.horizon, theirs.lazy, theirs.gpu)
    for index in range(5):
        for mine, other in zip(ours[index], theirs[index], strict=True):
            torch.testing.assert_close(mine, other, rtol=0, atol=0)
    batches = DataLoader(ours, batch_size=2, collate_fn=collate)
    for mine, other in zip(batches, DataLoader(theirs, batch_size=2), strict=True):
        assert type(mine) is type(other) is list
        for part, expected in zip(mine, other, strict=True):
            torch.testing.assert_close(part, expected, rtol=0, atol=0)
            assert part.is_contiguous()


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_windows(container: Any) -> None:
    """With inputs and horizon of other lengths, too."""
    array = series()
    dataset = IndexDataset(
        INDICES, container(array), 3, container in (Lazy, dask_array), input_steps=5
    )
    (x, y) = next(iter(DataLoader(dataset, batch_size=5, collate_fn=collate_windows)))
    for place, start in enumerate(INDICES):
        for past, future in (dataset[place], (x[place], y[place])):
            np.testing.assert_array_equal(past.numpy(), array[start : start + 5])
            np.testing.assert_array_equal(future.numpy(), array[start + 5 : start + 8])
    part = next(iter(DataLoader(Subset(dataset, [4, 1]), batch_size=2, collate_fn=collate_windows)))
    assert torch.equal(part[0], x[[4, 1]])


def test_items_are_views_where_they_can_be() -> None:
    array = series()
    x, y = IndexDataset(INDICES, array, 4)[1]
    array[7], array[11] = 100, 200
    assert (x[0] == 100).all()
    assert (y[0] == 200).all()
    tensor = torch.from_numpy(series())
    assert IndexDataset(INDICES, tensor, 4)[1][0].data_ptr() == tensor[7].data_ptr()


def test_what_is_read_only_is_not_written_through() -> None:
    """Torch would let a mapped file be written, which ends the process."""
    array = read_only(series())
    before = array.copy()
    dataset = IndexDataset(INDICES, array, 4)
    dataset[0][0].fill_(-1)
    dataset.__getitems__([0, 1]).tensors[0].fill_(-1)
    np.testing.assert_array_equal(array, before)


def test_a_batch_of_a_lazy_series_is_computed_once() -> None:
    lazy = Lazy(series())
    dataset = IndexDataset(INDICES, lazy, 4, lazy=True)
    dataset.__getitems__([0, 1, 2, 3])
    assert lazy.computed == 1
    assert IndexDataset(INDICES, series(), 4, lazy=True)[0][0].shape == (4, 4, 2)


def test_an_hdf5_dataset_is_a_lazy_series(tmp_path: Path) -> None:
    """It wants rows that rise, each once."""
    with h5py.File(tmp_path / "series.h5", "w") as file:
        file["series"] = series()
        dataset = IndexDataset(INDICES, file["series"], 4, lazy=True)
        x, _ = dataset.__getitems__([1, 0, 2]).tensors
    np.testing.assert_array_equal(x[0].numpy(), series()[7:11])
    np.testing.assert_array_equal(x[2].numpy(), series()[3:7])


def test_the_mask_of_the_horizon_is_a_third_part() -> None:
    mask = series() > 0
    dataset = IndexDataset(INDICES, series(), 4, mask=mask)
    np.testing.assert_array_equal(dataset[1][2].numpy(), mask[11:15])
    *_, observed = next(iter(DataLoader(dataset, batch_size=3, collate_fn=collate_windows)))
    np.testing.assert_array_equal(observed[1].numpy(), mask[11:15])


def test_workers_send_whole_batches() -> None:
    dataset = IndexDataset(INDICES, series(), 4)
    here = list(DataLoader(dataset, batch_size=2, collate_fn=collate_windows))
    there = DataLoader(
        copy.copy(dataset),
        batch_size=2,
        collate_fn=collate_windows,
        num_workers=1,
        multiprocessing_context="fork",
    )
    for mine, other in zip(here, there, strict=True):
        assert torch.equal(mine[0], other[0])
        assert torch.equal(mine[1], other[1])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"indices": [0, 16]},
            "index 16 is not the start of a window: .* 0 <= start <= 15",
        ),
        ({"indices": [-1]}, "index -1 is not the start of a window"),
        ({"indices": [0.5]}, "indices is an array of float64"),
        ({"indices": [[1]]}, r"int64 \(1, 1\): it must be one row"),
        ({"horizon": 0}, "horizon is 0"),
        ({"input_steps": 0}, "input_steps is 0"),
        ({"gpu": True}, "gpu is True and data is a ndarray"),
        ({"data": [1, 2, 3]}, "data is a list: it must have a shape"),
        ({"mask": np.ones((3, 4, 2))}, r"mask has shape \(3, 4, 2\) and data \(23, 4, 2\)"),
    ],
)
def test_refusals(arguments: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"indices": INDICES, "data": series(), "horizon": 4} | arguments
    with pytest.raises(ConfigError, match=message):
        IndexDataset(**given)


def test_no_window_at_all_is_an_empty_dataset() -> None:
    dataset = IndexDataset([], series(), 4)
    assert len(dataset) == 0
    assert list(DataLoader(dataset, batch_size=2, collate_fn=collate_windows)) == []
