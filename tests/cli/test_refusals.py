"""What the command line refuses: one clear line, exit code 2, and nothing written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pgti.cli.app import COMMANDS
from pgti.cli.main import run_command

TINY = ("--model.hidden", "2", "--model.layers", "1", "--windows.input-steps", "3",
        "--windows.horizon", "2", "--max-steps", "1")  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 4 sensors and 120 steps."""
    path = tmp_path_factory.mktemp("data") / "store"
    assert run("simulate", "--sensors", 4, "--steps", 120, "--out", path) == 0
    return path


@pytest.fixture(scope="module")
def trained(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on it."""
    path = tmp_path_factory.mktemp("runs") / "run"
    assert run("train", store, "--run", path, *TINY) == 0
    return path


def run(*tokens: object) -> int:
    return run_command([str(token) for token in tokens])


def tree(path: Path) -> dict[str, bytes]:
    """Every file below a directory and its content; directories have none."""
    return {
        str(inner.relative_to(path)): inner.read_bytes() if inner.is_file() else b""
        for inner in path.rglob("*")
    }


def check_refused(
    capsys: pytest.CaptureFixture[str], where: Path, message: str, *tokens: object
) -> None:
    """Check the exit code, the one line and that `where` is as it was."""
    before = tree(where)
    capsys.readouterr()
    assert run(*tokens) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1, captured.err
    assert lines[0].startswith("pgti: error: ")
    assert message in lines[0]
    assert tree(where) == before


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("Unknown option", ("--epoch", "3")),
        ("unable to convert", ("--epochs", "many")),
        ("epochs is 0", ("--epochs", "0")),
        ("learning_rate is -1.0", ("--learning-rate=-1",)),
        ("did you mean 'hidden'", ("--model.hiden", "4")),
        ("hidden is 0", ("--model.hidden", "0")),
        ("hidden is 'big'", ("--model.hidden", "big")),
        ("did you mean 'dcrnn'", ("--model", "dcrn")),
        ("horizon is 0", ("--windows.horizon", "0")),
        ("no training window", ("--windows.horizon", "500")),
        ("the val split has no window", ("--windows.fractions", "0.8,0,0.2")),
        ("add up to 0.9", ("--windows.fractions", "0.7,0.1,0.1")),
        ("val_from is soon", ("--windows.val-from", "soon")),
        ("'soon'", ("--windows.val-from", "soon", "--windows.test-from", "2025-01-06")),
        ("there is no channel 'flow'", ("--windows.targets", "flow")),
        ("calendar feature 'tide'", ("--windows.calendar", "tide")),
        ("there is no batching 'dask'", ("--batching", "dask")),
        (
            "order is blocks and placement is partitioned",
            ("--placement", "partitioned", "--order", "blocks"),
        ),
        (
            "batching is standard and placement is partitioned",
            ("--placement", "partitioned", "--batching", "standard"),
        ),
        ("the timeout is 0", ("--peer-timeout", "0")),
        ("rotation is 2.0", ("--order", "partitions", "--order.rotation", "2")),
        ("there is no device 'gpu7'", ("--device", "gpu7")),
        ("persistence' learns nothing", ("--model", "persistence")),
        (
            "without an offset",
            ("--windows.val-from", "2025-01-06T02:00Z", "--windows.test-from", "2025-01-06T04:00Z"),
        ),
        ("must be a time", ("--windows.val-from", "now", "--windows.test-from", "today")),
        ("milestones", ("--schedule", "multistep")),
        (
            "schedule.milestones goes with kind multistep, and schedule is cosine, which takes "
            "min_learning_rate",
            ("--schedule", "cosine", "--schedule.milestones", "2"),
        ),
        ("schedule is none", ("--schedule.milestones", "2")),
        ("loss.delta goes with kind huber", ("--loss.delta", "2")),
        ("leave it out, or use --loss quantile", ("--quantiles", "0.1,0.5,0.9")),
        ("Did you mean", ("--schedule", "stpe")),
        ("Did you mean --schedule.factor?", ("--schedule.factr", "0.5")),
        ("--config requires an argument", ("--config",)),
        ("nowhere.toml does not exist", ("--config", "nowhere.toml")),
    ],
)
def test_train_refuses(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    tokens: tuple[str, ...],
) -> None:
    """Each bad option is named with its value before anything is written."""
    check_refused(capsys, tmp_path, message, "train", store, "--run", tmp_path / "run", *tokens)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("not valid TOML", "epochs = = 3"),
        ("epochs is not an option", "epochs = 3"),
        ("training.epoch is not an option; did you mean 'epochs'?", "[training]\nepoch = 3"),
        ("training.run is not an option", '[training]\nrun = "elsewhere"'),
        ("training.epochs is 'many'", '[training]\nepochs = "many"'),
        ("training is 3: it must be a table", "training = 3"),
        ("training.schedule.kind is 'stpe'", '[training.schedule]\nkind = "stpe"'),
        (
            "training.schedule.factr is not an option; did you mean 'factor'?",
            '[training.schedule]\nkind = "multistep"\nfactr = 0.5',
        ),
        (
            "training.loss.delta goes with kind huber, and loss is mae",
            '[training.loss]\nkind = "mae"\ndelta = 2.0',
        ),
        ("inner is not an option of dcrnn", "[model.inner]\nhidden = 3"),
        ("did you mean 'hidden'", "[model]\nhiden = 3"),
    ],
)
def test_train_refuses_a_bad_file(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], message: str, text: str
) -> None:
    """A configuration file passes through the same checks as the command line."""
    config = tmp_path / "run.toml"
    config.write_text(text)
    check_refused(
        capsys, tmp_path, message, "train", store, "--run", tmp_path / "run", "--config", config
    )


HUGE = "0x" + "f" * 20_000  # Python refuses to write it as a decimal


@pytest.mark.parametrize(
    "text",
    [
        "[windows]\nfractions = [" + "1" * 5_000 + "]",
        *(f"{option} = {HUGE}" for option in ("device", "windows", "model", "training.epochs")),
        *(f"training.{option} = {HUGE}" for option in ("learning_rate", "loss", "seed")),
        f"windows.fractions = [{HUGE}]",
        f"model.name = {HUGE}",
        "model = 5",
        "model.name = 5",
        "windows.fractions = " + "[" * 5_000 + "]" * 5_000,
        "windows.fractions = " + "[" * 100 + "]" * 100,
        "a = " + "{b = " * 5_000 + "1" + "}" * 5_000,
        ".".join(["a"] * 5_000) + " = 1",
        ".".join(["model", *"a" * 900]) + " = 1",
        "[" + ".".join(["windows"] * 900) + "]",
        "#" * (2 << 20),
        "training.epochs = 1.9",
        "training.batch_size = 2.9",
        "training.epochs = inf",
        "training.learning_rate = 1e38",
        'device = "--help"',
    ],
    ids=lambda text: text[:24],
)
def test_a_hostile_file_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    """Numbers and levels without end, and values of another kind, in files of runs and spaces."""
    file = tmp_path / "options.toml"
    file.write_text(text)
    out = tmp_path / "out"
    check_refused(capsys, tmp_path, "", "train", store, "--run", out, "--config", file)
    check_refused(capsys, tmp_path, "", "tune", store, "--out", out, "--space", file)
    check_refused(capsys, tmp_path, "", "study", store, "--out", out, "--configs", file)


def test_only_a_file_is_read(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device has no end, and a pipe may never have a beginning."""
    pipe, out, readings = tmp_path / "pipe", tmp_path / "run", tmp_path / "readings.csv"
    readings.write_text("time,a\n2020-01-01,1\n2020-01-02,2\n")
    os.mkfifo(pipe)
    for kind, path in (("a device", "/dev/zero"), ("a pipe", pipe), ("a directory", tmp_path)):
        message = f"{path} is {kind}: give a file"
        before = sorted(tmp_path.iterdir())
        for command in (("train", store, "--run", out, "--config", path),
                        ("tune", store, "--out", out, "--space", path)):  # fmt: skip
            assert run(*command) == 2
            assert message in capsys.readouterr().err
        sources = () if kind == "a directory" else ((path,),)  # of which the files are read
        for command in ((readings, "--graph", path), (readings, "--static", path), *sources):
            assert run("ingest", *command, "--out", out) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert message in line
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("--epochs is 1.9: it must be a whole number", ("--epochs", "1.9")),
        ("--schedule.milestones is 2.5", ("--schedule.milestones", "1,2.5")),
        ("--val-windows is 3.0", ("--val-windows", "3.0")),
        ("batch_size is 100000000000000000000: it must be less than", ("--batch-size", 10**20)),
        ("accumulate is 100000000000000000000", ("--accumulate", 10**20)),
        ("patience is 1000", ("--patience", 10**30)),
        ("model.hidden is 1000", ("--model.hidden", 10**30)),
        ("model.layers is 1000000: it must be at most 1024", ("--model.layers", 10**6)),
        ("model.hidden is 9223372036854775807: it", ("--model.hidden", 2**63 - 1)),
        (
            "partitions is 1000000: it must be at most 65536",
            ("--order", "partitions", "--order.partitions", 10**6),
        ),
        ("windows.horizon is 1000", ("--windows.horizon", 10**30)),
        ("seed is 9223372036854775808: it must be less than 2**63", ("--seed", 2**63)),
        ("a number of 80000 bits", ("--seed", HUGE)),
        ("learning_rate is 1e+38: it must be at most 1e+30", ("--learning-rate", 1e38)),
        ("optimizer.epsilon is 1e+300", ("--optimizer.epsilon", 1e300)),
        ("loss.delta is 1e+300", ("--loss", "huber", "--loss.delta", 1e300)),
    ],
)
def test_numbers_that_mean_no_training_are_refused(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    tokens: tuple[object, ...],
) -> None:
    """Whole numbers are not rounded, and none is longer than machines count."""
    check_refused(capsys, tmp_path, message, "train", store, "--run", tmp_path / "run", *tokens)


