"""Options that a run's version did not have yet count as their defaults."""

from dataclasses import asdict

import pytest

from pgti.errors import RunError
from pgti.training import TrainingConfig
from pgti.training.compatibility import check_settings
from pgti.training.orders import GlobalOrder, PartitionsOrder


def test_a_run_of_an_older_version_goes_on_with_the_defaults_of_newer_options() -> None:
    same = TrainingConfig(order=GlobalOrder())
    before = {"training": asdict(same)}
    del before["training"]["warmup_steps"]
    check_settings(before, {"training": asdict(same)})
    other = TrainingConfig(order=PartitionsOrder(partitions=4, block_size=8))
    with pytest.raises(RunError, match=r"training\.order\.kind = 'global' .* with 'partitions'"):
        check_settings(before, {"training": asdict(other)})
    before["training"]["order"] = {"kind": "partitions", "block_size": 8}
    with pytest.raises(RunError, match=r"training\.order\.partitions = 16 .* with 4"):
        check_settings(before, {"training": asdict(other)})
