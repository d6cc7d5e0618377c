"""What CUDA computes otherwise than torch on shapes alone: autocast, attention, cuDNN, CSR."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["attention", "cast_arguments", "gru", "gru_gradients", "sparse_product"]

_IN_BFLOAT16 = {
    "linear",
    "matmul",
    "__matmul__",
    "__rmatmul__",
    "mm",
    "bmm",
    "addmm",
    "baddbmm",
    "einsum",
    "conv1d",
    "conv2d",
    "scaled_dot_product_attention",
    "gru",
}
_IN_FLOAT32 = {
    "layer_norm",
    "softmax",
    "log_softmax",
    "softplus",
    "exp",
    "log",
    "pow",
    "sum",
    "prod",
}
"""What autocast on CUDA computes in bfloat16 and in float32, of what models here call."""


def cast_arguments(
    name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments as autocast on CUDA converts them."""
    if "out" in kwargs or not (name in _IN_BFLOAT16 or name in _IN_FLOAT32):
        return args, kwargs
    is_lower = name in _IN_BFLOAT16
    before = torch.float32 if is_lower else torch.bfloat16
    after = torch.get_autocast_dtype("cuda") if is_lower else torch.float32

    def cast(value: Any) -> Any:
        if isinstance(value, list | tuple):
            return type(value)(cast(each) for each in value)
        is_cast = isinstance(value, Tensor) and value.is_meta and value.dtype == before
        return value.to(after) if is_cast else value

    return cast(args), {key: cast(each) for key, each in kwargs.items()}


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """Attention by the kernel of CUDA that takes every precision and mask."""
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, torch.is_grad_enabled(), dropout_p, is_causal, scale=scale
    )[0]
    return attended


def gru(
    x: Tensor, state: Tensor, weights: list[Tensor], has_biases: bool, *options: Any
) -> tuple[Tensor, Tensor]:
    """`torch.gru` as CUDA runs it, by cuDNN (mode 3 is a GRU)."""
    num_layers, dropout, training, is_bidirectional, is_batch_first = options
    flat = x.new_empty(sum(each.numel() for each in weights))
    sizes = (3, state.shape[-1], 0, num_layers, is_batch_first, dropout, training, is_bidirectional)
    output, last, *_ = torch.ops.aten._cudnn_rnn(
        x, weights, 4 if has_biases else 2, flat, state, None, *sizes, [], None
    )
    return output, last


def gru_gradients(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Of the input, the state, no cell and the weights: torch knows no shapes of them."""
    return (
        torch.empty_like(args[0]),
        torch.empty_like(args[4]),
        None,
        [torch.empty_like(each) for each in args[1]],
    )


def sparse_product(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """A product with a CSR matrix, or one sampled at its entries: shapes alone."""
    if name == "addmm":
        out: Tensor = kwargs["out"] if "out" in kwargs else torch.empty_like(args[0])
        expected = (args[1].shape[0], args[2].shape[1])
        if args[1].shape[1] != args[2].shape[0] or tuple(out.shape) != expected:
            raise ValueError(f"addmm of {args[1].shape} and {args[2].shape} into {out.shape}")
        return out
    sampled: Tensor = args[0]
    return sampled
