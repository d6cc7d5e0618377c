"""Networks of the user's own: found by name, with their parameters as options."""

import re
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from pgti.errors import ConfigError
from pgti.models import (
    CUSTOM_MODEL,
    build_config,
    build_model,
    is_own_model,
    model_entry,
    name_of_own_model,
    num_parameters,
)
from pgti.options import parse_text

from .test_registry import shape

MODULE = '''
import functools
from torch import nn
from pgti import ModelShape

class Net(nn.Module):
    """A linear map.

    Of the last input.
    """

    def __init__(self, shape: ModelShape, hidden: int = 4, *, scale=1.0, kind: str = "a"):
        super().__init__()
        self.linear = nn.Linear(shape.input_channels, hidden)
        self.scale, self.kind = scale, kind

    class Part(nn.Linear):
        pass

class Undescribed(Net):
    pass

def build(shape, hidden):
    return Net(shape, hidden)

def wrong(sizes):
    return Net(sizes)

def fails(shape):
    raise ValueError("no such size\\nas this")

def fails_in_torch(shape):
    return nn.Linear("2", 3)

def gives_text(shape):
    return "a network"

made = functools.partial(Net, hidden=3)
NUMBER = 3
'''


@pytest.fixture(name="module")
def _module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module with networks, which Python finds."""
    (tmp_path / "their_models.py").write_text(MODULE)
    (tmp_path / "broken_models.py").write_text("import torch\nx = 1 / 0\n")
    (tmp_path / "unfinished_models.py").write_text("class Net(\n")
    (tmp_path / "needy_models.py").write_text("import no_such_library\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("their_models", "broken_models", "unfinished_models", "needy_models"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return "their_models"


def test_a_class_by_name_is_built_with_its_options(module: str) -> None:
    network = build_model(f"{module}:Net", {"hidden": 3, "scale": 2}, shape())
    assert type(network).__module__ == module
    assert isinstance(network.linear, nn.Linear)
    assert network.linear.weight.shape == (3, shape().input_channels)
    assert type(network.scale) is float
    assert asdict(build_config(f"{module}:Net", {})) == {"hidden": 4, "scale": 1.0, "kind": "a"}
    assert model_entry(f"{module}:Net").description == "A linear map."
    for undescribed in ("build", "Undescribed"):
        entry = model_entry(f"{module}:{undescribed}")
        assert entry.description == "a network of your own"
    assert num_parameters(f"{module}:Net", {"hidden": 3}, shape()) == 3 * 4 + 3


def test_a_function_by_name_may_require_an_option(module: str) -> None:
    network = build_model(f"{module}:build", {"hidden": 2}, shape())
    assert sum(each.numel() for each in network.parameters()) == 2 * 4 + 2
    with pytest.raises(ConfigError, match=r"requires the option hidden: give model_options\['hi"):
        build_config(f"{module}:build", {})


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("their_models:Net", {"hiden": 3}, "hiden is not an option of their_models:Net; did you"),
        ("their_models:Net", {"hidden": "3"}, "model.hidden is '3': it must be a whole number"),
        ("their_models:Net", {"scale": "big"}, "model.scale is 'big': it must be a number"),
        ("their_models:Net", {"kind": 3}, "model.kind is 3: it must be text"),
        ("their_models:Nett", {}, "their_models has no 'Nett'; did you mean 'Net'?"),
        ("their_models:Net.Port", {}, "Net has no 'Port'; did you mean 'Part'?"),
        ("their_models:NUMBER", {}, "is 3: it must be a class derived from torch.nn.Module"),
        ("their_models:made", {}, r"is functools.partial\(.*: it must be a class derived from"),
        (
            "pathlib:Path",
            {},
            "is <class 'pathlib.Path'>: it must be a class derived from torch.nn.Module",
        ),
        ("their_models:wrong", {}, r"takes \(sizes\): its first parameter must be `shape`"),
        ("their_models:Net.Part", {}, r"takes \(in_features, out_features, .*must be `shape`"),
        (
            "their_models:fails",
            {},
            r"fails cannot be built: ValueError: no such size \(.*_models.py, line \d",
        ),
        (
            "their_models:fails_in_torch",
            {},
            r"cannot be built: TypeError.*_models.py, line 3[0-9]",
        ),
        ("their_models:gives_text", {}, r"returned a str: it must return a torch\.nn\.Module"),
        ("their_modles:Net", {}, "Python finds no module their_modles. On the command line --mo"),
        ("their_models.py:Net", {}, "is not MODULE:CLASS, such as their_models:Net"),
        ("./some/models.py:Net", {}, "is not MODULE:CLASS, such as some.models:Net"),
        ("their models:Net", {}, "is not MODULE:CLASS, such as my_models:Network"),
        ("their_models:", {}, "is not MODULE:CLASS"),
        ("broken_models:Net", {}, r"cannot be imported: ZeroDivisionError: .*_models.py, line 2\)"),
        ("unfinished_models:Net", {}, "cannot be imported: SyntaxError: .*_models.py, line 1"),
        (
            "needy_models:Net",
            {},
            "imported: ModuleNotFoundError: No module named 'no_such_library'",
        ),
        ("pgt:TGCN3", {}, "model 'pgt:TGCN3' does not exist; did you mean 'pgt:TGCN'"),
        ("custom", {}, "'custom' stands for a network that no module defines"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_cannot_be_used_is_explained(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        build_model(name, options, shape())
    assert "\n" not in str(caught.value)


def test_code_of_other_modules_is_never_called() -> None:
    """A run's files may name any callable: neither is it a network, nor does it take a shape."""
    for name in ("os:system", "subprocess:Popen", "builtins:eval", "runpy:run_path"):
        with pytest.raises(ConfigError, match=r"must be a class derived|first parameter must be"):
            build_model(name, {}, shape())


