"""D2STGNN as GestaltCogTeam/D2STGNN computes it.

Every step under the kernel meets every graph, which is repeated for it; graphs are broadcast over
the steps; queries, keys and values of all states are mapped again for each step of the forecast.
"""

import functools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pgti.models import D2STGNN, AbstractModel
from pgti.models.layers import day_index, step_index
from pgti.nn import Supports
from pgti.nn.decoupled import DiffusionBlock, InherentBlock
from pgti_bench.official.layers import dense_operators, linear, taken

__all__ = ["build_d2stgnn"]


class _Diffusion(nn.Module):
    """The diffusion block."""

    def __init__(self, block: DiffusionBlock, model: D2STGNN) -> None:
        super().__init__()
        config = model.config
        self.kernel, self.hops = config.kernel, config.hops
        self.num_states = -(-model.shape.horizon // config.gap)
        self.local, self.mixing = (
            linear(block.local.weight),
            linear(block.mixing.weight, block.mixing.bias),
        )
        self.forecast = linear(block.forecast.weight, block.forecast.bias)
        self.backcast = linear(block.backcast.weight, block.backcast.bias)
        self.norm, self.dropout = nn.LayerNorm(config.hidden), nn.Dropout(config.dropout)

    def convolve(self, x_BLND: Tensor, dynamic: list[Tensor], learned_NN: Tensor) -> Tensor:
        """[B, L - kernel + 1, N, D]."""
        off_NN = 1 - torch.eye(len(learned_NN))
        static, power_NN = [learned_NN * off_NN], learned_NN
        for _ in range(1, self.hops):
            power_NN = learned_NN @ power_NN
            static.append(power_NN * off_NN)
        static = [_repeat(each, self.kernel) for each in static]
        windows = x_BLND.unfold(1, self.kernel, 1).permute(0, 1, 2, 4, 3)
        batch, steps, num_nodes, kernel, width = windows.shape
        local = functional.relu(self.local(windows.reshape(batch, steps, num_nodes, -1)))
        local = local.view(batch, steps, num_nodes, kernel, width)
        stacked = local.transpose(2, 3).reshape(batch, steps, kernel * num_nodes, width)
        parts = [local.mean(dim=3), *(each[:, None] @ stacked for each in dynamic)]
        parts += [each @ stacked for each in static]
        mixed: Tensor = self.dropout(self.mixing(torch.cat(parts, dim=3)))
        return mixed

    def forward(
        self, h_BLND: Tensor, gated_BLND: Tensor, dynamic: list[Tensor], learned_NN: Tensor
    ) -> tuple[Tensor, Tensor]:
        states = self.convolve(gated_BLND, dynamic, learned_NN)
        future = [states[:, -1:]]
        while len(future) < self.num_states:
            missing = max(0, self.kernel - len(future))
            recent = future[-self.kernel :]
            if missing:
                recent = [gated_BLND[:, -missing:], *recent]
            future.append(self.convolve(torch.cat(recent, dim=1), dynamic, learned_NN))
        left = h_BLND[:, -states.shape[1] :] - functional.relu(self.backcast(states))
        return self.norm(left), self.forecast(torch.cat(future, dim=1))


class _Inherent(nn.Module):
    """The inherent block, with torch's cell and attention."""

    def __init__(self, block: InherentBlock, model: D2STGNN) -> None:
        super().__init__()
        config, width = model.config, model.config.hidden
        self.num_states = -(-model.shape.horizon // config.gap)
        self.cell = nn.GRUCell(width, width)
        self.cell.load_state_dict(block.cell.state_dict())
        self.attention = nn.MultiheadAttention(width, config.heads, dropout=config.dropout)
        self.attention.in_proj_weight = taken(block.query_key_value.weight)
        self.attention.in_proj_bias = taken(block.query_key_value.bias)
        self.attention.out_proj.weight = taken(block.attended.weight)
        self.attention.out_proj.bias = taken(block.attended.bias)
        self.forecast = linear(block.forecast.weight, block.forecast.bias)
        backcast = block.backcast or nn.Linear(width, width)  # unused in the last layer
        self.backcast = linear(backcast.weight, backcast.bias)
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(config.dropout)
        self.register_buffer("positions", model.positions[:, None])

    def attend(self, query: Tensor, states: Tensor) -> Tensor:
        """[T, M, D]."""
        attended: Tensor = self.dropout(self.attention(query, states, states)[0])
        return attended

    def forward(self, h_BLND: Tensor) -> tuple[Tensor, Tensor]:
        batch, steps, num_nodes, width = h_BLND.shape
        positions = self.get_buffer("positions")
        series = h_BLND.transpose(1, 2).reshape(batch * num_nodes, steps, width)
        state, states = torch.zeros_like(series[:, 0]), []
        for step in range(steps):
            state = self.cell(series[:, step], state)
            states.append(state)
        kept = self.dropout(self.dropout(torch.stack(states)) + positions[:steps])
        read = self.attend(kept, kept)
        future = [read[-1:]]
        while len(future) < self.num_states:
            state = self.cell(future[-1][0], kept[-1])[None]
            kept = torch.cat([kept, state])
            kept = self.dropout(kept + positions[: len(kept)])
            future.append(self.attend(state, kept))
        states_FBND = torch.cat(future).view(-1, batch, num_nodes, width)
        backcast = self.backcast(read.view(steps, batch, num_nodes, width).transpose(0, 1))
        left = self.norm(h_BLND - functional.relu(backcast))
        return left, self.forecast(states_FBND.transpose(0, 1))


class _D2STGNN(nn.Module):
    """The whole network."""

    def __init__(self, model: D2STGNN, walks: list[Tensor]) -> None:
        super().__init__()
        self.shape, self.config = model.shape, model.config
        tables, graphs = model.calendar, model.graphs
        assert tables.time_of_day is not None
        assert tables.day_of_week is not None
        self.rows, self.days = taken(tables.time_of_day.weight), taken(tables.day_of_week.weight)
        self.source, self.target = taken(model.source_embedding), taken(model.target_embedding)
        self.entrance = linear(model.entrance.weight, model.entrance.bias)
        self.expansion = linear(graphs.expansion.weight, graphs.expansion.bias)
        self.graph_norm = nn.BatchNorm1d(graphs.norm.num_features)
        self.contraction = linear(graphs.contraction.weight, graphs.contraction.bias)
        self.query, self.key = linear(graphs.query.weight), linear(graphs.key.weight)
        self.dropout = nn.Dropout(model.config.dropout)
        self.walks = walks
        self.gates, self.diffusion, self.inherent = (nn.ModuleList() for _ in range(3))
        for layer in model.layers:
            part = layer.get_submodule
            gate, end = part("gate"), part("gate_end")
            assert isinstance(gate, nn.Linear)
            assert isinstance(end, nn.Linear)
            maps = (linear(gate.weight, gate.bias), nn.ReLU(), linear(end.weight, end.bias))
            self.gates.append(nn.Sequential(*maps))
            diffusion, inherent = part("diffusion"), part("inherent")
            assert isinstance(diffusion, DiffusionBlock)
            assert isinstance(inherent, InherentBlock)
            self.diffusion.append(_Diffusion(diffusion, model))
            self.inherent.append(_Inherent(inherent, model))
        self.end = linear(model.end.weight, model.end.bias)
        self.regression = linear(model.regression.weight, model.regression.bias)

    def graphs(self, x_BLNC: Tensor, row_BND: Tensor, day_BND: Tensor) -> list[Tensor]:
        """[B, N, kernel * N] each."""
        batch, _, num_nodes, _ = x_BLNC.shape
        windows = x_BLNC.transpose(1, 2).reshape(batch * num_nodes, -1)
        units = self.dropout(self.graph_norm(functional.relu(self.expansion(windows))))
        window_BND = self.contraction(units).view(batch, num_nodes, -1)
        found = []
        for vectors, walk in zip((self.target, self.source), self.walks, strict=True):
            parts = [window_BND, row_BND, day_BND, vectors.expand(batch, -1, -1)]
            features = torch.cat(parts, dim=2)
            scores = self.query(features) @ self.key(features).transpose(1, 2)
            weights = (scores / self.config.hidden**0.5).softmax(dim=2) * (walk + 1e-7)
            weights = torch.diag_embed(1 / weights.sum(dim=2)) @ weights
            power, off = weights, 1 - torch.eye(num_nodes)
            found.append(_repeat(power * off, self.config.kernel))
            for _ in range(1, self.config.hops):
                power = power @ weights
                found.append(_repeat(power * off, self.config.kernel))
        return found

    def forward(self, x: Tensor) -> Tensor:
        batch, _, num_nodes, _ = x.shape
        row, day = step_index(x, self.shape), day_index(x, self.shape)
        assert row is not None
        assert day is not None
        times = [
            table[index][:, :, None].expand(-1, -1, num_nodes, -1)
            for table, index in ((self.rows, row), (self.days, day))
        ]
        readings = x[..., : -self.shape.calendar_channels]
        dynamic = self.graphs(readings, *(each[:, -1] for each in times))
        learned = functional.relu(self.source @ self.target.t()).softmax(dim=1)
        h = self.entrance(readings)
        own = [each.expand(batch, x.shape[1], -1, -1) for each in (self.source, self.target)]
        total: list[Tensor] = []
        for gate, diffusion, inherent in zip(
            self.gates, self.diffusion, self.inherent, strict=True
        ):
            opened = torch.sigmoid(gate(torch.cat([*times, *own], dim=3)))
            h, diffused = diffusion(h, h * opened[:, -h.shape[1] :], dynamic, learned)
            h, inherited = inherent(h)
            total += [diffused, inherited]
        state = functional.relu(self.end(functional.relu(functools.reduce(torch.add, total))))
        forecast: Tensor = self.regression(state).transpose(1, 2).reshape(batch, num_nodes, -1)
        return forecast.transpose(1, 2)[:, : self.shape.horizon, :, None]


def _repeat(graph: Tensor, kernel: int) -> Tensor:
    """A graph beside itself, `kernel` times."""
    return torch.cat([graph] * kernel, dim=-1)


def build_d2stgnn(model: AbstractModel, supports: Supports) -> nn.Module:
    """Of a `D2STGNN` with both features of the calendar and one target."""
    assert isinstance(model, D2STGNN)
    return _D2STGNN(model, dense_operators(supports))
