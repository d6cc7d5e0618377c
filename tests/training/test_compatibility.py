"""Options that a run's version did not have yet count as their defaults."""

from dataclasses import asdict

import pytest

from pgti.errors import RunError
from pgti.training import TrainingConfig
from pgti.training.compatibility import check_settings


def test_a_run_of_an_older_version_goes_on_with_the_defaults_of_newer_options() -> None:
    before = {"training": asdict(TrainingConfig(order="global", block_size=8))}
    del before["training"]["partitions"], before["training"]["rotation"]
    same = TrainingConfig(order="global", block_size=8)
    check_settings(before, {"training": asdict(same)})
    other = TrainingConfig(order="partitions", partitions=4, block_size=8)
    with pytest.raises(RunError, match=r"training\.order = 'global' .* with 'partitions'"):
        check_settings(before, {"training": asdict(other)})
    del before["training"]["order"]
    before["training"]["order"] = "partitions"
    with pytest.raises(RunError, match=r"training\.partitions = 16 .* with 4"):
        check_settings(before, {"training": asdict(other)})
