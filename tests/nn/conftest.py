"""Layers by themselves and as the compiler calls them."""

from collections.abc import Iterator

import pytest

from .compiler_calls import compiler_calls


@pytest.fixture(params=["eager", "operators"])
def _both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Computed as uncompiled models do, and by the operators of compiled ones."""
    if request.param == "eager":
        yield
        return
    with compiler_calls():
        yield
