"""Attention of several heads against its definition."""

import pytest
import torch

from pgti.nn import attend

from ..models.dense_reference import assert_same

GROUPS, QUERIES, KEYS = 5, 4, 4


@pytest.mark.parametrize("most_groups", [(1 << 16) - 1, 4])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "head_width"), [(1, 3), (2, 8), (3, 5)])
def test_it_equals_its_definition(
    heads: int, head_width: int, causal: bool, most_groups: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With heads of widths that kernels take and others, and more groups than they take at once."""
    monkeypatch.setattr("pgti.nn.attention._MOST_GROUPS", most_groups)
    torch.manual_seed(0)
    query, key, value = (
        torch.randn(GROUPS, length, heads * head_width, dtype=torch.float64, requires_grad=True)
        for length in (QUERIES, KEYS, KEYS)
    )
    read = []
    for q, k, v in zip(
        *(each.split(head_width, dim=2) for each in (query, key, value)), strict=True
    ):
        scores = q @ k.mT / head_width**0.5
        if causal:
            seen = torch.ones(QUERIES, KEYS, dtype=torch.bool).tril()
            scores = scores.where(seen, -torch.inf)
        read.append(scores.softmax(dim=2) @ v)
    found = attend(query, key, value, heads, causal=causal)
    assert found.shape == query.shape
    assert_same(found, torch.cat(read, dim=2), (query, key, value))


def test_weights_are_dropped() -> None:
    """Of a value of ones, what is left of the weights: their mean stays 1."""
    torch.manual_seed(0)
    ones = torch.ones(64, 16, 8)
    read = attend(ones, ones, ones, 2, dropout=0.25)
    assert read.std() > 0.01
    torch.testing.assert_close(read.mean(), torch.tensor(1.0), rtol=0, atol=0.02)


@pytest.mark.parametrize(
    ("groups", "length", "heads", "most"),
    [(80_000, 3, 1, 65_535), (80_000, 3, 4, 16_383), (768, 11_160, 8, 744)],
)
def test_groups_at_a_time_are_those_that_fused_attention_takes(
    groups: int, length: int, heads: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much memory there is: CUDA's grids end there, and 32 bits."""
    sizes: list[int] = []

    def record(query: torch.Tensor, *_: torch.Tensor, **__: object) -> torch.Tensor:
        sizes.append(len(query))
        return query

    monkeypatch.setattr("torch.nn.functional.scaled_dot_product_attention", record)
    tokens = torch.empty(groups, length, 8 * heads, device="meta")
    assert attend(tokens, tokens, tokens, heads).shape == tokens.shape
    assert max(sizes) == most
    assert sum(sizes) == groups
