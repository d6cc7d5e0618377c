"""The matrix products of a training step, recorded while it runs and then run alone.

No arrangement of the rest of a step can avoid them: a step takes at least as long as its products,
and the ratio of the two says how much the rest costs.
"""

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pgti_bench.devices import synchronize
from pgti_bench.errors import BenchError

__all__ = ["Product", "ProductCount", "StepProducts"]

_aten = torch.ops.aten
_ADDING = {_aten.addmm, _aten.addmm_, _aten.baddbmm, _aten.baddbmm_}
_PLAIN = {_aten.mm, _aten.bmm}
_IN_PLACE = {_aten.addmm_, _aten.baddbmm_}
# Arithmetic of the same order that `Product` cannot repeat.
_UNKNOWN = {
    _aten.mv,
    _aten.addmv,
    _aten.addmv_,
    _aten.addbmm,
    _aten.convolution,
    _aten.convolution_backward,
    _aten._sparse_mm,
    _aten.sparse_sampled_addmm,
    _aten._scaled_dot_product_flash_attention_for_cpu,
    _aten._scaled_dot_product_flash_attention,
    _aten._scaled_dot_product_efficient_attention,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ProductCount:
    """The number of products of a step, and their arithmetic.

    Attributes:
        dense: products of two dense matrices, or of two stacks of them.
        sparse: products of a sparse and a dense matrix.
        dense_flop: multiplications and additions of the dense ones: 2 M K N each.
        sparse_flop: of the sparse ones: 2 F for each stored entry, F columns on the right.
    """

    dense: int
    sparse: int
    dense_flop: int
    sparse_flop: int


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Product:
    """One product, out = beta addend + alpha left right, on its own tensors.

    Attributes:
        left: [M, K] or [S, M, K]; sparse in CSR form where the step's was.
        right: [K, N] or [S, K, N].
        out: receives the result.
        addend: None for a product without one; `out` itself for addition in place.
        beta: factor of the addend.
        alpha: factor of the product.
    """

    left: Tensor
    right: Tensor
    out: Tensor
    addend: Tensor | None
    beta: float
    alpha: float

    @property
    def is_sparse(self) -> bool:
        """Whether the left matrix is sparse."""
        return self.left.layout != torch.strided

    @property
    def flop(self) -> int:
        """Multiplications and additions."""
        if self.is_sparse:
            return 2 * self.left.values().numel() * self.right.shape[-1]
        return 2 * self.left.numel() * self.right.shape[-1]

    def run(self) -> None:
        """Compute it."""
        stacked = self.left.dim() == 3
        if self.addend is not None:
            add = torch.baddbmm if stacked else torch.addmm
            add(
                self.addend,
                self.left,
                self.right,
                beta=self.beta,
                alpha=self.alpha,
                out=self.out,
            )
        elif stacked:
            torch.bmm(self.left, self.right, out=self.out)
        else:
            torch.mm(self.left, self.right, out=self.out)


class StepProducts:
    """The products of one step, in its order, on buffers of the same shapes, strides and dtypes.

    Operands of one size share one buffer, so that arithmetic is measured rather than the loading
    of operands: the limit is a strict one. Sparse matrices are those of the step.

    Args:
        products: in the order of the step.
    """

    def __init__(self, products: Sequence[Product]) -> None:
        self._dense = [product for product in products if not product.is_sparse]
        self._sparse = [product for product in products if product.is_sparse]

    @classmethod
    def record(cls, step: Callable[[], object]) -> "StepProducts":
        """Run the step once and record the shapes of its products.

        Raises:
            BenchError: if the step has products of an unknown kind.
        """
        recorder = _Recorder()
        with recorder:
            step()
        return cls(recorder.products)

    @property
    def count(self) -> ProductCount:
        """Their number and arithmetic."""
        return ProductCount(
            dense=len(self._dense),
            sparse=len(self._sparse),
            dense_flop=sum(product.flop for product in self._dense),
            sparse_flop=sum(product.flop for product in self._sparse),
        )

    def dense_seconds(self) -> float:
        """Seconds of the dense products, run once."""
        return _seconds(self._dense)

    def sparse_seconds(self) -> float:
        """Seconds of the sparse products, run once."""
        return _seconds(self._sparse)


def _seconds(products: Sequence[Product]) -> float:
    device = products[0].right.device if products else torch.device("cpu")
    synchronize(device)
    began = time.perf_counter()
    for product in products:
        product.run()
    synchronize(device)
    return time.perf_counter() - began


class _Buffers:
    """Tensors with the layout of others; those of one size share one buffer."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[str, torch.dtype, torch.device, int], Tensor] = {}

    def like(self, role: str, tensor: Tensor) -> Tensor:
        """A tensor of the same shape, strides and dtype; operands of one role may overlap."""
        extents = zip(tensor.shape, tensor.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in extents)
        key = (role, tensor.dtype, tensor.device, span)
        if key not in self._buffers:
            # Neither zeros nor denormals, which processors handle differently.
            self._buffers[key] = torch.full(
                (span,), 1 / math.pi, dtype=tensor.dtype, device=tensor.device
            )
        return self._buffers[key].as_strided(tensor.shape, tensor.stride())


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch does not annotate it
    """Records the products among all operations below autograd while it is active."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.products: list[Product] = []
        self._buffers = _Buffers()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        result = func(*args, **given)
        operator = func.overloadpacket
        if operator in _UNKNOWN:
            raise BenchError(f"the step has products of a kind that cannot be run alone: {func}")
        if operator in _ADDING:
            in_place = operator in _IN_PLACE or given.get("out") is args[0]
            self._record(args[1], args[2], result, result if in_place else args[0], given)
        elif operator in _PLAIN:
            self._record(args[0], args[1], result, None, given)
        return result

    def _record(
        self,
        left: Tensor,
        right: Tensor,
        result: Tensor,
        addend: Tensor | None,
        given: Mapping[str, Any],
    ) -> None:
        """Record a product; an addend that is the result itself is added to in place."""
        out = self._buffers.like("out", result)
        addend_buffer = out if addend is result else addend
        if addend is not None and addend is not result:
            addend_buffer = self._buffers.like("addend", addend)
        self.products.append(
            Product(
                left=self._buffers.like("left", left) if left.layout == torch.strided else left,
                right=self._buffers.like("right", right),
                out=out,
                addend=addend_buffer,
                beta=given.get("beta", 1),
                alpha=given.get("alpha", 1),
            )
        )
