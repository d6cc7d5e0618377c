"""`pgti models`: list and describe models."""

from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pgti.batching import WindowConfig
from pgti.cli.output import log, print_json, show
from pgti.cli.run_options import allow_own_module
from pgti.errors import ConfigError, MissingExtraError
from pgti.models import MODELS, ModelShape, model_entry, num_parameters
from pgti.run.build import shape_of_store
from pgti.store import CALENDAR_FEATURES, SeriesStore

__all__ = ["models_command"]

_METR_LA = ModelShape(
    input_steps=12,
    horizon=12,
    num_nodes=207,
    input_channels=2,
    target_channels=1,
    target_indices=(0,),
    calendar=("time-of-day",),
    steps_per_day=288,
)


def models_command(
    name: str | None = None, /, *, store: Path | None = None, json: bool = False
) -> None:
    """List the models with their papers and sizes, or the options of one model.

    Args:
        name: Model whose options to list, also a network of your own, MODULE:CLASS. By default all
            models are listed.
        store: Count parameters for this store. By default for METR-LA: 207 sensors, 12 input steps
            and a horizon of 12.
        json: Print one JSON object as the last line of standard output.
    """
    opened = None if store is None else SeriesStore.open(store)
    allow_own_module(name)
    if name is not None:
        model_entry(name)  # an unknown name is an error that names the nearest one
    names = [name] if name is not None else [each for each in MODELS if not MODELS[each].library]
    shapes = {each: _shape(each, opened) for each in names}
    counts = {each: _count(each, shape) for each, shape in shapes.items()}
    models = {each: _summary(each, count) for each, count in counts.items()}
    if name is None:
        show(_models_table(models, next(iter(shapes.values()))))
        for library in dict.fromkeys(each.library for each in MODELS.values() if each.library):
            show(_layers_table(library))
    else:
        for line in _about(name, counts[name], shapes[name]):
            log(line)
        show(_options_table(name))
    if json:
        print_json({"models": models, **_layers()} if name is None else {"models": models})


def _layers() -> dict[str, dict[str, dict[str, str | None]]]:
    """Layers of other libraries, as "PREFIX_layers" for each prefix of their names."""
    layers: dict[str, dict[str, dict[str, str | None]]] = {}
    for name, entry in MODELS.items():
        if entry.library:
            group = layers.setdefault(f"{name.partition(':')[0]}_layers", {})
            group[name] = {"remark": entry.remark, "ours": entry.replacement}
    return layers


def _shape(name: str, store: SeriesStore | None) -> ModelShape:
    """What windows ask of a model, with the calendar that it has by default."""
    if store is not None:
        return shape_of_store(store, WindowConfig(), name)
    if not model_entry(name).model.uses_day_of_week:
        return _METR_LA
    return replace(_METR_LA, calendar=CALENDAR_FEATURES, input_channels=_METR_LA.input_channels + 1)


def _summary(name: str, count: int | str) -> dict[str, Any]:
    entry = model_entry(name)
    return {
        "paper": entry.description,
        "supports": entry.model.support_kind,
        "parameters": None if isinstance(count, str) else count,
        "options": {each.name: _default(each) for each in fields(entry.config)},
    }


def _count(name: str, shape: ModelShape) -> int | str:
    """Parameters of a model, or why they cannot be counted."""
    try:
        return num_parameters(name, {}, shape)
    except MissingExtraError:
        return "its extra is not installed"
    except ConfigError as error:
        return str(error)


def _default(option: Field[Any]) -> Any:
    """The default of an option, or that it has none."""
    if option.default_factory is not MISSING:
        return option.default_factory()
    return "required" if option.default is MISSING else option.default


def _models_table(models: dict[str, dict[str, Any]], shape: ModelShape) -> Table:
    table = Table(
        title=f"models; parameters for {shape.num_nodes:,} sensors, {shape.input_steps} steps in, "
        f"{shape.horizon} out",
        title_justify="left",
    )
    for title in ("model", "parameters", "graph", "paper", "options"):
        table.add_column(title, justify="right" if title == "parameters" else "left")
    for name, each in models.items():
        count = each["parameters"]
        table.add_row(
            name,
            "extra not installed" if count is None else f"{count:,}",
            "-" if each["supports"] == "none" else each["supports"],
            each["paper"],
            ", ".join(option.replace("_", "-") for option in each["options"]),
        )
    return table


def _layers_table(library: str) -> Table:
    """Without parameters: to count them, the library would have to be imported."""
    table = Table(title=f"layers of {library}", title_justify="left")
    for title in ("model", "ours", "remark"):
        table.add_column(title)
    for name, entry in MODELS.items():
        if entry.library == library:
            table.add_row(name, entry.replacement or "-", entry.remark)
    return table


def _about(name: str, count: int | str, shape: ModelShape) -> Iterator[str]:
    """Paper and size of a model, a line each, and the model to use instead, if there is one."""
    entry = model_entry(name)
    yield f"{name}: {entry.description}"
    if isinstance(count, str):
        yield f"its parameters cannot be counted: {count}"
    else:
        yield (
            f"{count:,} parameters for {shape.num_nodes:,} sensors, {shape.input_steps} steps "
            f"in, {shape.horizon} out"
        )
    if entry.replacement:
        yield f"of ours, to use instead: {entry.replacement}"


def _options_table(name: str) -> Table:
    entry = model_entry(name)
    table = Table()
    for title in ("option", "default"):
        table.add_column(title)
    for each in fields(entry.config):
        table.add_row(f"--model.{each.name.replace('_', '-')}", str(_default(each)))
    return table
