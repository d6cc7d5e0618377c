"""The adjacency that a network learned, as reports show it."""

import pytest
import torch

from pgti.models import MODELS, AbstractModel, build_model

from .small_models import SMALL, shape

LEARNS = {"graph-wavenet", "agcrn", "mtgnn", "megacrn", "himnet", "d2stgnn"}


@pytest.mark.parametrize("name", sorted(set(MODELS) & set(SMALL)))
def test_rows_of_a_learned_adjacency_are_weights_that_add_up_to_1(name: str) -> None:
    network = build_model(name, SMALL[name], shape())
    assert isinstance(network, AbstractModel)
    rows = network.learned_rows()
    assert (rows is not None) == (name in LEARNS)
    if rows is None:
        return
    num_nodes = shape().num_nodes
    whole = rows(slice(0, num_nodes))
    assert whole.shape == (num_nodes, num_nodes)
    assert bool((whole >= 0).all())
    torch.testing.assert_close(whole.sum(dim=1), torch.ones(num_nodes))
    torch.testing.assert_close(rows(slice(1, 3)), whole[1:3])
