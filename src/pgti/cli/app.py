"""The command line as a cyclopts application: its commands, and how options are written."""

from importlib.metadata import version
from pathlib import Path
from typing import get_args, get_origin

from cyclopts import App, ArgumentCollection, Group, Parameter

from pgti.cli.flags import heading
from pgti.cli.output import OutputConsole, format_default
from pgti.errors import ConfigError

__all__ = ["COMMANDS", "build_app", "refuse_fractions", "split_lists"]

COMMANDS = {
    "Data": {
        "ingest": "Create a store from a file of readings and a graph.",
        "append": "Append newer readings to a store: the rows after its last one.",
        "fetch": "Create a store from a published data set; `pgti datasets` lists them.",
        "datasets": "List the data sets that `pgti fetch` can download, or describe one.",
        "simulate": "Create a store of simulated traffic speeds, in mph to one decimal.",
        "info": "Describe a store: its times, channels and graph, and what is missing.",
    },
    "Training": {
        "models": "List the models with their papers and sizes, or the options of one model.",
        "recipes": "List published recipes with their errors, or describe one.",
        "train": "Train a model and evaluate it on the test windows.",
        "backtest": "Backtest a model: forecast stretch after stretch, each from what came before.",
        "study": "Train several configurations with several seeds, and compare their test metrics.",
        "tune": "Search for the options of the lowest validation error, with Optuna.",
        "plan": "Compute what the ranks of a job would do in an epoch.",
    },
    "Forecasting": {
        "evaluate": "Evaluate a trained run: MAE, RMSE and MAPE in original units.",
        "predict": "Forecast with a trained run: past the end of the series, or a part of it.",
        "export": "Export a trained run to a file that forecasts without pgti: .pt2 (torch) or "
        ".onnx.",
        "report": "Write a report of runs: one HTML file that opens offline.",
        "serve": "Serve a trained run: forecasts over HTTP, metrics, and a dashboard.",
    },
    "Shell": {
        "completion": "Print the script with which a shell completes commands and options.",
    },
}
"""The commands by heading, each with the first line of its help: it is shown without an import."""


def build_app(command: str | None = None) -> App:
    """The application.

    Args:
        command: shown with its whole help, which its module holds; the others with one line.
    """
    app = App(
        name="pgti",
        help="Train and evaluate spatiotemporal graph neural networks on sensor series of any "
        "length: index-batching stores the series once and gathers windows from it.",
        version=version("pgti"),
        help_epilogue="Every command accepts --quiet, which prints results and errors alone, and "
        "--debug, which shows the traceback of an error.",
        config=(split_lists, refuse_fractions),
        console=OutputConsole(),
        default_parameter=Parameter(
            negative_iterable=(), negative_bool=(), show_default=format_default
        ),
        group_parameters=heading("Options"),
        suppress_keyboard_interrupt=False,
    )
    for number, (title, texts) in enumerate(COMMANDS.items()):
        group = Group(title, sort_key=number)
        for name, text in texts.items():
            short = None if name == command else text
            app.command(f"pgti.cli.{name}:{name}_command", name=name, help=short, group=group)
    return app


def split_lists(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Split the comma-separated values of every option that takes a list, but for paths."""
    del app, commands
    for argument in arguments:
        if get_origin(argument.hint) is tuple and Path not in get_args(argument.hint):
            argument.tokens = [
                token.evolve(value=part.strip(), index=index)
                for token in argument.tokens
                for index, part in enumerate(token.value.split(","))
            ]


def refuse_fractions(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Refuse a number with a point where a whole one belongs, which would be rounded.

    Raises:
        ConfigError: naming the option, its value and the rule.
    """
    del app, commands
    for argument in arguments:
        if argument.hint is int or int in get_args(argument.hint):
            for token in argument.tokens:
                if "." in token.value:
                    raise ConfigError(
                        f"{argument.name} is {token.value}: it must be a whole number"
                    )
