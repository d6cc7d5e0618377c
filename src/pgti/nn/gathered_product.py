"""A product with a sparse operator as sums of gathered rows, for programs that are exported."""

import torch
from torch import Tensor, nn

from pgti.shapes import NF

__all__ = ["GatheredProduct"]

_SPREAD = 4  # times as many values that the longest row of a table has, at most


class GatheredProduct(nn.Module):
    """S @ x without an addition to a row from several places.

    ONNX Runtime adds to rows in several threads without a lock. So rows of like lengths share a
    table of their columns and values [n, K], with zeros behind the shorter ones: each gathers K
    rows of x and sums them. Few tables make a small program; those of a road network are one or
    two, and together they hold less than four times the values of S, where each row has one.

    Args:
        rows: of S in CSR form, where each row's values begin [N + 1].
        columns: of the values [E].
        values: [E].
    """

    def __init__(self, rows: Tensor, columns: Tensor, values: Tensor) -> None:
        super().__init__()
        rows = rows.long()
        lengths, order = rows.diff(), list[Tensor]()
        left = torch.ones_like(lengths, dtype=torch.bool)
        while left.any():
            width = max(1, int(lengths[left].max()))
            members = torch.nonzero(left & (_SPREAD * lengths.clamp(min=1) > width)).flatten()
            steps = torch.arange(width)
            inside = steps < lengths[members, None]
            source = torch.where(inside, rows[members, None] + steps, 0)
            table = columns.new_zeros(source.shape), values.new_zeros(source.shape)
            if len(values):
                table = columns[source], values[source] * inside
            self.register_buffer(f"columns_{len(order)}", table[0].long())
            self.register_buffer(f"values_{len(order)}", table[1])
            order.append(members)
            left[members] = False
        self._num_tables = len(order)
        self.register_buffer("places", torch.argsort(torch.cat(order)))

    def forward(self, x_NF: NF) -> NF:
        """S @ x, [N, F]."""
        sums = []
        for table in range(self._num_tables):
            columns = self.get_buffer(f"columns_{table}")
            gathered = x_NF.index_select(0, columns.flatten()).view(*columns.shape, -1)
            sums.append((self.get_buffer(f"values_{table}")[:, None] @ gathered)[:, 0])
        if self._num_tables == 1:
            return sums[0]
        return torch.cat(sums).index_select(0, self.get_buffer("places"))
