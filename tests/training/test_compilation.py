"""Modes of the compiler that are refused, and its errors."""

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.training import trainer
from pgti.training.compilation import compile_network
from pgti.training.config import TrainingConfig

from .tiny_training import make_setting, make_trainer, open_run


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


def test_so_is_an_error_in_the_backward_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which torch compiles, for batches of all sizes, as late as it begins."""
    from torch._dynamo.backends.common import aot_autograd  # noqa: PLC0415 - it takes a second
    from torch._functorch.compilers import nop  # noqa: PLC0415
    from torch._inductor.exc import InductorError  # noqa: PLC0415

    def failing(*_: object) -> Any:
        raise InductorError(RuntimeError("first\nsecond\nthird"), inspect.currentframe())

    backend = aot_autograd(fw_compiler=nop, bw_compiler=failing)
    monkeypatch.setattr(trainer, "compile_network", partial(compile_network, backend=backend))
    config = TrainingConfig(epochs=1, batch_size=10, compile=True)
    setting = make_setting(tmp_path, config, network="linear")
    training = make_trainer(setting, open_run(tmp_path / "run", config))
    torch.compiler.reset()
    with pytest.raises(ConfigError, match=r"torch.compile failed on this network: .*") as raised:
        training.fit()
    assert "\n" not in str(raised.value)
