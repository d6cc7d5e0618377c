"""The window's shape."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import WindowSpec


def test_counts_windows_as_the_literature_does() -> None:
    """METR-LA's and PeMS's window counts are those that DCRNN and PGT-I report."""
    assert WindowSpec().num_windows(34_272) == 34_249
    assert WindowSpec().num_windows(105_120) == 105_097
    assert WindowSpec(input_steps=4, horizon=4).num_windows(521) == 514


@given(
    steps=st.integers(0, 300),
    inputs=st.integers(1, 20),
    horizon=st.integers(1, 20),
    stride=st.integers(1, 9),
)
def test_every_whole_window_and_no_other(
    steps: int, inputs: int, horizon: int, stride: int
) -> None:
    """Starts are exactly the multiples of the stride whose last row is in the series."""
    spec = WindowSpec(input_steps=inputs, horizon=horizon, stride=stride)
    expected = [s for s in range(0, steps, stride) if s + inputs + horizon <= steps]
    assert expected == list(spec.starts(steps))
    assert len(expected) == spec.num_windows(steps)


@pytest.mark.parametrize("name", ["input_steps", "horizon", "stride"])
@pytest.mark.parametrize("value", [0, -3, 1.5, True, "12"])
def test_refuses_what_is_no_positive_whole_number(name: str, value: object) -> None:
    """Each size must be a whole number of at least one, and the message names it and its value."""
    with pytest.raises(ConfigError, match=f"{name} is {value!r}"):
        WindowSpec(**{name: value})  # type: ignore[arg-type]
