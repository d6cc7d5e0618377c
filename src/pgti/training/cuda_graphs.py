"""CUDA graphs: what a function starts on a GPU, recorded once and replayed."""

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, Protocol

import torch

__all__ = ["CudaRecorder", "GraphRecorder"]


class GraphRecorder(Protocol):
    """Records what a function starts on a device, and replays it."""

    def on_side_stream(self) -> AbstractContextManager[None]:
        """A context in which work runs as it is recorded, after all that came before."""

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """Record a function without computing anything; what is returned replays it.

        Raises:
            Exception: it cannot be recorded. Nothing is changed then.
        """

    def lacks_memory(self) -> str | None:
        """Why there is no room for a recorded step beside one that is not; None if there is."""


class CudaRecorder:
    """Records CUDA graphs, whose memory is one pool.

    Args:
        device: the GPU, with its index.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call] # torch does not annotate it
        self._pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def on_side_stream(self) -> Generator[None]:
        """As `GraphRecorder` says."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            yield
        current.wait_stream(self._stream)

    def record(self, function: Callable[[], None]) -> Callable[[], None]:
        """As `GraphRecorder` says.

        Draws of the device's generator are recorded as draws: a replay continues from the seed that
        the generator has then, as the function itself would.
        """
        graph = torch.cuda.CUDAGraph()
        current = torch.cuda.current_stream(self._device)
        generator = torch.cuda.default_generators[self._device.index]
        state = generator.get_state()
        failure: BaseException | None = None
        try:
            # Other threads may copy batches to the device meanwhile.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                try:
                    function()
                except BaseException as error:
                    failure = error
                    raise
        except BaseException:
            # torch leaves the stream and the generator as they were within the graph.
            torch.cuda.set_stream(current)
            _end_allocation(self._device, self._pool)
            generator.graphsafe_set_state(torch.Generator(self._device).graphsafe_get_state())
            generator.set_state(state)
            if failure is not None:  # the end of the recording says less
                raise failure from None
            raise
        return graph.replay

    def lacks_memory(self) -> str | None:
        """As `GraphRecorder` says, from the most that was allocated so far."""
        allocated = torch.cuda.memory_allocated(self._device)
        of_step = torch.cuda.max_memory_allocated(self._device) - allocated
        unused = torch.cuda.memory_reserved(self._device) - allocated
        usable = torch.cuda.mem_get_info(self._device)[0] + unused
        if 2 * of_step <= usable:
            return None
        return f"a step takes {of_step / 2**30:.1f} GiB, and a recorded one as much again"


def _end_allocation(device: torch.device, pool: Any) -> None:
    """Have the allocator know that no graph is recorded any more, whose recording has failed.

    Before torch 2.13 it does not, and then frees no memory that two streams have used.
    """
    names = ("_cuda_endAllocateToPool", "_cuda_endAllocateCurrentStreamToPool")  # from 2.7, in 2.6
    end = next(found for name in names if (found := getattr(torch._C, name, None)) is not None)
    with suppress(RuntimeError):  # it knows
        end(device.index, pool)
