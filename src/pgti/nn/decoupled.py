"""The blocks of D2STGNN: diffusion over dense graphs, and an inherent series of every sensor.

Shao et al., Decoupled Dynamic Spatial-Temporal Graph Neural Network for Traffic Forecasting, PVLDB
15, 2022, in the form of its released code.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.nn.attention import attend
from pgti.nn.dropout import dropout
from pgti.nn.linear import Linear, linear

__all__ = ["DiffusionBlock", "InherentBlock", "off_diagonal_powers", "positional_encoding"]


class DiffusionBlock(nn.Module):
    """Convolution over `kernel` steps and several graphs, its forecast and its backcast.

    Args:
        hidden: D.
        kernel: k_t, steps that a convolution sees.
        num_graphs: G, matrices that it multiplies with.
        forecast_channels: outputs of `forecast`, which the caller applies.
        num_states: F, hidden states of the future.
        probability: that a unit is zeroed in training.
    """

    def __init__(
        self,
        hidden: int,
        kernel: int,
        num_graphs: int,
        *,
        forecast_channels: int,
        num_states: int,
        probability: float,
    ) -> None:
        super().__init__()
        self.local = Linear(kernel * hidden, kernel * hidden, bias=False)
        self.mixing = Linear((1 + num_graphs) * hidden, hidden)
        self.forecast = Linear(hidden, forecast_channels)
        self.backcast = Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self._kernel, self._num_states, self._probability = kernel, num_states, probability

    def forward(
        self, h_BNLD: Tensor, gated_BNLD: Tensor, graphs_BNP: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The series without what diffuses, `kernel` - 1 steps shorter, and the future's states.

        Args:
            h_BNLD: [B, N, L, D], the hidden series.
            gated_BNLD: the part of it that diffuses.
            graphs_BNP: [B, N, G * N], G matrices side by side.

        Returns:
            [B, N, L - k_t + 1, D] and [B, N, F, D].
        """
        states_BNLD = self._convolve(gated_BNLD, graphs_BNP)
        recent = [
            *torch.split(gated_BNLD[:, :, 1 - self._kernel :], 1, dim=2),
            states_BNLD[:, :, -1:],
        ]
        while len(recent) < self._kernel - 1 + self._num_states:
            window_BNKD = torch.cat(recent[-self._kernel :], dim=2)
            recent.append(self._convolve(window_BNKD, graphs_BNP))
        left_BNLD = h_BNLD[:, :, self._kernel - 1 :] - functional.relu(self.backcast(states_BNLD))
        return self.norm(left_BNLD), torch.cat(recent[self._kernel - 1 :], dim=2)

    def _convolve(self, x_BNLD: Tensor, graphs_BNP: Tensor) -> Tensor:
        """[B, N, L - k_t + 1, D].

        All steps under the kernel meet the same graph, which so meets their sum once. Weights come
        before graphs: then all graphs are one product with one [N, G * N] matrix.
        """
        batch, _, _, hidden = x_BNLD.shape
        windows_BNLDK = x_BNLD.unfold(2, self._kernel, 1)
        local_BNLS = functional.relu(self.local(windows_BNLDK.transpose(3, 4).flatten(3)))
        sum_BNLD = local_BNLS.view(*local_BNLS.shape[:3], self._kernel, hidden).sum(dim=3)
        of_mean_DO, *of_graphs_DO = torch.split(self.mixing.weight, hidden, dim=1)
        weight_KD = torch.cat([of_mean_DO / self._kernel, *of_graphs_DO])
        mixed_BNLK = linear(sum_BNLD, weight_KD, None)
        mixed_BNLGD = mixed_BNLK.view(*sum_BNLD.shape[:3], -1, hidden)
        from_graphs_BPF = (
            mixed_BNLGD[:, :, :, 1:].permute(0, 3, 1, 2, 4).reshape(batch, graphs_BNP.shape[2], -1)
        )
        own_BNLD = mixed_BNLGD[:, :, :, 0] + self.mixing.bias
        y_BNF = torch.baddbmm(own_BNLD.flatten(2), graphs_BNP, from_graphs_BPF)
        return dropout(y_BNF.view(own_BNLD.shape), self._probability if self.training else 0.0)


