"""Stop signals, which the training loop obeys between two steps, on all ranks after the same."""

import math
import signal
import threading
import time
from types import FrameType
from typing import Self

from pgti.distributed import Communicator
from pgti.training.gradients import STOP_BITS

__all__ = ["StopSignals", "StopVote"]

_STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
    if hasattr(signal, name)
)


class StopSignals:
    """While entered, signals that ask to stop set `received` instead of ending the process.

    They are SIGTERM, SIGINT, SIGUSR1, which SLURM can send some time before a job's time limit, and
    SIGHUP, which ends what a closed terminal leaves; those that are ignored stay so, as by nohup.
    A second SIGINT raises KeyboardInterrupt at once. Outside the main thread, where Python allows
    no handlers, none is installed. Leaving restores the previous handlers.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._previous: dict[int, signal._HANDLER] = {}

    def __enter__(self) -> Self:
        self.received = None
        if threading.current_thread() is threading.main_thread():
            for number in _STOPPING:
                if number != signal.SIGINT and signal.getsignal(number) is signal.SIG_IGN:
                    continue
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous.clear()

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None and number == signal.SIGINT:
            signal.default_int_handler(number, frame)
        self.received = number


_CALLBACK_BIT = 1 << (STOP_BITS - 1)
_SAVE_BIT = 1 << (STOP_BITS - 2)
_SECONDS_BETWEEN_VOTES = 1.0


class StopVote:
    """Whether the ranks stop, because of a signal to any of them or a callback of any, or save.

    Within an epoch, `bits` and `receive` carry the requests in the messages of training steps,
    without a message of their own. `hold` asks the ranks at once.

    Args:
        communicator: the ranks.
        save_seconds: time after which rank 0 asks all of them to save their state, again and again;
            0 for never.

    Attributes:
        signals: those of this rank, while entered.
        is_save_due: whether the last training step carried the request to save.
        signal_number: what the ranks have agreed to stop for; 0 until then.
        has_callback_stopped: whether the ranks know that a callback of any of them asks to stop.
    """

    def __init__(self, communicator: Communicator, save_seconds: float = 0.0) -> None:
        self._communicator = communicator
        is_asking = communicator.is_main and save_seconds > 0
        self._save_seconds = save_seconds if is_asking else math.inf
        self._save_at = time.monotonic() + self._save_seconds
        self.is_save_due = False
        self.signals = StopSignals()
        self.signal_number = 0
        self.has_callback_stopped = False
        self._asks = False
        self._batches_between, self._batches_left, self._held_at = 1, 1, time.monotonic()

    def ask(self) -> None:
        """Ask the ranks to stop, for a callback; one process stops at once."""
        self._asks = True
        self.has_callback_stopped |= self._communicator.world_size == 1

    def bits(self) -> int:
        """Why this rank asks to stop or to save, as a training step carries it."""
        number = self.signals.received
        bits = 0 if number is None else 1 << _STOPPING.index(number)
        if time.monotonic() >= self._save_at:  # asked once: GPUs hear of it a step late
            self._save_at = time.monotonic() + self._save_seconds
            bits |= _SAVE_BIT
        return bits | (_CALLBACK_BIT if self._asks else 0)

    def receive(self, bits: int) -> None:
        """Obey what a training step gives: the bits of all ranks."""
        numbers = [int(number) for place, number in enumerate(_STOPPING) if bits >> place & 1]
        self.signal_number = max(numbers, default=0)
        self.has_callback_stopped |= bool(bits & _CALLBACK_BIT)
        self.is_save_due = bool(bits & _SAVE_BIT)

    def hold(self) -> None:
        """Ask all ranks; each waits for the others."""
        self._hold(1)

    def hold_at_batch(self) -> None:
        """Before a batch without a training step: ask all ranks about once a second.

        The fastest of them decides before which batch, so that all ask together.
        """
        if self._batches_left:
            self._batches_left -= 1
            return
        seconds = max(time.monotonic() - self._held_at, 1e-3) / self._batches_between
        self._hold(max(1, int(_SECONDS_BETWEEN_VOTES / seconds)))

    def _hold(self, batches_between: int) -> None:
        """Ask all ranks; the next vote is as many batches later as any of them wants."""
        self.signal_number, callback, most = self._communicator.all_reduce_max(
            [self.signals.received or 0, int(self._asks), batches_between]
        )
        self.has_callback_stopped |= bool(callback)
        self._batches_between = self._batches_left = most
        self._held_at = time.monotonic()
