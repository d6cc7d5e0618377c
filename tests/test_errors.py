"""How messages name options."""

import pytest

from pgti.errors import name_flags, option


@pytest.mark.parametrize(
    ("name", "value", "argument", "flag"),
    [
        ("batch_size", 8, "batch_size=8", "--batch-size 8"),
        ("threshold", 0, "threshold=0", "--threshold 0"),
        ("batching", "index", "batching='index'", "--batching index"),
        ("overwrite", True, "overwrite=True", "--overwrite"),
        ("windows.targets", None, "windows.targets", "--windows.targets"),
        ("milestones", (20, 30), "milestones=(20, 30)", "--milestones 20,30"),
        ("options.missing", (0, -1), "options={'missing': (0, -1)}", "--missing 0,-1"),
        ("missing", (-1, 0), "missing=(-1, 0)", "--missing=-1,0"),
        ("model.hidden", 8, "model_options['hidden']=8", "--model.hidden 8"),
    ],
)
def test_an_option_is_an_argument_in_python_and_a_flag_on_the_command_line(
    name: str, value: object, argument: str, flag: str
) -> None:
    assert option(name, value) == argument
    with name_flags():
        assert option(name, value) == flag
    assert option(name, value) == argument


def test_a_flag_may_have_another_name() -> None:
    assert option("source", flag="from") == "source"
    with name_flags():
        assert option("source", "data", flag="from") == "--from data"


@pytest.mark.parametrize(
    ("name", "value", "argument", "flag"),
    [
        ("timestamps", False, "timestamps=False", "--no-timestamps"),
        ("windows.calendar", (), "windows.calendar=()", "--windows.empty-calendar"),
        ("model.head", True, "model_options['head']=True", "--model.head true"),
    ],
)
def test_negations_and_empty_lists_have_flags_of_their_own(
    name: str, value: object, argument: str, flag: str
) -> None:
    assert option(name, value) == argument
    with name_flags():
        assert option(name, value) == flag
