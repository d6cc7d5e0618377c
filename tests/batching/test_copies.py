"""Copies to a GPU beside its computation, with streams whose work is done as late as it may be.

On the stand-in, a copy happens when something waits for it, and not before: whoever reads rows
without waiting reads garbage, and who writes pinned memory too early changes what is copied.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pgti.batching import Batcher, BatchLoader, WindowSource, copies, loader
from pgti.batching.assembler import TorchAssembler
from pgti.batching.batcher import WindowBatcher
from pgti.batching.copies import CopyStream, PinnedArrays
from pgti.batching.device_rows import DeviceRows
from pgti.batching.host_rows import HostRows
from pgti.batching.mapped_series import MappedSeries
from pgti.windows import BlockShuffle, GlobalShuffle, Order, Sequential, WindowSpec

from .sources import CPU, assert_same, make_source, request, resident_on_a_gpu, standard

SPEC = WindowSpec(input_steps=5, horizon=3)
NUM_STEPS = 120
STARTS = SPEC.starts(NUM_STEPS)
ORDERS = [GlobalShuffle(3), BlockShuffle(3, 4), Sequential()]


class LateStream:
    """A stream that works only when an event on it is waited for.

    Attributes:
        pending: what it has still to do.
        log: what was waited for, by whom.
    """

    def __init__(self, device: torch.device | None = None, log: list[str] | None = None) -> None:
        self.device = device
        self.pending: list[Callable[[], None]] = []
        self.log: list[str] = [] if log is None else log

    def work_until(self, length: int) -> None:
        """Do the first of what is pending."""
        for work in self.pending[:length]:
            work()
        del self.pending[:length]

    def wait_event(self, event: "LateEvent") -> None:
        """The computation waits for a copy."""
        self.log.append("computation waits for the copy")
        event.complete()


class LateEvent:
    """Complete once its stream has done what was asked of it before."""

    def __init__(self) -> None:
        self._stream: LateStream | None = None
        self._number = 0

    def record(self, stream: LateStream) -> None:
        """Remember how far the stream has to come."""
        self._stream = stream
        stream.pending.append(self._reached)
        self._is_complete = False

    def _reached(self) -> None:
        self._is_complete = True

    def complete(self) -> None:
        """Have the stream come so far."""
        assert self._stream is not None
        if not self._is_complete:
            self._stream.work_until(self._stream.pending.index(self._reached) + 1)
        assert self._is_complete

    def query(self) -> bool:
        """Whether nothing is left to wait for."""
        return self._is_complete

    def synchronize(self) -> None:
        """The host waits."""
        assert self._stream is not None
        self._stream.log.append("host waits for the copy")
        self.complete()


class Cuda:
    """The stand-in: one stream of copies at a time, and the computation's.

    Attributes:
        log: waits, in their order.
        used: tensors that the computation's stream has recorded.
    """

    def __init__(self) -> None:
        self.log: list[str] = []
        self.used: list[Tensor] = []
        self.computing = LateStream(log=self.log)
        self._current = self.computing

    def new_stream(self, device: torch.device) -> LateStream:
        """A stream of copies."""
        return LateStream(device, self.log)

    @contextmanager
    def on(self, stream: LateStream) -> Iterator[None]:
        """As `torch.cuda.stream`."""
        before, self._current = self._current, stream
        yield
        self._current = before

    def copy(self, tensor: Tensor, _device: torch.device) -> Tensor:
        """A copy that the current stream makes later: until then, it holds other numbers."""
        copied = torch.zeros_like(tensor)
        self._current.pending.append(lambda: copied.copy_(tensor))
        return copied

    def use(self, tensor: Tensor, stream: LateStream) -> Tensor:
        """As `Tensor.record_stream`."""
        assert stream is self.computing
        self.used.append(tensor)
        return tensor


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    made = Cuda()
    monkeypatch.setattr(torch.cuda, "Stream", made.new_stream)
    monkeypatch.setattr(torch.cuda, "Event", LateEvent)
    monkeypatch.setattr(torch.cuda, "stream", made.on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: made.computing)
    monkeypatch.setattr(copies, "_copy", made.copy)
    monkeypatch.setattr(copies, "_used_by", made.use)
    monkeypatch.setattr(copies, "_pinned_bytes", lambda size: torch.empty(size, dtype=torch.uint8))
    array = PinnedArrays.array

    def guarded(scratch: PinnedArrays, *arguments: Any) -> Any:
        assert scratch.copied is None, "memory is written before the copy from it is waited for"
        return array(scratch, *arguments)

    monkeypatch.setattr(PinnedArrays, "array", guarded)
    return made


def uploaded(source: WindowSource, depth: int) -> Batcher[Any]:
    """Host rows as a GPU gets them."""
    rows = HostRows(source, CPU, MappedSeries(source.store))
    rows._copies = CopyStream(CPU)
    return WindowBatcher(source, CPU, rows, TorchAssembler(source, CPU), depth)


@pytest.mark.parametrize("order", ORDERS, ids=repr)
@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_late_copies_give_the_same_bits(
    tmp_path: Path, cuda: Cuda, order: Order, depth: int
) -> None:
    """Epochs, one that is abandoned, one that begins in its middle, and windows asked for alone."""
    source = make_source(
        tmp_path / "s", (NUM_STEPS, 4, 2), SPEC, missing=0.2, calendar=("time-of-day",)
    )
    batcher = uploaded(source, depth)
    batches_of = BatchLoader(batcher, STARTS, 8, order)
    expected = list(
        map(
            standard(source).gather, np.split(order.epoch(len(STARTS), 1), range(8, len(STARTS), 8))
        )
    )
    abandoned = batches_of.epoch(0)
    for _ in islice(abandoned, 2):
        pass
    abandoned.close()
    for first in (0, 5):
        found = batches_of.epoch(1, first)
        for batch, wanted in zip(found, expected[first:], strict=True):
            assert_same(batch, wanted)
    for wanted in expected[:3]:
        assert_same(batcher.gather(wanted.starts), wanted)
    assert cuda.used
    assert "computation waits for the copy" in cuda.log


def test_a_copy_starts_while_the_batch_before_is_used(
    tmp_path: Path, cuda: Cuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch ahead, where it is fetched; and each is copied once."""
    fetched = property(lambda each: each._future.exception() is None)  # waits for the thread
    monkeypatch.setattr(loader._Fetching, "is_fetched", fetched)
    source = make_source(tmp_path / "s", (NUM_STEPS, 4, 2), SPEC)
    batcher = uploaded(source, 3)
    uploads = list[int]()
    upload = batcher.upload

    def counted(fetched: Any, scratch: Any) -> Any:
        assert isinstance(scratch, PinnedArrays)
        uploads.append(len(fetched.starts))
        return upload(fetched, scratch)

    batcher.upload = counted  # type: ignore[method-assign]
    batches = BatchLoader(batcher, STARTS, 8, Sequential()).epoch(0)
    next(batches)
    for taken in range(1, len(STARTS) // 8):
        assert len(uploads) == taken + 1
        next(batches)
    list(batches)
    assert sum(uploads) == len(STARTS)
    assert cuda.log.count("computation waits for the copy") == len(uploads)


@pytest.mark.usefixtures("cuda")
def test_pinned_memory_is_a_ring(tmp_path: Path, monkeypatch: Any) -> None:
    """An epoch allocates it for the batches in progress, and no more."""
    sizes = list[int]()

    def allocated(size: int) -> Tensor:
        sizes.append(size)
        return torch.empty(size, dtype=torch.uint8)

    monkeypatch.setattr(copies, "_pinned_bytes", allocated)
    source = make_source(tmp_path / "s", (NUM_STEPS, 4, 2), SPEC, calendar=("time-of-day",))
    rows = 8 * SPEC.span * 4 * 2 * source.store.raw.dtype.itemsize
    list(BatchLoader(uploaded(source, 3), STARTS, 8, GlobalShuffle(1)).epoch(0))
    assert sizes.count(rows) == 3
    list(BatchLoader(uploaded(source, 1), STARTS, 8, GlobalShuffle(1)).epoch(0))
    assert sizes.count(rows) == 4


def test_who_does_not_wait_reads_garbage(tmp_path: Path, cuda: Cuda) -> None:
    """The stand-in notices: it would be of no use otherwise."""
    source = make_source(tmp_path / "s", (NUM_STEPS, 4, 2), SPEC)
    expected = standard(source).gather(np.arange(8))
    batcher = uploaded(source, 1)
    cuda.computing.wait_event = lambda _: None  # type: ignore[method-assign]
    assert not torch.equal(batcher.gather(np.arange(8)).x, expected.x)
    del cuda.computing.wait_event
    cuda.log.clear()
    scratch = batcher.new_scratch()
    assert isinstance(scratch, PinnedArrays)
    moving = batcher.upload(batcher.fetch(request(np.arange(8), scratch=scratch)), scratch)
    with pytest.raises(AssertionError, match="before the copy"):
        batcher.fetch(request(np.arange(30, 38), scratch=scratch))
    scratch.wait()
    batcher.fetch(request(np.arange(30, 38), scratch=scratch))
    assert torch.equal(batcher.assemble(moving).x, expected.x)


@pytest.mark.parametrize("order", ORDERS, ids=repr)
def test_starts_move_once_an_epoch(tmp_path: Path, monkeypatch: Any, order: Order) -> None:
    """Nothing else does, once the series and its features are there."""
    source = make_source(
        tmp_path / "s", (NUM_STEPS, 4, 2), SPEC, climatology=True, calendar=("time-of-day",)
    )
    batcher = resident_on_a_gpu(source)
    batches_of = BatchLoader(batcher, STARTS, 8, order)
    batcher.gather(np.arange(3))
    moved = list[int]()

    def counted(array: Any, device: torch.device) -> Tensor:
        moved.append(len(array))
        return torch.from_numpy(array).to(device)

    monkeypatch.setattr("pgti.batching.device_rows.to_device", counted)
    monkeypatch.setattr(torch, "from_numpy", _refuse_but(torch.from_numpy, moved))
    list(batches_of.epoch(0))
    list(batches_of.epoch(1, 4))
    assert moved == [len(STARTS), len(STARTS) - 4 * 8]


def _refuse_but(from_numpy: Callable[..., Tensor], moved: list[int]) -> Callable[..., Tensor]:
    def refusing(array: Any) -> Tensor:
        assert len(array) == moved[-1], "only the starts of an epoch come from the host"
        return from_numpy(array)

    return refusing


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("order", ORDERS, ids=repr)
@pytest.mark.parametrize("kind", ["index", "device"])
def test_copies_of_a_gpu_give_the_same_bits(tmp_path: Path, order: Order, kind: str) -> None:
    """While the GPU is busy with the batch before, and where epochs are abandoned."""
    device = torch.device("cuda", torch.cuda.current_device())
    source = make_source(tmp_path / "s", (NUM_STEPS, 40, 2), SPEC, missing=0.2, climatology=True)
    rows: Any = DeviceRows(source, device)
    if kind == "index":
        rows = HostRows(source, device, MappedSeries(source.store))
    batcher = WindowBatcher(source, device, rows, TorchAssembler(source, device), 3)
    batches_of = BatchLoader(batcher, STARTS, 8, order)
    oracle, busy = standard(source), torch.randn(2048, 2048, device=device)
    for epoch in range(4):
        batches = batches_of.epoch(epoch)
        found = []
        for batch in islice(batches, 3 if epoch % 2 else None):
            found.append(batch.clone())
            busy = (busy @ busy).clamp(-1, 1)
        batches.close()
        for each in found:
            assert_same(each.to("cpu"), oracle.gather(each.starts))
