"""Kernels of libraries at the sizes of California's batches, beyond the limits that some have."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pgti.nn import attend
from pgti.nn.attention import _MOST_GROUPS
from pgti.nn.numerics import float32_products
from pgti_bench.gpu_check.setting import Setting, relative_error
from pgti_bench.gpu_check.windows import PEMS_NODES

__all__ = ["check_large"]

_FEW = 15  # divides the numbers of sequences and groups
_STEPS, _HEADS, _WIDTH = 12, 4, 40
_LARGEST_ERROR = 1e-5


def check_large(setting: Setting) -> None:
    """cuDNN's recurrent layer, and attention in many small groups."""
    layer = nn.GRU(3, 32).to(setting.device)
    sequences = setting.size(64 * PEMS_NODES // _FEW * _FEW, 60)
    few = torch.randn(_STEPS, _FEW, 3, device=setting.device)
    with setting.guard("many sequences"), float32_products(setting.device):
        _compare(setting, "many sequences", lambda x: layer(x)[0], few, sequences, dim=1)
    groups = setting.size(2 * _MOST_GROUPS, 60)
    few = torch.randn(_FEW, _STEPS, _HEADS * _WIDTH, device=setting.device)
    for dtype in (torch.float32, torch.bfloat16):
        name = f"attention in many groups, {str(dtype).removeprefix('torch.')}"
        with setting.guard(name), float32_products(setting.device):
            _compare(
                setting,
                name,
                lambda x: attend(x, x, x, _HEADS),
                few.to(dtype),
                groups,
                dim=0,
            )


def _compare(
    setting: Setting,
    name: str,
    call: Callable[[Tensor], Tensor],
    few: Tensor,
    number: int,
    dim: int,
) -> None:
    """The same rows over and over: the last results and gradients are those of a few."""
    repeats = [1] * few.ndim
    repeats[dim] = number // _FEW
    found = []
    for x in (few.repeat(repeats).requires_grad_(), few.clone().requires_grad_()):
        result = call(x)
        result.float().square().sum().backward()  # type: ignore[no-untyped-call] # torch does not annotate it
        assert x.grad is not None
        found.append([each.narrow(dim, -_FEW, _FEW) for each in (result, x.grad)])
    errors = [relative_error(many, few) for many, few in zip(*found, strict=True)]
    bound = _LARGEST_ERROR if few.dtype == torch.float32 else 0.02
    setting.add(
        name,
        {"number": number, "results": errors[0], "gradients": errors[1]},
        passed=max(errors) < bound,
    )
