"""One process that runs commands, for all tests of faults."""

import shutil
import sys
from collections.abc import Iterator

import pytest

from ..datasets.file_server import Served, serving
from ..datasets.published_files import chickenpox
from .commands import make_inputs
from .walker import Walker, open_walker


@pytest.fixture(scope="session")
def walker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Walker]:
    """Runs the commands, whose inputs are there."""
    if sys.platform != "linux" or shutil.which("cc") is None:
        pytest.skip("calls are intercepted on Linux, and with a C compiler")
    pytest.importorskip("pooch", reason="pooch is not installed")
    with open_walker(tmp_path_factory.mktemp("faults")) as running, serving() as server:
        server.files["chickenpox.json"] = Served(chickenpox())
        running.url = server.url
        make_inputs(running)
        shutil.copytree(running.root, running.template)
        yield running