class InherentBlock(nn.Module):
    """A gated recurrent layer, attention over its states, its forecast and its backcast.

    Args:
        hidden: D.
        heads: attention heads.
        forecast_channels: outputs of `forecast`, which the caller applies.
        num_states: F, hidden states of the future.
        probability: that a unit or an attention weight is zeroed in training.
        has_backcast: whether a layer follows.
    """

    def __init__(
        self,
        hidden: int,
        heads: int,
        *,
        forecast_channels: int,
        num_states: int,
        probability: float,
        has_backcast: bool,
    ) -> None:
        super().__init__()
        self.cell = nn.GRUCell(hidden, hidden)
        self.query_key_value = Linear(hidden, 3 * hidden)
        nn.init.xavier_uniform_(self.query_key_value.weight)
        self.attended = Linear(hidden, hidden)
        for bias in (self.query_key_value.bias, self.attended.bias):
            nn.init.zeros_(bias)
        self.forecast = Linear(hidden, forecast_channels)
        self.backcast = Linear(hidden, hidden) if has_backcast else None
        self.norm = nn.LayerNorm(hidden) if has_backcast else None
        self._heads, self._num_states, self._probability = heads, num_states, probability

    def forward(self, h_BNLD: Tensor, encodings_LD: Tensor) -> tuple[Tensor, Tensor]:
        """The series without what this block explains, and the future's states.

        Args:
            h_BNLD: [B, N, L, D].
            encodings_LD: [at least L + F - 1, D], of positions.

        Returns:
            [B, N, L, D], the input itself without a backcast, and [B, N, F, D].
        """
        batch, num_nodes, _, hidden = h_BNLD.shape
        states_MLD = self._drop(self._read(h_BNLD.flatten(0, 1)))
        states_MLD = self._encode(states_MLD, encodings_LD)
        read_MLD = self._attend(states_MLD, states_MLD)
        future = [read_MLD[:, -1]]
        while len(future) < self._num_states:
            inputs_MG = linear(future[-1], self.cell.weight_ih, self.cell.bias_ih)
            state_MD = self._step(inputs_MG, states_MLD[:, -1])
            states_MLD = torch.cat([states_MLD, state_MD[:, None]], dim=1)
            states_MLD = self._encode(states_MLD, encodings_LD)  # again, as the released code
            future.append(self._attend(state_MD[:, None], states_MLD)[:, 0])
        future_BNFD = torch.stack(future, dim=1).view(batch, num_nodes, -1, hidden)
        if self.backcast is None or self.norm is None:
            return h_BNLD, future_BNFD
        backcast_BNLD = functional.relu(self.backcast(read_MLD)).view(h_BNLD.shape)
        return self.norm(h_BNLD - backcast_BNLD), future_BNFD

    def _read(self, h_MLD: Tensor) -> Tensor:
        """The states after every step, from zeros."""
        inputs_MLG = linear(h_MLD, self.cell.weight_ih, self.cell.bias_ih)
        state_MD, states = torch.zeros_like(h_MLD[:, 0]), []
        for inputs_MG in inputs_MLG.unbind(dim=1):
            state_MD = self._step(inputs_MG, state_MD)
            states.append(state_MD)
        return torch.stack(states, dim=1)

    def _step(self, inputs_MG: Tensor, state_MD: Tensor) -> Tensor:
        """Torch's `GRUCell`, whose input is already mapped."""
        hidden = state_MD.shape[1]
        from_state_MG = linear(state_MD, self.cell.weight_hh, self.cell.bias_hh)
        parts = (inputs_MG.tensor_split([2 * hidden], dim=1), from_state_MG)
        gates_MG = torch.sigmoid(parts[0][0] + from_state_MG[:, : 2 * hidden])
        r_MD, u_MD = gates_MG.tensor_split(2, dim=1)
        candidate_MD = torch.tanh(torch.addcmul(parts[0][1], r_MD, from_state_MG[:, 2 * hidden :]))
        return torch.lerp(candidate_MD, state_MD.to(u_MD.dtype), u_MD)

    def _attend(self, query_MTD: Tensor, source_MSD: Tensor) -> Tensor:
        """Attention of T queries to S states of the same sensor: [M, T, D]."""
        hidden = query_MTD.shape[2]
        weights = self.query_key_value.weight.tensor_split([hidden], dim=0)
        biases = self.query_key_value.bias.tensor_split([hidden])
        query_MTD = linear(query_MTD, weights[0], biases[0])
        key_MSD, value_MSD = linear(source_MSD, weights[1], biases[1]).chunk(2, dim=2)
        probability = self._probability if self.training else 0.0
        read_MTD = attend(query_MTD, key_MSD, value_MSD, self._heads, dropout=probability)
        return self._drop(self.attended(read_MTD))

    def _encode(self, states_MLD: Tensor, encodings_LD: Tensor) -> Tensor:
        return self._drop(states_MLD + encodings_LD[: states_MLD.shape[1]].to(states_MLD.dtype))

    def _drop(self, x: Tensor) -> Tensor:
        return dropout(x, self._probability if self.training else 0.0)


def off_diagonal_powers(graph: Tensor, number: int) -> list[Tensor]:
    """The first powers of [.., N, N], each without its diagonal."""
    powers, power = [], graph
    for exponent in range(number):
        power = power @ graph if exponent else graph
        diagonal = torch.diag_embed(power.diagonal(dim1=-2, dim2=-1))
        powers.append(power - diagonal)
    return powers


def positional_encoding(length: int, width: int) -> Tensor:
    """[length, width]: sines and cosines in turn (Vaswani et al., NeurIPS 2017)."""
    evens = torch.arange(0, width, 2, dtype=torch.float64)
    frequencies = torch.exp(evens * (-math.log(10_000.0) / width))
    angles = torch.arange(length, dtype=torch.float64)[:, None] * frequencies
    pairs = torch.stack([angles.sin(), angles.cos()], dim=2)
    return pairs.flatten(1)[:, :width].float()
