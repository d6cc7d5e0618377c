"""Tables of models, their sizes and their options."""

from dataclasses import MISSING, Field, fields, replace
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rich.table import Table

from pgti.batching import WindowConfig
from pgti.cli.flags import short_texts
from pgti.cli.output import build_table, facts_table
from pgti.display import count_of
from pgti.errors import ConfigError, MissingExtraError
from pgti.models import MODELS, ModelShape, model_entry, num_parameters
from pgti.run.build import shape_of_store
from pgti.store import SeriesStore

__all__ = ["describe_model", "list_models"]

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
_TYPES = {bool: "true or false", int: "whole number", float: "number", str: "text"}


def list_models(store: SeriesStore | None) -> tuple[dict[str, Any], list[Table]]:
    """Every model, as JSON and as tables.

    Args:
        store: what to count parameters for; None stands for METR-LA.
    """
    names = [each for each in MODELS if not MODELS[each].library]
    shapes = {each: _shape(each, store) for each in names}
    models = {each: _summary(each, _count(each, shape)) for each, shape in shapes.items()}
    libraries = dict.fromkeys(each.library for each in MODELS.values() if each.library)
    tables = [_models_table(models, next(iter(shapes.values())))]
    tables += [_layers_table(library) for library in libraries]
    return {"models": models, **_layers()}, tables


def describe_model(name: str, store: SeriesStore | None) -> tuple[dict[str, Any], list[Table]]:
    """One model and its options, as JSON and as tables.

    Raises:
        ConfigError: if there is no such model, with the nearest name.
    """
    entry, shape = model_entry(name), _shape(name, store)
    count = _count(name, shape)
    about = {
        "paper": entry.description,
        "parameters": count if isinstance(count, str) else f"{count:,} for {_sizes(shape)}",
        "history": "any, such as --windows.history 14d or 1d..7d"
        if entry.reads_any_history
        else "whole earlier days, such as --windows.history 1d..7d",
        **({"ours, to use instead": entry.replacement} if entry.replacement else {}),
    }
    tables = [facts_table(name, about), _options_table(name)]
    return {"models": {name: _summary(name, count)}}, tables


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
    model = model_entry(name).model
    uses = {"time-of-day": model.uses_time_of_day, "day-of-week": model.uses_day_of_week}
    calendar = tuple(feature for feature, is_used in uses.items() if is_used)
    return replace(_METR_LA, calendar=calendar, input_channels=1 + len(calendar))


def _summary(name: str, count: int | str) -> dict[str, Any]:
    entry = model_entry(name)
    return {
        "paper": entry.description,
        "supports": entry.model.support_kind,
        "history": "any" if entry.reads_any_history else "days",
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
    columns = ("model", "graph", "history", "paper", "parameters")
    rows = [
        (
            name,
            "-" if each["supports"] == "none" else each["supports"],
            each["history"],
            each["paper"],
            "extra not installed" if each["parameters"] is None else f"{each['parameters']:,}",
        )
        for name, each in models.items()
    ]
    title = f"models, with parameters for {_sizes(shape)}; pgti models NAME lists options"
    return build_table(title, columns, rows, num_texts=4)


def _sizes(shape: ModelShape) -> str:
    """What parameters are counted for."""
    sensors, steps = count_of(shape.num_nodes, "sensor"), count_of(shape.input_steps, "step")
    return f"{sensors}, {steps} in, {shape.horizon} out"


def _layers_table(library: str) -> Table:
    """Without parameters: to count them, the library would have to be imported."""
    rows = [
        (name, entry.replacement or "-", entry.remark)
        for name, entry in MODELS.items()
        if entry.library == library
    ]
    return build_table(f"layers of {library}", ("model", "ours", "remark"), rows, num_texts=3)


def _options_table(name: str) -> Table:
    config = model_entry(name).config
    hints, texts = get_type_hints(config), short_texts(config)
    rows = []
    for each in fields(config):
        flag, text = (
            f"--model.{each.name.replace('_', '-')}",
            texts.get(each.name, ""),
        )
        meaning = text[:1].upper() + text[1:]
        rows.append((flag, _type_name(hints[each.name]), _shown(_default(each)), meaning))
    return build_table("", ("option", "type", "default", "meaning"), rows, num_texts=4)


def _shown(default: Any) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default) or '""'


def _type_name(hint: Any) -> str:
    """What a value of an option may be, in words."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(_type_name(each) for each in get_args(hint) if each is not NoneType)
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    return _TYPES.get(hint, getattr(hint, "__name__", str(hint)))
