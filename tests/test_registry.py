"""Registries: entries of this package, entries that installed packages add, and refusals."""

from importlib.metadata import EntryPoint

import pytest

from pgti.errors import ConfigError
from pgti.registry import Registry


def make_registry(monkeypatch: pytest.MonkeyPatch, *points: EntryPoint) -> Registry[int]:
    """A registry of two numbers, to which a package with these entry points adds."""

    def installed(group: str) -> tuple[EntryPoint, ...]:
        return points if group == "pgti.test" else ()

    monkeypatch.setattr("pgti.registry.entry_points", installed)
    return Registry("pgti.test", {"b": 2, "A": 1})


def entry_point(value: str) -> EntryPoint:
    return EntryPoint(name="theirs", value=value, group="pgti.test")


ADDED: list[Registry[int]] = []


def add_three() -> None:
    """What a package's entry point names."""
    ADDED[-1].register("a3", 3)


def test_packages_add_entries_when_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for a name that is here already; once; in alphabetical order."""
    registry = make_registry(monkeypatch, entry_point(f"{__name__}:add_three"))
    ADDED.append(registry)
    assert registry["b"] == 2
    assert "a3" not in registry._entries
    assert registry["a3"] == 3
    assert list(registry.items()) == [("A", 1), ("a3", 3), ("b", 2)]
    assert len(registry) == 3
    assert "zzz" not in registry
    assert repr(registry) == "Registry(A, a3, b)"


def test_a_name_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two packages that use one name are told so."""
    registry = make_registry(monkeypatch)
    with pytest.raises(ConfigError, match=r"'b' is registered twice in pgti\.test"):
        registry.register("b", 4)


def test_a_package_that_cannot_be_imported_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what Python says of it."""
    registry = make_registry(monkeypatch, entry_point("pgti_absent_package:register"))
    with pytest.raises(ConfigError, match=r"cannot add to pgti\.test .*pgti_absent_package"):
        list(registry)


def test_a_refused_name_has_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that users may ask for and that is no entry."""
    registry = make_registry(monkeypatch)
    registry.refuse("c", "is not trained")
    assert registry.refusal("c") == "is not trained"
    assert registry.refusal("b") is None
    assert "c" not in registry


def test_this_package_registers_its_own() -> None:
    """The installed metadata are those of pyproject.toml: otherwise run `make setup`."""
    from pgti.models import MODELS  # noqa: PLC0415

    assert {"dcrnn", "pgt-dcrnn", "pgt:TGCN2"} <= set(MODELS)