def test_the_largest_numbers_train(store: Path, tmp_path: Path) -> None:
    """A batch has no more windows than there are; nothing is searched through, or allocated."""
    most = 2**63 - 1
    sizes = ("--batch-size", most, "--eval-batch-size", most, "--accumulate", most)
    assert run("train", store, "--run", tmp_path / "run", *TINY, *sizes) == 0


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_MAX_THREADS"])
@pytest.mark.parametrize("text", ["abc", "-1", "0", "4,2", "9" * 5_000, "1.5"])
def test_senseless_threads_are_refused(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    text: str,
) -> None:
    """Libraries answer them by a traceback of their import."""
    monkeypatch.setenv(name, text)
    check_refused(capsys, tmp_path, f"{name}={text[:40]!r}: it must be", "info", tmp_path)


def truncated(store: Path) -> None:
    series = store / "series.npy"
    series.write_bytes(series.read_bytes()[:-4])


def newer(store: Path) -> None:
    meta = store / "meta.json"
    meta.write_text(meta.read_text().replace('"format_version": 2', '"format_version": 7'))


@pytest.mark.parametrize(
    ("message", "damage"),
    [
        ("series.npy has", truncated),
        ("format version 7", newer),
        ("has no meta.json", lambda store: (store / "meta.json").unlink()),
        ("there is no such directory", shutil.rmtree),
    ],
)
@pytest.mark.parametrize("command", ["info", "train"])
def test_a_damaged_store_is_refused(
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    message: str,
    damage: Callable[[Path], None],
    command: str,
) -> None:
    """Whatever opens a store says what is wrong with it."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    damage(copy)
    extra = ("--run", tmp_path / "run") if command == "train" else ()
    check_refused(capsys, tmp_path, message, command, copy, *extra)


def test_a_run_is_not_overwritten(
    store: Path, trained: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Training into an existing run needs --resume, and then the same options."""
    check_refused(
        capsys, trained, "resume it with --resume", "train", store, "--run", trained, *TINY
    )
    check_refused(
        capsys, trained, "cannot be resumed", "train", store, "--run", trained, "--resume", *TINY,
        "--learning-rate", 0.5,
    )  # fmt: skip


