"""What a simulation may be asked for."""

from typing import Any

import numpy as np
import pytest

from pgti.datasets.simulated import SimulationOptions
from pgti.errors import ConfigError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param({"sensors": 0}, "sensors is 0", id="no_sensors"),
        pytest.param({"sensors": 2.5}, "sensors is 2.5", id="half_a_sensor"),
        pytest.param({"steps": 0}, "steps is 0", id="no_steps"),
        pytest.param({"steps": True}, "steps is True", id="truth_as_number"),
        pytest.param({"seed": -1}, "seed is -1", id="negative_seed"),
        pytest.param({"seed": 2**63}, f"seed is {2**63}", id="seed_too_large"),
        pytest.param({"start": np.datetime64("NaT")}, "start is .*NaT", id="no_time"),
        pytest.param({"start": "Monday"}, "start is 'Monday': it must be a time", id="no_date"),
        pytest.param({"interval_seconds": 30}, "interval_seconds is 30", id="interval_short"),
        pytest.param({"interval_seconds": 7200}, "interval_seconds is 7200", id="interval_long"),
        pytest.param({"interval_seconds": 420}, "interval_seconds is 420", id="no_divisor"),
        pytest.param({"outage_fraction": -0.1}, "outage_fraction is -0.1", id="negative_outage"),
        pytest.param({"outage_fraction": 0.95}, "outage_fraction is 0.95", id="all_out"),
        pytest.param({"outage_fraction": np.nan}, "outage_fraction is nan", id="outage_nan"),
        pytest.param({"budget_bytes": 1000}, "budget_bytes is 1000", id="tiny_budget"),
    ],
)
def test_refuses_bad_options(options: dict[str, Any], message: str) -> None:
    """Each bad value is refused in one line that names it."""
    with pytest.raises(ConfigError, match=message) as caught:
        SimulationOptions(**options)
    assert "\n" not in str(caught.value)


def test_budget_that_is_named_is_enough() -> None:
    """The least budget in the message is accepted, and one byte less is not."""
    with pytest.raises(ConfigError) as caught:
        SimulationOptions(sensors=500, budget_bytes=1)
    least = int(str(caught.value).split()[-1])
    assert SimulationOptions(sensors=500, budget_bytes=least).chunk_steps == 12
    with pytest.raises(ConfigError, match=f"at least {least}"):
        SimulationOptions(sensors=500, budget_bytes=least - 1)


def test_chunk_grows_with_the_budget() -> None:
    """A larger budget writes more steps at a time, whole stretches always."""
    chunks = [SimulationOptions(sensors=1000, budget_bytes=n << 20).chunk_steps for n in (1, 2, 8)]
    assert chunks == sorted(set(chunks))
    assert all(steps % 12 == 0 for steps in chunks)
