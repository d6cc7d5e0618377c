"""The published protocol of a data set as options of the windows."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pgti.batching import WindowConfig
from pgti.errors import ConfigError, option

if TYPE_CHECKING:
    from pgti.datasets import Dataset
    from pgti.run.config import RunConfig
    from pgti.store import SeriesStore

__all__ = ["apply_protocol", "format_option", "given_windows", "note_windows", "windows_of"]

PUBLISHED = "published"
"""The protocol of the data set that the store names."""

_SPLIT_BY_DATES = ("val_from", "test_from")


def apply_protocol(
    name: str, store: "SeriesStore", given: Mapping[str, Any]
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Options of the windows by a published protocol, below those that the user gives.

    Args:
        name: "published", for the data set that the store remembers (`pgti.fetch` writes it); or
            the name of a data set.
        store: the store to train on.
        given: options of the windows that the user gives, which win.

    Returns:
        The options by name, and what a user should know, one line each.

    Raises:
        ConfigError: if the data set is not known, has no protocol, or its channels are not those of
            the store.
    """
    from pgti.datasets import find_dataset  # noqa: PLC0415 - pandas comes with it

    if name == PUBLISHED:
        remembered = store.meta.read_options.get("dataset")
        if remembered is None:
            raise ConfigError(
                f"the store {store.path} does not say which published data set it is: name it "
                f"({option('protocol', 'METR-LA')}), or create the store with `pgti fetch`"
            )
        name = str(remembered)
    dataset = find_dataset(name)
    protocol = dataset.protocol
    if protocol is None:
        raise ConfigError(
            f"no protocol of windows is published for {dataset.name}: leave {option('protocol')} "
            "out, and choose the windows yourself"
        )
    options = windows_of(dataset, store, has_inputs="inputs" in given)
    if any(given.get(each) is not None for each in _SPLIT_BY_DATES):
        given = {**given, "fractions": None}
    notes = [f"protocol of {dataset.name} ({protocol.source}): {protocol.summary}"]
    for option_name, value in given.items():
        if option_name in options and value != options[option_name]:
            shown = "dates" if value is None else format_option(value)
            notes.append(
                f"{option(f'windows.{option_name}')} is {shown} as given, where the protocol has "
                f"{format_option(options[option_name])}"
            )
    chosen = {**options, **{key: value for key, value in given.items() if value is not None}}
    if store.meta.num_nodes != dataset.num_nodes:
        notes.append(
            f"the store has {store.meta.num_nodes:,} sensors, and {dataset.name} "
            f"{dataset.num_nodes:,}: figures do not compare"
        )
    return chosen, tuple(notes)


def windows_of(
    dataset: "Dataset", store: "SeriesStore", *, has_inputs: bool = False
) -> dict[str, Any]:
    """Options of the windows by the protocol of a data set that has one.

    Args:
        dataset: the data set.
        store: of it.
        has_inputs: whether the inputs are other ones than the protocol's.

    Raises:
        ConfigError: if the store does not have the channels of the protocol.
    """
    assert dataset.protocol is not None
    options = dataset.protocol.window_options(store.meta.num_steps)
    absent = [each for each in dataset.protocol.inputs if each not in store.meta.channels]
    if absent and not has_inputs:
        raise ConfigError(
            f"the protocol of {dataset.name} has the channel {absent[0]!r}, and the store has "
            f"{', '.join(store.meta.channels)}: fetch it, or name another data set"
        )
    if set(store.meta.channels) == set(dataset.protocol.inputs):
        del options["inputs"]
    return options


def note_windows(name: str, store: "SeriesStore", config: "RunConfig") -> tuple[str, ...]:
    """A note where the windows of a run are not as many as published."""
    from pgti.datasets import find_dataset  # noqa: PLC0415 - pandas comes with it

    dataset = find_dataset(str(store.meta.read_options["dataset"]) if name == PUBLISHED else name)
    assert dataset.protocol is not None  # `apply_protocol` refuses others
    splits = config.windows.splits(store)
    counts = tuple(len(each) for each in (splits.train, splits.val, splits.test))
    if counts == dataset.protocol.num_windows:
        return ()
    shown, published = (
        " / ".join(f"{count:,}" for count in each)
        for each in (counts, dataset.protocol.num_windows)
    )
    return (
        f"{shown} windows train, validate and test, where the official code has {published} of "
        f"{dataset.protocol.num_steps:,} rows; the store has {store.meta.num_steps:,}",
        *dataset.protocol.notes,
    )


def format_option(value: Any) -> str:
    """The value of an option for a line of text: lists with commas."""
    if isinstance(value, tuple | list):
        return ", ".join(f"{each:.4g}" if isinstance(each, float) else str(each) for each in value)
    return str(value)


def given_windows(windows: "WindowConfig | Mapping[str, Any] | None") -> dict[str, Any]:
    """Options of the windows that the user gives; of a `WindowConfig` those that are no default."""
    if isinstance(windows, WindowConfig):
        default = asdict(WindowConfig())
        return {key: each for key, each in asdict(windows).items() if each != default[key]}
    return dict(windows or {})
