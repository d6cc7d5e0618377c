"""Powers of sparse operators as one dense matrix, for small graphs on GPUs."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["stack_powers"]


def stack_powers(
    operators: Sequence[tuple[Tensor, Tensor, Tensor]], hops: int, *, identity: bool = True
) -> Tensor:
    """All powers of all operators, row by row.

    Args:
        operators: S matrices [N, N] in CSR form: starts of rows [N + 1], columns, values.
        hops: K, powers of each.
        identity: begin with the identity.

    Returns:
        [N * H, N] in float64, H = 1 + S * K or S * K: row n * H + k is row n of power k in the
        order of `pgti.nn.diffusion`.
    """
    rows = operators[0][0]
    num_nodes = len(rows) - 1
    identity_NN = torch.eye(num_nodes, dtype=torch.float64, device=rows.device)
    powers_NN = [identity_NN] if identity else []
    for starts, columns, values in operators:
        positions = torch.arange(len(values), device=rows.device)
        row_of_value = torch.searchsorted(starts.long(), positions, right=True) - 1
        operator_NN = torch.zeros_like(identity_NN)
        position = (row_of_value, columns.long())
        operator_NN.index_put_(position, values.double(), accumulate=True)
        powers_NN.append(operator_NN)
        for _ in range(1, hops):
            powers_NN.append(operator_NN @ powers_NN[-1])
    return torch.stack(powers_NN, dim=1).view(-1, num_nodes)
