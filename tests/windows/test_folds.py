"""Rolling origins: which windows are in which fold."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgti.errors import ConfigError
from pgti.windows import WindowSpec, rolling_folds


@given(
    num_steps=st.integers(1, 400),
    input_steps=st.integers(1, 20),
    horizon=st.integers(1, 20),
    stride=st.integers(1, 5),
    num_folds=st.integers(1, 8),
    data=st.data(),
)
def test_every_window_is_in_one_fold_and_its_targets_come_after_what_is_learned(
    num_steps: int, input_steps: int, horizon: int, stride: int, num_folds: int, data: st.DataObject
) -> None:
    """Whatever the options: the windows of the series' own grid, none twice, none left out."""
    spec = WindowSpec(input_steps=input_steps, horizon=horizon, stride=stride)
    first_row = data.draw(st.none() | st.integers(0, num_steps))
    fold_steps = data.draw(st.none() | st.integers(1, 60))
    try:
        folds = rolling_folds(
            num_steps, spec, num_folds, first_row=first_row, fold_steps=fold_steps
        )
    except ConfigError:
        return
    assert len(folds) == num_folds
    ends = [*(fold.first_row for fold in folds[1:]), num_steps - horizon + 1]
    if fold_steps is not None:
        ends[-1] = folds[-1].first_row + fold_steps
        assert {end - fold.first_row for fold, end in zip(folds, ends, strict=True)} == {fold_steps}
    if first_row is not None:
        assert folds[0].first_row == first_row
    whole = np.array(spec.starts(num_steps))
    for fold, end in zip(folds, ends, strict=True):
        first_targets = whole + input_steps
        inside = whole[(first_targets >= fold.first_row) & (first_targets < end)]
        assert list(fold.starts) == inside.tolist()
    if fold_steps is None:
        lengths = [end - fold.first_row for fold, end in zip(folds, ends, strict=True)]
        assert max(lengths) - min(lengths) <= 1


def test_the_last_half_is_forecast_by_default() -> None:
    folds = rolling_folds(1000, WindowSpec(input_steps=10, horizon=5), 6)
    assert folds[0].first_row == 500
    assert folds[-1].starts[-1] + 15 == 1000


def test_windows_across_a_hole_are_left_out() -> None:
    spec = WindowSpec(input_steps=3, horizon=2)
    (fold,) = rolling_folds(20, spec, 1, first_row=10, holes=np.array([12]))
    assert list(fold.starts) == [7, 8, 13, 14, 15]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_row": 2}, "the first 3 are inputs"),
        ({"num_folds": 10**9}, "there are 1000000000 folds and the series has 20 steps"),
        ({"fold_steps": 9}, "2 folds of 9 steps from row 1 do not fit into a series of 20 steps"),
        ({"fold_steps": 4, "first_row": 13}, "2 folds of 4 steps from row 13"),
        ({"fold_steps": 0}, "fold_steps is 0"),
        ({"first_row": 18}, "fold 1 of 2 has no window"),
    ],
)
def test_folds_that_do_not_fit_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        rolling_folds(20, WindowSpec(input_steps=3, horizon=2), **{"num_folds": 2, **options})
