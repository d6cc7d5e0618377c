"""How many steps recurrent layers compute before the next ones do."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from pgti.nn import ChunkLimits

from .small_models import build


@given(
    limit=st.integers(1, 1 << 24),
    num_steps=st.integers(1, 300),
    numbers=st.one_of(st.integers(1, 1 << 9), st.integers(1, 1 << 26)),
)
def test_without_gradients_it_is_the_quotient_of_the_limit(
    limit: int, num_steps: int, numbers: int
) -> None:
    """Found without a division; at least one step, and at most all."""
    model = build("linear")
    model.limits = ChunkLimits(activations=limit)
    with torch.no_grad():
        found = model.steps_per_part(num_steps, numbers)
    assert found == min(num_steps, max(1, limit // numbers))