def test_a_run_of_another_store_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run belongs to the store that it learnt from."""
    other = tmp_path / "other"
    assert run("simulate", "--sensors", 4, "--steps", 120, "--seed", 9, "--out", other) == 0
    message = "trained on the store with fingerprint"
    check_refused(capsys, trained, message, "train", other, "--run", trained, "--resume", *TINY)


def test_evaluate_refuses(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges, breakdowns and files that cannot be used."""
    for message, tokens in (
        ("e.xlsx: it must end in .csv or .parquet", ("--out", tmp_path / "e.xlsx")),
        ("absent does not exist", ("--out", tmp_path / "absent" / "e.csv")),
        ("they must be finite numbers that increase", ("--ranges", "50,30")),
        ("ranges name 'flow': the targets of this run are speed", ("--ranges", "flow=3")),
        ("mape_threshold is -1", ("--mape-threshold", -1)),
        ('"hours" for --by', ("--by", "hour,hours")),
    ):
        check_refused(capsys, tmp_path, message, "evaluate", trained, *tokens)
    others, hourly = tmp_path / "others.csv", tmp_path / "hourly.csv"
    for path, interval, names in ((others, "5min", "xyz"), (hourly, "1h", "012345")):
        times = pd.date_range("2025-03-01", periods=50, freq=interval, name="time")
        pd.DataFrame(50.5, index=times, columns=list(names)).to_csv(path)
    for path, message in ((others, "x, y, z"), (hourly, "hourly.csv")):
        store = path.with_suffix("")
        assert run("ingest", path, "--channels", "speed", "--out", store) == 0
        capsys.readouterr()
        for given in (("--readings", path), ("--store", store)):
            check_refused(capsys, tmp_path, message.split(".")[0], "evaluate", trained, *given)


