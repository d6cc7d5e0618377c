"""Modes of the compiler that are refused, and its errors."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.training.compilation import compile_network
from pgti.training.config import TrainingConfig


def test_a_mode_needs_a_compiled_network() -> None:
    with pytest.raises(ConfigError, match="compile_mode is max-autotune and nothing is compiled"):
        TrainingConfig(compile_mode="max-autotune")
    assert TrainingConfig(compile=True, compile_mode="max-autotune").compile


def test_recorded_kernels_take_one_batch_a_step() -> None:
    with pytest.raises(ConfigError, match="accumulate is 2: CUDA graphs overwrite"):
        TrainingConfig(compile=True, compile_mode="reduce-overhead", accumulate=2)


def test_an_error_of_the_compiler_is_one_line() -> None:
    """Of a backend that fails."""

    def failing(*_: object, **__: object) -> Any:
        raise RuntimeError("first\nsecond\nthird")

    class Doubled(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 2

    torch.compiler.reset()
    network = Doubled(3, 3)
    compile_network(network, backend=failing)
    with pytest.raises(ConfigError, match=r"torch.compile failed on this network: .*") as raised:
        network(torch.ones(2, 1, 3))
    assert "\n" not in str(raised.value)
