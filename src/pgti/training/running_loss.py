"""The mean loss so far, on the device until it is asked for."""

import torch

from pgti.distributed import Communicator

__all__ = ["RunningLoss"]


class RunningLoss:
    """Sum of this rank's losses and the count behind it, accumulated on the device.

    Args:
        device: where batches are.

    Attributes:
        total: summed loss, float64 scalar.
        count: observed targets (or what a loss of a user's own counts), float64 scalar.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.reset()

    def reset(self, total: float = 0.0, count: float = 0.0) -> None:
        """Start again from a sum and its count."""
        self.total = torch.tensor(total, dtype=torch.float64, device=self._device)
        self.count = torch.tensor(count, dtype=torch.float64, device=self._device)

    def read_own(self) -> float | None:
        """Mean loss of this rank alone; None where nothing was observed. Waits for the device."""
        count = float(self.count)
        return float(self.total) / count if count else None

    def read(self, communicator: Communicator) -> tuple[float, float]:
        """Sum and count over all ranks; waits for the device. Every rank must call it."""
        total, count = self.total.clone(), self.count.clone()
        communicator.all_reduce_(total, "metrics")
        communicator.all_reduce_(count, "metrics")
        return float(total), float(count)