def test_predict_refuses(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A format, a range or readings that cannot be used leave no file."""
    few = tmp_path / "few.npy"
    np.save(few, np.ones((2, 4)))
    others = tmp_path / "others.npy"
    np.save(others, np.ones((9, 5)))
    out = ("--out", tmp_path / "f.csv")
    for message, tokens in (
        ("f.xlsx", ("--out", tmp_path / "f.xlsx")),
        ("--from and --to go together", (*out, "--from", "2025-01-06")),
        ("no forecast can begin", (*out, "--from", "2031-01-06", "--to", "2031-01-07")),
        ("either a split or", (*out, "--split", "test", "--from", "2025", "--to", "2026")),
        ("too few", (*out, "--readings", few, "--start", "2025-02-01")),
        ("5", (*out, "--readings", others, "--start", "2025-02-01")),
        ("does not exist", ("--out", tmp_path / "no" / "f.csv")),
        ("give --readings", (*out, "--start", "2025-02-01")),
        ("must be a time", (*out, "--from", "2025-01-06", "--to", "soon")),
    ):
        check_refused(capsys, tmp_path, message, "predict", trained, *tokens)


def test_what_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Evaluating a directory that is not a run says so."""
    check_refused(capsys, tmp_path, "is not a run", "evaluate", tmp_path)
    check_refused(capsys, tmp_path, "is not a run", "evaluate", tmp_path / "absent")


def test_a_damaged_checkpoint_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A truncated checkpoint is one line, not a traceback."""
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    best = copy / "checkpoints" / "best.pt"
    best.write_bytes(best.read_bytes()[:100])
    check_refused(capsys, tmp_path, "best.pt", "evaluate", copy)


def test_simulate_refuses(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An existing target and impossible sizes are refused."""
    check_refused(capsys, store, "exists already", "simulate", "--out", store)
    check_refused(
        capsys, tmp_path, "sensors is 0", "simulate", "--sensors", 0, "--out", tmp_path / "s"
    )
    check_refused(
        capsys, tmp_path, "are free", "simulate", "--steps", 10**12, "--out", tmp_path / "s"
    )


def test_unknown_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A mistyped command is answered with the nearest one, and all of them."""
    check_refused(capsys, tmp_path, "there is no command 'trian'; did you mean 'train'?", "trian")
    everything = ", ".join(name for group in COMMANDS.values() for name in group)
    check_refused(capsys, tmp_path, f"The commands are {everything}", "frobnicate")


def test_a_flag_of_another_name_now(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for no in ("", "no-"):
        message = f"error: --windows.{no}profile is --windows.{no}climatology now: use that name"
        check_refused(capsys, tmp_path, message, "train", tmp_path, "--run", tmp_path / "r",
                      f"--windows.{no}profile")  # fmt: skip


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    """With --debug the error itself comes through."""
    from pgti.errors import StoreError  # noqa: PLC0415

    with pytest.raises(StoreError):
        run("info", tmp_path / "absent", "--debug")
