"""A file server, and catalogue entries that point to it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from pgti.datasets import DATASETS, Dataset, catalogue

from .file_server import FileServer, serving


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    """A server on the loopback interface, asked without a proxy."""
    pytest.importorskip("pooch", reason="pooch is not installed")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        yield running


@pytest.fixture
def pointed(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Dataset]:
    """Gives a function that points the downloads of a data set elsewhere."""

    def point(name: str, url: str, *, keep_md5: bool = False) -> Dataset:
        dataset = DATASETS[name]
        downloads = tuple(
            replace(each, url=f"{url}/{each.name}", md5=each.md5 if keep_md5 else None)
            for each in dataset.downloads
        )
        changed = replace(dataset, downloads=downloads)
        monkeypatch.setattr(catalogue, "DATASETS", {**catalogue.DATASETS, name: changed})
        return changed

    return point
