"""An exponential moving average of the weights, which is validated and forecasts."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """A moving average of a network's parameters and buffers.

    After step t, counted from 0, the average moves by 1 - min(decay, (1 + t) / (10 + t)) of the way
    to the network; so it forgets the initial weights within some tens of steps, whatever the decay.
    Running statistics, as of batch normalisation, are averaged likewise; whole numbers,
    sparse tensors and what is not finite in a buffer, such as a mask of -inf, are copied.

    Nothing waits for a GPU: an update is a few kernels, behind those of the step.

    Args:
        network: on its device.
        decay: at least 0, less than 1; 0 averages nothing, and the network stays as it is.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self._network = network
        self._decay = decay
        self._is_in_network = False
        self._live: dict[int, Tensor] = {}  # each once: parameters may have several names
        self._averages: dict[int, Tensor] = {}

    def begin(self) -> None:
        """Average from the present weights on, unless there is an average already."""
        if not self._decay or self._averages:
            return
        for each in self._network.state_dict(keep_vars=True).values():
            if isinstance(each, Tensor):
                self._live[id(each)] = each
        self._averages = {key: each.detach().clone() for key, each in self._live.items()}

    @property
    def is_wanted(self) -> bool:
        """Whether there is, or will be, an average."""
        return bool(self._decay)

    @property
    def has_begun(self) -> bool:
        """Whether there is an average."""
        return bool(self._averages)

    @property
    def buffers(self) -> tuple[Tensor, ...]:
        """The buffers among the tensors that are not in the network now."""
        is_parameter = {key: isinstance(each, nn.Parameter) for key, each in self._live.items()}
        return tuple(each for key, each in self._averages.items() if not is_parameter[key])

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the network.

        Args:
            step: optimizer steps done before the one that has just changed the network.
        """
        if not self._averages:
            return
        weight = 1 - min(self._decay, (1 + step) / (10 + step))
        averages, values = [], []
        for key, live in self._live.items():
            is_dense = live.layout is torch.strided
            if is_dense and (live.is_floating_point() or live.is_complex()):
                averages.append(self._averages[key])
                values.append(live)
            else:
                self._averages[key].copy_(live)
        torch._foreach_lerp_(averages, values, weight)
        for average, live in zip(averages, values, strict=True):
            if not isinstance(live, nn.Parameter):  # from -inf to -inf there is no way
                torch.where(average.isfinite(), average, live, out=average)

    @contextmanager
    def in_network(self) -> Generator[None]:
        """Exchange the network's weights for the average in the block, where they are."""
        self._exchange()
        self._is_in_network = self.has_begun
        try:
            yield
        finally:
            self._exchange()
            self._is_in_network = False

    @torch.no_grad()
    def _exchange(self) -> None:
        for key, live in self._live.items():
            before = live.detach().clone()
            live.copy_(self._averages[key])
            self._averages[key].copy_(before)

    def state_dicts(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """The network's state with the average, and that with the weights of the last step.

        The second is None where nothing is averaged.
        """
        own = self._network.state_dict()
        if not self.has_begun:
            return own, None
        names = self._network.state_dict(keep_vars=True)
        other = {name: self._averages.get(id(names[name]), each) for name, each in own.items()}
        return (own, other) if self._is_in_network else (other, own)

    @torch.no_grad()
    def load(self, average: Mapping[str, Any]) -> None:
        """Continue with the average of a checkpoint, which fits the network."""
        self.begin()
        for name, each in self._network.state_dict(keep_vars=True).items():
            if id(each) in self._averages:
                self._averages[id(each)].copy_(average[name])
