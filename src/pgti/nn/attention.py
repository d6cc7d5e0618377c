"""Attention of several heads, in the shapes that fused kernels of CPUs and GPUs take."""

import torch
from torch import Tensor
from torch.nn import functional

from pgti.nn.execution import split_parts

__all__ = ["attend"]

_HEAD_WIDTH_UNIT = 8
_MOST_GROUPS = (1 << 16) - 1
"""Fused attention starts blocks of threads for each head of each group; CUDA takes no more."""
_MOST_SUMS = (1 << 31) - 1
"""Its backward pass counts sums, of queries in blocks of 128 and widths of 32, in 32 bits."""


def attend(
    query_GTD: Tensor,
    key_GSD: Tensor,
    value_GSD: Tensor,
    heads: int,
    *,
    causal: bool = False,
    dropout: float = 0.0,
) -> Tensor:
    """What T queries read from S values of the same group, [G, T, D]; no T x S weights are stored.

    Args:
        query_GTD: [G, T, D] of G groups, mapped; heads are side by side.
        key_GSD: [G, S, D], mapped.
        value_GSD: [G, S, D], mapped.
        heads: that divide D.
        causal: whether query t reads the first t + 1 values alone.
        dropout: fraction of the attention weights that is zeroed.
    """
    _, length, width = query_GTD.shape
    head_width = width // heads
    sums = heads * (length + -length % 128) * (head_width + -head_width % 32)
    size = max(1, min(_MOST_GROUPS // heads, _MOST_SUMS // sums))
    # Fused kernels of GPUs take widths that are multiples of 8; zeros change no product.
    gap = 0 if query_GTD.device.type == "cpu" else -head_width % _HEAD_WIDTH_UNIT

    def by_head(tokens_GTD: Tensor) -> tuple[Tensor, ...]:
        tokens_GHTD = tokens_GTD.view(*tokens_GTD.shape[:2], heads, -1).transpose(1, 2)
        tokens_GHTD = functional.pad(tokens_GHTD, (0, gap)) if gap else tokens_GHTD
        return split_parts(tokens_GHTD, size)

    read = [
        functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, dropout_p=dropout, scale=head_width**-0.5
        )
        for q, k, v in zip(by_head(query_GTD), by_head(key_GSD), by_head(value_GSD), strict=True)
    ]
    read_GHTD = torch.cat(read) if len(read) > 1 else read[0]
    return read_GHTD[..., :head_width].transpose(1, 2).flatten(2)
