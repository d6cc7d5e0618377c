"""Curriculum over the horizon: early steps learn from the first steps of the horizon alone."""

import torch
from torch import Tensor

__all__ = ["Curriculum"]


class Curriculum:
    """Which steps of the horizon the loss sees.

    After `warmup_steps` optimizer steps over the whole horizon, the loss sees its first step, and
    one more after every `steps` optimizer steps (Wu et al., "Connecting the Dots", KDD 2020,
    section 4.5, where 2,500 is usual; their code adds each one optimizer step earlier, and BasicTS
    counts epochs). The limit is a tensor on the device, which recorded steps read.

    Args:
        steps: optimizer steps between two more steps of the horizon; 0 learns from the whole
            horizon from the start.
        warmup_steps: optimizer steps before the curriculum begins.
        device: of the batches.
    """

    def __init__(self, steps: int, warmup_steps: int, device: torch.device) -> None:
        self._steps = steps
        self._warmup_steps = warmup_steps
        self._limit = torch.ones((), dtype=torch.int64, device=device)
        self._positions: Tensor | None = None

    def length(self, step: int) -> int | None:
        """Steps of the horizon that the loss sees in an optimizer step; None for all of them.

        Args:
            step: optimizer steps done before this one.
        """
        done = step - self._warmup_steps
        return None if done < 0 or not self._steps else 1 + done // self._steps

    def begin_step(self, step: int) -> None:
        """Set the limit of an optimizer step, without waiting for the device."""
        if not self._steps:
            return
        length = self.length(step)
        self._limit.fill_(torch.iinfo(torch.int64).max if length is None else length)

    def limit(self, mask: Tensor) -> Tensor:
        """The mask without the steps that are not learned from yet.

        Args:
            mask: bool [B, H, N, C_out], True where targets were observed.
        """
        if not self._steps:
            return mask
        if self._positions is None or len(self._positions) != mask.shape[1]:
            self._positions = torch.arange(mask.shape[1], device=mask.device)
        return mask & (self._positions < self._limit)[:, None, None]
