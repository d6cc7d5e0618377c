"""Random numbers of a training step, which follow from where the training stands alone."""

import numpy as np
import torch

__all__ = ["seed_step"]


def seed_step(seed: int, step: int, rank: int, device: torch.device) -> None:
    """Seed torch's generators: a resumed run draws the same, and two ranks draw differently."""
    sequence = np.random.SeedSequence([seed, step, rank])
    drawn = int(sequence.generate_state(1, np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(drawn)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(drawn)
