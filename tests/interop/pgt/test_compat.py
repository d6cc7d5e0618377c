"""`pgt_compat=True`: the batches, the graph and the statistics of PGT's own loaders, to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pgti.interop import pgt
from pgti.interop.pgt import get_index_dataset

from .data_files import (
    CLASSES,
    NODES,
    STEPS,
    WRITERS,
    assert_same,
    batches,
    make_store,
    needs_pgt,
    pgt_loader,
    times_of_day,
    write_metr_la,
)

DATA = Path(__file__).parents[4] / "shared" / "data"
WEEK = DATA / "metr_la_week.npz"
CHICKENPOX = DATA / "raw" / "chickenpox.json"


def needs(path: Path) -> pytest.MarkDecorator:
    return pytest.mark.skipif(not path.exists(), reason=f"needs {path.name} in ../shared/data")


@needs_pgt
@pytest.mark.parametrize("name", list(WRITERS))
def test_compatible_batches_are_those_of_pgt(name: str, tmp_path: Path) -> None:
    """Bits, dtypes and shapes of everything that is returned, with every default."""
    WRITERS[name](tmp_path)
    theirs = pgt_loader(name, tmp_path).get_index_dataset()
    assert_same(get_index_dataset(name, data_dir=tmp_path, pgt_compat=True), theirs)
    kind = getattr(pgt, CLASSES[name])
    given: dict[str, Any] = {"raw_data_dir": tmp_path, "index": True}
    assert_same(kind(**given).get_index_dataset(pgt_compat=True), theirs)


@needs_pgt
@pytest.mark.parametrize("name", ["METR-LA", "PeMS", "Chickenpox"])
@pytest.mark.parametrize("ratio", [(0.6, 0.2, 0.2), (0.5, 0.0, 0.3)])
def test_compatible_orders_are_those_of_pgt(
    name: str, ratio: tuple[float, float, float], tmp_path: Path
) -> None:
    """Shuffled by torch's generator, in all splits, and the second share is not read."""
    WRITERS[name](tmp_path)
    arguments: dict[str, Any] = {"lags": 6, "batch_size": 7, "shuffle": True, "ratio": ratio}
    torch.manual_seed(3)
    theirs = [
        batches(each) for each in pgt_loader(name, tmp_path).get_index_dataset(**arguments)[:3]
    ]
    torch.manual_seed(3)
    ours = get_index_dataset(name, data_dir=tmp_path, pgt_compat=True, **arguments)
    for mine, expected in zip([batches(each) for each in ours[:3]], theirs, strict=True):
        for batch, wanted in zip(mine, expected, strict=True):
            assert torch.equal(batch[0], wanted[0])
            assert torch.equal(batch[1], wanted[1])


@needs_pgt
@pytest.mark.parametrize("shuffle", [False, True])
def test_compatible_ranks_are_those_of_pgt(shuffle: bool, tmp_path: Path) -> None:
    write_metr_la(tmp_path)
    for rank in range(3):
        arguments: dict[str, Any] = {
            "lags": 5, "batch_size": 4, "shuffle": shuffle, "world_size": 3, "ddp_rank": rank,
        }  # fmt: skip
        theirs = pgt_loader("METR-LA", tmp_path).get_index_dataset(**arguments)
        ours = get_index_dataset("METR-LA", data_dir=tmp_path, pgt_compat=True, **arguments)
        for epoch in range(2):
            for loaders in (theirs, ours):
                loaders[0].sampler.set_epoch(epoch)
            assert_same(ours, theirs)


