"""What a report says of the data and the training: missing readings, drift, curves, options."""

import shlex
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pgti.figures import heat_map, training_curves
from pgti.report import Missing, Panel, Section, Table
from pgti.run.reporting.compared import ComparedRun, options_of
from pgti.run.run import Run
from pgti.store.coverage import coverage

__all__ = ["configuration_section", "data_section", "training_section"]

_MAX_READ = 40_000_000  # readings; of longer series only every some rows are looked at


def data_section(first: ComparedRun) -> Section:
    """Missing readings over time, and inputs that drifted from those of training."""
    panels, missing = [], []
    if first.run.problem is None:
        panels.append(_coverage_panel(first.run))
    else:
        missing.append(
            Missing(
                text=f"Missing readings over time are not shown: {first.run.problem}.",
                command=f"pgti report {shlex.quote(str(first.run.directory.path))} --store STORE",
            )
        )
    notes = (
        []
        if first.report is None
        else [f"{note[0].upper()}{note[1:]}." for note in first.report.notes]
    )
    tables = [] if first.report is None or "drift" not in first.content else [_drift_table(first)]
    return Section(
        heading="Data", texts=notes, panels=panels, tables=tables, missing=missing, is_wide=True
    )


def _coverage_panel(run: Run) -> Panel:
    store = run.store
    num_steps, num_nodes, num_channels = store.meta.shape
    stride = -(-num_steps * num_nodes * num_channels // _MAX_READ)
    num_read = -(-num_steps // stride)

    def read(first: int, stop: int) -> NDArray[Any]:
        if stride == 1:
            return store.read(first, stop)
        rows = (store.read(row * stride, row * stride + 1) for row in range(first, stop))
        return np.concatenate(list(rows))

    rows, sensors, shares = coverage(
        read, (num_read, num_nodes, num_channels), max_times=200, max_sensors=120
    )
    store.release()
    rows = rows * stride
    axis = store.time_axis
    ids = store.meta.node_ids
    lacking = (100 * (1 - shares.T)).astype(np.float32)
    top = float(lacking.max())
    figure = heat_map(
        lacking,
        x=axis.at(rows).astype("datetime64[s]").astype(str).tolist() if axis.is_dated else rows,
        y=[ids[sensor] for sensor in sensors],
        label="missing readings in %",
        x_title=axis.title,
        y_title="sensor" if len(sensors) == num_nodes else "first sensor of a group",
        limits=(0.0, max(top, 1.0)),
    )
    if axis.is_dated:
        figure.update_xaxes(type="date", nticks=5, tickangle=None)  # turned if they do not fit
    _mark_splits(figure, run)
    looked = "" if stride == 1 else f" Every {stride:,}th row was looked at."
    return Panel(
        name="coverage",
        figure=figure,
        caption=f"Share of missing readings over time, {store.meta.missing_fraction:.2%} of all. "
        f"Dotted lines are where validation and test windows begin.{looked}",
    )


def _mark_splits(figure: Any, run: Run) -> None:
    axis, steps = run.store.time_axis, run.source.spec.input_steps
    for name in ("val", "test"):
        starts = run.splits.starts(name)
        if not len(starts):
            continue
        row = int(starts[0]) + steps
        place = axis.isoformat(row)[:19] if axis.is_dated else row
        figure.add_vline(x=place, line={"dash": "dot", "width": 1.5, "color": "#D55E00"})


def _drift_table(first: ComparedRun) -> Table:
    assert first.report is not None
    frame = first.report.drift
    rows = [
        (
            str(row["channel"]),
            f"{row['mean']:.4g}",
            f"{row['training_mean']:.4g}",
            f"{row['missing']:.2%}",
            f"{row['training_missing']:.2%}",
            f"{row['outside']:.2%}",
            f"{row['psi']:.2f}",
            f"{row['shift']:.2f}",
        )
        for row in frame.to_dict("records")
    ]
    return Table(
        caption="Inputs of the test windows beside those of training",
        columns=("channel", "mean", "in training", "missing", "in training", "outside the range",
                 "stability index", "shift in std"),
        rows=rows,
    )  # fmt: skip


def training_section(runs: Sequence[ComparedRun]) -> Section:
    """Validation errors by epoch, of one run beside its training loss."""
    panels, missing = [], []
    histories = {each.label: each.run.history for each in runs}
    histories = {label: frame for label, frame in histories.items() if len(frame)}
    if not histories:
        missing.append(Missing(text="The run has not been validated yet: it has no curves."))
    else:
        epochs = max(histories.values(), key=len)["epoch"].to_numpy(dtype=float)
        label = runs[0].label
        unit = next(iter(runs[0].run.source.target_units.values()))
        axis = f"validation MAE in {unit}" if unit else "validation MAE"
        best = None
        if len(histories) == 1:
            label, frame = next(iter(histories.items()))
            curves = {"validation": frame["val_mae"].to_numpy(dtype=float)}
            best = float(frame["epoch"][int(frame["val_mae"].argmin())])
        else:
            curves = {
                name: np.pad(
                    frame["val_mae"].to_numpy(dtype=float),
                    (0, len(epochs) - len(frame)),
                    constant_values=np.nan,
                )
                for name, frame in histories.items()
            }
        panels.append(
            Panel(
                name="training",
                figure=training_curves(epochs, curves, label=axis, best=best),
                caption="Validation MAE at the end of each epoch; the best epoch is the one whose "
                "parameters forecast.",
            )
        )
        if len(histories) == 1:
            loss = {"training": histories[label]["train_loss"].to_numpy(dtype=float)}
            panels.append(
                Panel(
                    name="loss",
                    figure=training_curves(epochs, loss, label="training loss"),
                    caption="Mean training loss of each epoch, in the scale of the loss.",
                )
            )
    return Section(heading="Training", panels=panels, missing=missing)


def _runs_table(runs: Sequence[ComparedRun]) -> Table:
    rows = [
        (each.label, str(each.run.directory.path), str(each.run.store.path),
         each.run.fingerprint[:12])
        for each in runs
    ]  # fmt: skip
    columns = ("run", "directory", "store", "fingerprint of the store")
    return Table(caption="Runs", columns=columns, rows=rows, num_texts=len(columns))


def configuration_section(runs: Sequence[ComparedRun]) -> Section:
    """Store, versions, options, and the commands that train and evaluate again."""
    first = runs[0].run
    info = first.directory.read_info()
    title, facts = first.describe()
    names = (
        "pgti",
        "torch",
        "numpy",
        "python",
        "platform",
        "device",
        "world_size",
        "started",
        "ended",
    )
    known = {
        "run": title.removeprefix("Run "), **facts,
        "fingerprint of the store": first.fingerprint,
        **{name: str(info[name]) for name in names if info.get(name) is not None},
    }  # fmt: skip
    options = {name: text for name, text in options_of(first).items() if text}
    place = shlex.quote(str(first.directory.path))
    config = shlex.quote(str(first.directory.config_file))
    store = shlex.quote(str(first.config.store))
    commands = [
        ("train again", f"pgti train {store} --config {config} --run NEW_RUN"),
        ("evaluate again", f"pgti evaluate {place} --by hour-of-week"),
        ("write this report", " ".join(
            ["pgti report", *(shlex.quote(str(each.run.directory.path)) for each in runs),
             "--out report.html"])),
    ]  # fmt: skip
    tables = [
        Table(caption="The run", columns=("fact", "value"), rows=list(known.items()), num_texts=2),
        Table(
            caption="Options",
            columns=("option", "value"),
            rows=list(options.items()),
            num_texts=2,
            is_folded=True,
        ),
        Table(caption="Commands", columns=("what", "command"), rows=commands, num_texts=2),
    ]
    if len(runs) > 1:
        tables.insert(0, _runs_table(runs))
    of_first = () if len(runs) == 1 else (f"Facts and options are those of {runs[0].label}.",)
    return Section(heading="Configuration", texts=of_first, tables=tables)
