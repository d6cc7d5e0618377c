"""Sparse products on the GPU: right, whatever was in the memory they write, and how fast."""

import math

import torch

from pgti.nn import Supports
from pgti.nn.learned_graph import Neighbours, nearest
from pgti.nn.numerics import float32_products
from pgti_bench.gpu_check.large import check_large
from pgti_bench.gpu_check.setting import Setting, relative_error
from pgti_bench.gpu_check.windows import PEMS_NODES, graph_of

__all__ = ["check"]

_LARGEST_ERROR = 1e-6
_REPEATS = 20


def check(setting: Setting) -> None:
    """Fixed and learned graphs, at METR-LA's size and California's."""
    sizes = setting.size([(207, 4096), (PEMS_NODES, 2048)], [(100, 16)])
    for num_nodes, columns in sizes:
        name = f"{num_nodes:,} nodes, {columns:,} columns"
        with setting.guard(f"product, {name}"):
            _fixed(setting, f"product, {name}", num_nodes, columns)
    with setting.guard("learned graph"):
        _learned(setting, setting.size(3000, 60), setting.size(512, 8))
    with setting.guard("rows beyond 2^31 numbers"):
        _large_offsets(setting)
    check_large(setting)


def _fixed(setting: Setting, name: str, num_nodes: int, columns: int) -> None:
    graph = graph_of(num_nodes)
    supports = Supports.from_graph(graph).to(setting.device)
    x = torch.randn(num_nodes, columns, generator=torch.Generator().manual_seed(0))
    exact = {
        transposed: Supports.from_graph(graph)
        .double()
        .product(0, x.double(), transposed=transposed)
        for transposed in (False, True)
    }
    x = x.to(setting.device)
    # What is in `out` must not matter, not even NaN times the factor 0.
    out = torch.full_like(x, torch.nan)
    supports.product(0, x, out=out)
    errors = {
        "error": relative_error(out, exact[False]),
        "transposed": relative_error(supports.product(0, x, transposed=True), exact[True]),
        "accumulated": relative_error(
            supports.product(0, x, out=out.clone(), accumulate=True), 2 * exact[False]
        ),
        # Columns of a wider matrix, as layers pass them.
        "sliced": relative_error(
            supports.product(0, torch.cat([x, x], dim=1)[:, columns:]), exact[False]
        ),
    }
    repeats = all(torch.equal(supports.product(0, x), out) for _ in range(_REPEATS))
    times = setting.milliseconds(lambda: supports.product(0, x, out=out))
    matrix = torch.zeros(num_nodes, num_nodes, device=setting.device)
    dense_ms = {}
    for tf32 in (False, True) if setting.on_gpu else (False,):
        with float32_products(setting.device, tf32=tf32):
            dense = setting.milliseconds(lambda: torch.mm(matrix, x, out=out))
        dense_ms["dense_tf32_ms" if tf32 else "dense_ms"] = dense["ms"]
    worst = max(math.inf if math.isnan(each) else each for each in errors.values())
    figures = {
        **errors,
        "repeats_bitwise": repeats,
        "edges": graph.num_edges,
        "ms": times["ms"],
        "host_ms": times["host_ms"],
        **dense_ms,
    }
    setting.add(name, figures, passed=worst < _LARGEST_ERROR)


def _learned(setting: Setting, num_nodes: int, columns: int) -> None:
    generator = torch.Generator().manual_seed(0)
    p, q = (torch.randn(num_nodes, 40, generator=generator) for _ in range(2))
    left, right = (torch.randn(num_nodes, columns, generator=generator) for _ in range(2))
    index = nearest(p, q, min(20, num_nodes // 10))
    expected = Neighbours(index).sample(left, right)
    there = [each.to(setting.device) for each in (index, left, right)]
    neighbours = Neighbours(there[0])
    sampled = neighbours.sample(*there[1:])
    product = neighbours.multiply(sampled, there[2])
    errors = {
        "sampled": relative_error(sampled, expected),
        "product": relative_error(product, Neighbours(index).multiply(expected, right)),
    }
    times = setting.milliseconds(lambda: neighbours.sample(*there[1:]))
    passed = max(errors.values()) < 10 * _LARGEST_ERROR
    setting.add("learned graph", {**errors, "ms": times["ms"]}, passed=passed)


def _large_offsets(setting: Setting) -> None:
    """A series of more than 2^31 readings is gathered from its end."""
    rows, columns = setting.size((52_000, 44_640), (1000, 10))
    series = torch.zeros(rows, columns, dtype=torch.int16, device=setting.device)
    series[-1] = 7
    index = torch.tensor([rows - 1, 0], device=setting.device)
    found = torch.index_select(series, 0, index)
    passed = bool((found[0] == 7).all()) and bool((found[1] == 0).all())
    setting.add("rows beyond 2^31 numbers", {"numbers": rows * columns}, passed=passed)
