"""`pgti models`: list and describe models."""

from pathlib import Path

from pgti.cli.flags import JsonFlag
from pgti.cli.output import print_results

__all__ = ["models_command"]


def models_command(
    name: str | None = None, /, *, store: Path | None = None, json: JsonFlag = False
) -> None:
    """List the models with their papers and sizes, or the options of one model.

    Args:
        name: Model whose options to list, also a network of your own, MODULE:CLASS.
        store: Count parameters for this store. By default for METR-LA: 207 sensors, 12 input steps
            and a horizon of 12.
    """
    from pgti.cli.model_tables import describe_model, list_models
    from pgti.cli.run_options import allow_own_module
    from pgti.store import SeriesStore

    opened = None if store is None else SeriesStore.open(store)
    allow_own_module(name)
    content, tables = list_models(opened) if name is None else describe_model(name, opened)
    print_results(content, *tables, as_json=json)