@needs_pgt
@needs(WEEK)
def test_a_real_week_of_metr_la(tmp_path: Path) -> None:
    content = np.load(WEEK)
    speed = content["speed"].astype(np.float64)
    of_day = (np.arange(len(speed)) % 288 / 288)[:, None].repeat(speed.shape[1], axis=1)
    np.save(tmp_path / "node_values.npy", np.stack((speed, of_day), axis=-1))
    np.save(tmp_path / "adj_mat.npy", content["adj"])
    (tmp_path / "METR-LA.zip").touch()
    theirs = pgt_loader("METR-LA", tmp_path).get_index_dataset()
    ours = pgt.METRLADatasetLoader(tmp_path, True).get_index_dataset(pgt_compat=True)
    assert ours[3].shape == (2, 1722)
    assert_same(ours, theirs)


@needs_pgt
@needs(CHICKENPOX)
def test_the_real_chickenpox(tmp_path: Path) -> None:
    (tmp_path / "chickenpox.json").write_bytes(CHICKENPOX.read_bytes())
    theirs = pgt_loader("Chickenpox", tmp_path).get_index_dataset()
    ours = get_index_dataset("Chickenpox", data_dir=tmp_path, pgt_compat=True)
    assert [len(loader.dataset) for loader in ours[:3]] == [360, 51, 103]
    assert_same(ours, theirs)


@pytest.mark.parametrize("name", list(WRITERS))
def test_a_lazy_compatible_series_has_the_same_numbers(name: str, tmp_path: Path) -> None:
    """PGT fails here. The sums go in another order, so the last bits may differ."""
    WRITERS[name](tmp_path)
    held, lazy = (
        get_index_dataset(name, data_dir=tmp_path, pgt_compat=True, dask_batching=choice)
        for choice in (False, True)
    )
    for one, other in zip(held[:3], lazy[:3], strict=True):
        for batch, expected in zip(batches(one), batches(other), strict=True):
            torch.testing.assert_close(batch, expected, rtol=1e-5, atol=1e-5)
    for one, other in zip(held[3:], lazy[3:], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@needs_pgt
def test_a_compatible_store_is_what_pgt_makes_of_the_same_readings(tmp_path: Path) -> None:
    """Written as METR-LA's files."""
    store = make_store(tmp_path / "store")
    read = np.nan_to_num(store.read(0, STEPS))
    of_day = times_of_day()[:, None, None].repeat(NODES, axis=1).astype(np.float32)
    np.save(tmp_path / "node_values.npy", np.concatenate((read, of_day), axis=-1))
    np.save(tmp_path / "adj_mat.npy", store.graph.adjacency.toarray())
    (tmp_path / "METR-LA.zip").touch()
    theirs = pgt_loader("METR-LA", tmp_path).get_index_dataset()
    assert_same(get_index_dataset(store, pgt_compat=True), theirs)


@pytest.mark.parametrize("name", list(WRITERS))
def test_compatible_statistics_of_a_gpu_divide_by_one_less(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32; of the shape that each of PGT's loaders returns there."""
    WRITERS[name](tmp_path)
    held = get_index_dataset(name, data_dir=tmp_path, pgt_compat=True)
    monkeypatch.setattr("pgti.interop.pgt.data.options.cuda_device", lambda _: torch.device("cpu"))
    resident = get_index_dataset(name, allGPU=0, data_dir=tmp_path, pgt_compat=True)
    x, _ = next(iter(resident[0]))
    assert x.dtype == torch.float32
    if name == "Chickenpox":
        assert torch.equal(x, next(iter(held[0]))[0].float())
        return
    count = STEPS if name == "WindmillLarge" else STEPS * NODES
    torch.testing.assert_close(resident[5].flatten(), held[5], rtol=1e-5, atol=1e-6)
    wider = held[6] * (count / (count - 1)) ** 0.5
    torch.testing.assert_close(resident[6].flatten(), wider, rtol=1e-5, atol=1e-6)
    assert resident[6].shape == {"PeMS": (1, 1, 2), "PeMS-All-LA": (1, 1, 2)}.get(
        name, held[6].shape
    )
    narrower = next(iter(held[0]))[0] * ((count - 1) / count) ** 0.5
    torch.testing.assert_close(x, narrower.float(), rtol=1e-4, atol=1e-5)
