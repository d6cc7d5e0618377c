"""Checkpoints written by a thread, while training takes its next steps."""

from concurrent.futures import Future, ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pgti.errors import PgtiError, RunError
from pgti.training.checkpoint import Checkpoint

__all__ = ["CheckpointWriter"]


class CheckpointWriter:
    """Writes checkpoints in the order in which they come, one at a time.

    The state is copied when it is handed over; training may change it at once. What goes wrong in
    the thread is raised by the next call.
    """

    def __init__(self) -> None:
        self._thread: ThreadPoolExecutor | None = None
        self._writing: Future[None] | None = None

    def write(self, checkpoint: Checkpoint, path: Path) -> None:
        """Begin to write a checkpoint, once the one before is complete.

        Args:
            checkpoint: the state, on any device.
            path: its file, which is replaced atomically.

        Raises:
            RunError: if the one before could not be written.
        """
        self.wait()
        host = _HostCopy()
        copied = replace(
            checkpoint,
            network=host.of(checkpoint.network),
            optimizer=host.of(checkpoint.optimizer),
            trained=host.of(checkpoint.trained),
        )
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="pgti checkpoint writer")
        self._writing = self._thread.submit(_write, copied, host, path)

    def wait(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
            RunError: if it could not be written.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def join(self) -> None:
        """Wait until the last checkpoint is complete, or has failed, and end the thread."""
        if self._thread is not None:
            self._thread.shutdown()
            self._thread = self._writing = None


def _write(checkpoint: Checkpoint, host: "_HostCopy", path: Path) -> None:
    try:
        host.synchronize()
        checkpoint.save(path)
    except PgtiError:
        raise
    except Exception as error:  # it reaches the user from another place than its own
        raise RunError(f"{path} cannot be written: {type(error).__name__}: {error}") from error


class _HostCopy:
    """Copies the tensors of a state into memory of the host; those of GPUs without waiting."""

    def __init__(self) -> None:
        self._copies: dict[tuple[Any, ...], Tensor] = {}
        self._copied: dict[torch.device, torch.cuda.Event] = {}

    def of(self, state: Any) -> Any:
        """The same mappings and lists, with copies of the tensors; shared ones stay shared."""
        if isinstance(state, Tensor):
            return self._of_tensor(state)
        if isinstance(state, dict):
            copied = copy(state)  # with the versions of modules that an OrderedDict has beside it
            copied.update((name, self.of(value)) for name, value in state.items())
            return copied
        if isinstance(state, list | tuple):
            return type(state)(map(self.of, state))
        return state

    def synchronize(self) -> None:
        """Wait until the copies from GPUs have arrived."""
        for event in self._copied.values():
            event.synchronize()

    def _of_tensor(self, tensor: Tensor) -> Tensor:
        tensor = tensor.detach()
        if tensor.layout != torch.strided:  # a sparse buffer of a network of the user's own
            return tensor.cpu().clone()
        key = (tensor.data_ptr(), tensor.device, tensor.dtype, tensor.shape, tensor.stride())
        if key not in self._copies:
            is_on_gpu = tensor.device.type == "cuda"
            on_host = torch.empty_like(tensor, device="cpu", pin_memory=is_on_gpu)
            self._copies[key] = on_host.copy_(tensor, non_blocking=is_on_gpu)
            if is_on_gpu:
                event = self._copied.setdefault(tensor.device, torch.cuda.Event())  # type: ignore[no-untyped-call] # torch
                event.record(torch.cuda.current_stream(tensor.device))
        return self._copies[key]