def test_registered_names_are_not_modules() -> None:
    assert not is_own_model("pgt:TGCN2")
    assert not is_own_model("pgt:NoLayer")
    assert not is_own_model("dcrnn")
    assert is_own_model("pgtx:TGCN2")
    assert is_own_model(CUSTOM_MODEL)


class Known(nn.Module):
    """With every kind of parameter."""

    def __init__(  # noqa: PLR0917
        self,
        shape: object,
        hidden: int = 8,
        dropout: float = 0,
        gate: Literal["tanh", "relu"] = "tanh",
        limit: int | None = None,
        widths: tuple[int, ...] = (4, 4),
        names: "list[str]" = ["a"],  # noqa: B006 - as users write it
        either: int | str = 1,
        loose=0,  # noqa: ANN001 - as users write it
        label="x",  # noqa: ANN001
        sizes=(1, 2),  # noqa: ANN001
        activation: nn.Module = nn.ReLU(),  # noqa: B008
        name: str = "unused",
        **more: object,
    ) -> None:
        super().__init__()
        self.options = {
            "hidden": hidden, "dropout": dropout, "gate": gate, "limit": limit, "widths": widths,
            "names": names, "either": either, "loose": loose, "label": label, "sizes": sizes,
        }  # fmt: skip


def test_options_are_of_the_type_of_annotation_or_default() -> None:
    texts = {
        "hidden": ("16", 16), "dropout": ("1", 1.0), "gate": ("relu", "relu"), "limit": ("3", 3),
        "widths": ("8,16", (8, 16)), "names": ("1,b", ["1", "b"]), "either": ("7", "7"),
        "loose": ("0.5", 0.5), "label": ("7", "7"), "sizes": ("3,4", (3, 4)),
    }  # fmt: skip
    entry = model_entry(CUSTOM_MODEL, Known)
    hints = {each.name: each.type for each in entry.config.__dataclass_fields__.values()}
    assert set(hints) == set(texts)
    given = {name: parse_text(text, hints[name]) for name, (text, _) in texts.items()}
    network = build_model(CUSTOM_MODEL, given, shape(), factory=Known)
    assert isinstance(network, Known)
    expected = {name: value for name, (_, value) in texts.items()}
    assert network.options == expected | {"either": 7}
    assert type(network.options["dropout"]) is float
    defaults = build_model(CUSTOM_MODEL, {}, shape(), factory=Known)
    assert isinstance(defaults, Known)
    assert defaults.options["names"] == ["a"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"gate": "gelu"}, "model.gate is 'gelu': it must be one of tanh, relu"),
        ({"widths": {}}, "model.widths is {}: it must be a list"),
        ({"widths": ["a"]}, r"model.widths\[0\] is 'a': it must be a whole number"),
        ({"activation": 3}, "model.activation is not an option of custom"),
        ({"more": 3}, "model.more is not an option of custom"),
    ],
)
def test_wrong_options_of_a_class_are_named(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        build_config(CUSTOM_MODEL, options, Known)


def _nested() -> type[nn.Module]:
    class Inner(Known):
        """Of a function."""

    return Inner


def _build(shape: object) -> nn.Module:
    return Known(shape)


def _build_of_sizes(sizes: object) -> nn.Module:
    return Known(sizes)


@pytest.mark.parametrize(
    ("factory", "name"),
    [
        (Known, f"{__name__}:Known"),
        (_build, f"{__name__}:_build"),
        (_build_of_sizes, CUSTOM_MODEL),  # by name it would be refused
        (_nested(), CUSTOM_MODEL),
        (lambda shape: Known(shape), CUSTOM_MODEL),  # noqa: PLW0108
        (re.compile, CUSTOM_MODEL),
        (type("Known", (nn.Module,), {"__module__": __name__}), CUSTOM_MODEL),
        (type("Net", (nn.Module,), {"__module__": "__main__"}), CUSTOM_MODEL),
    ],
)
def test_what_a_module_defines_has_a_name(factory: Callable[..., nn.Module], name: str) -> None:
    assert name_of_own_model(factory) == name


def test_running_out_of_memory_is_not_the_users_error() -> None:
    """It is explained as in any training."""

    def huge(_: object) -> nn.Module:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        build_model(CUSTOM_MODEL, {}, shape(), factory=huge)


class OwnKind(nn.Module):
    """Wants the operators of Chebyshev filters."""

    support_kind = "scaled_laplacian"

    def __init__(self, shape: object) -> None:
        super().__init__()

    def forward(self, x: Tensor, supports: object) -> Tensor:
        """The input."""
        return x


def test_a_network_names_the_operators_that_it_takes() -> None:
    assert model_entry(CUSTOM_MODEL, OwnKind).model.support_kind == "scaled_laplacian"
    assert model_entry(CUSTOM_MODEL, Known).model.support_kind == "dual_random_walk"
