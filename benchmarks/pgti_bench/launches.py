"""How many kernels a GPU would start, by kind."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

__all__ = ["Kind", "Launches"]

Kind = Literal["dense", "sparse", "copies", "elementwise"]

_DENSE = {
    "_linear_pointwise",
    "mm",
    "addmm",
    "addmm_",
    "bmm",
    "baddbmm",
    "baddbmm_",
    "mv",
    "addmv",
    "dot",
    "vdot",
    "convolution",
    "convolution_backward",
    "_cudnn_rnn",
    "_cudnn_rnn_backward",
    "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_efficient_attention_backward",
}
_COPIES = {"_to_copy", "copy_", "clone", "cat", "stack", "_foreach_copy_"}
_NO_KERNEL = {
    "_unsafe_view",
    "unsafe_split",
    "unsafe_chunk",
    "empty",
    "empty_like",
    "empty_strided",
    "new_empty",
    "new_empty_strided",
    "empty_permuted",
    "resize_",
    "set_",
    "record_stream",
    "sparse_csr_tensor",
    "_sparse_csr_tensor_unsafe",
    "_sparse_compressed_tensor_unsafe",
    "sym_size",
    "device",
}


@dataclass(kw_only=True, slots=True)
class Launches:
    """Kernels that CUDA would start, one for each call of an ATen operator that computes.

    Views, allocations and CSR matrices made of their arrays count nothing. A convolution's backward
    pass counts one for each of its gradients, a foreach or fused operator one for all its tensors,
    a recurrent layer of cuDNN or an attention one for each of its passes. Sorting, top-k and
    reductions of large tensors start a few kernels and count one, so the sum is a lower bound. A
    copy between host and GPU counts as a copy.

    Attributes:
        by_kind: `dense` products (convolutions, recurrent layers and attention included), `sparse`
            products, `copies` (casts and concatenations included) and `elementwise`: the rest.
        by_name: the same by operator.
    """

    by_kind: Counter[Kind] = field(default_factory=Counter)
    by_name: Counter[str] = field(default_factory=Counter)

    @property
    def total(self) -> int:
        """All kinds together."""
        return self.by_kind.total()

    def add(
        self,
        func: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        result: Any,
        *,
        is_sparse: bool,
    ) -> None:
        """Count the call of an operator, one of whose tensors is on the GPU.

        Args:
            func: the overload, such as `torch.ops.aten.mm.default`.
            args: of the call.
            kwargs: of the call.
            result: what it returned.
            is_sparse: whether an operand is a CSR matrix.
        """
        name = func.overloadpacket.__name__
        if name in _NO_KERNEL or func.is_view:
            return
        count = sum(args[-1]) if name == "convolution_backward" else 1
        self.by_kind[_kind(name, is_sparse)] += count
        self.by_name[name] += count

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.by_kind[kind]:,} {kind}" for kind in get_args(Kind))
        return f"{self.total:,} launches: {kinds}"


def _kind(name: str, is_sparse: bool) -> Kind:
    if is_sparse:
        return "sparse"
    if name in _DENSE:
        return "dense"
    return "copies" if name in _COPIES else "elementwise"
