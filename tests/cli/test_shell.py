"""The command in a real shell: pipes, files, signals."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from pgti.cli.main import run_command

pytestmark = pytest.mark.skipif(os.name != "posix", reason="there is no POSIX shell")

TINY = ("--model", "linear", "--windows.input-steps", "3", "--windows.horizon", "2",
        "--max-steps", "2")  # fmt: skip
ENVIRONMENT = os.environ | {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "OMP_NUM_THREADS": "1",
}


def shell(line: str, where: Path) -> subprocess.CompletedProcess[str]:
    """Run a line in bash; any failing part of a pipe fails."""
    return subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=where,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def where(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a store and a run."""
    path = tmp_path_factory.mktemp("work")
    store, run = str(path / "store"), str(path / "run")
    assert run_command(["simulate", "--sensors", "4", "--steps", "120", "--out", store]) == 0
    assert run_command(["train", store, "--run", run, *TINY]) == 0
    return path


@pytest.mark.parametrize("command", ["pgti models", "pgti train --help", "pgti completion bash"])
def test_a_reader_may_go_away(command: str, where: Path) -> None:
    """`head` takes three lines of many: nothing is said, and nothing has failed."""
    done = shell(f"{command} | head -3", where)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 3


@pytest.mark.parametrize("command", ["pgti info store", "pgti --help"])
def test_a_reader_may_read_nothing(command: str, where: Path) -> None:
    done = shell(f"{command} | true", where)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_results_go_to_a_file(where: Path) -> None:
    """And to the next program; what the command says beside them does not."""
    done = shell("pgti evaluate run > table.txt", where)
    assert (done.returncode, done.stdout) == (0, "")
    lines = (where / "table.txt").read_text().splitlines()
    assert lines[0].startswith("linear on test (")
    assert [line.split()[:3] for line in lines[2:5]] == [
        ["linear", "MAE", "mph"], ["linear", "RMSE", "mph"], ["linear", "MAPE", "%"],
    ]  # fmt: skip


def test_json_is_alone(where: Path) -> None:
    """A program that reads one object takes what the command prints, whatever else is said."""
    options = " ".join(TINY)
    done = shell(f"pgti train store --run new {options} --json | python -m json.tool", where)
    assert done.returncode == 0
    assert json.loads(done.stdout)["run"] == "new"
    assert "pgti: memory: " in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error(where: Path) -> None:
    """The results are lost, so it is said; a closed output is what the user asked for."""
    done = shell("pgti info store > /dev/full", where)
    assert done.returncode == 2
    assert done.stderr == "pgti: error: [Errno 28] No space left on device\n"
    closed = shell("pgti info store >&-", where)
    assert (closed.returncode, closed.stderr) == (0, "")


def test_standard_error_may_be_closed(where: Path) -> None:
    """Work goes on if nobody reads what is said about it, as under `tee` that was stopped."""
    done = shell(f"pgti train store --run quiet {' '.join(TINY)} 2>&1 >/dev/null | true", where)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (where / "quiet/test.json").exists()


def test_a_message_is_whole_at_a_limit_of_files(where: Path) -> None:
    """A soft limit is what the user may exceed: the line that tells of it does."""
    done = shell("ulimit -S -f 1; yes . 2>/dev/null | head -c 1000 > errors; "
                 "pgti simulate --sensors 4 --steps 9000 --out big 2>>errors", where)  # fmt: skip
    assert done.returncode == 2
    (line,) = (where / "errors").read_text().removeprefix(".\n" * 500).splitlines()
    assert line == f"pgti: error: {where / 'big'} cannot be written: File too large"
    assert not (where / "big").exists()


def test_files_keep_clear_of_closed_outputs(where: Path) -> None:
    """What libraries write to standard error never lands in a file of the command."""
    code = """if 1:
        import os, sys
        from pgti.cli import main
        main.run_command = lambda _: os.open("opened", os.O_CREAT | os.O_WRONLY)
        main.main()
    """
    done = shell(f"python -c '{code}' <&- >&- 2>&-", where)
    assert done.returncode > 2


def test_a_closed_terminal_saves_the_state(where: Path) -> None:
    """The hang-up stops the training as SIGTERM does; nobody can be told."""
    pid, terminal = pty.fork()
    if not pid:  # pragma: no cover - another process
        options = (*TINY[:-2], "--epochs", "100000", "--checkpoint-every-steps", "0")
        command = ["pgti", "train", str(where / "store"), "--run", str(where / "hung-up"), *options]
        os.execvpe(command[0], command, ENVIRONMENT)
    shown = b""
    while b"epoch 3" not in shown:
        shown += os.read(terminal, 1 << 12)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    last = torch.load(where / "hung-up/checkpoints/last.pt", weights_only=True)
    assert last["position"]["step"] > 0


def catches(name: str) -> Callable[[int], bool]:
    """Whether a process has taken charge of a signal."""

    def is_caught(pid: int) -> bool:
        status = Path(f"/proc/{pid}/status").read_text()
        (mask,) = (line.split()[1] for line in status.splitlines() if line.startswith("SigCgt"))
        return bool(int(mask, 16) >> (signal.Signals[name] - 1) & 1)

    return is_caught


def maps(library: str) -> Callable[[int], bool]:
    """Whether a process has loaded a library."""
    return lambda pid: library in Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no /proc")
@pytest.mark.parametrize(
    ("name", "moment"),
    [
        ("SIGINT", catches("SIGTERM")),
        ("SIGINT", maps("_multiarray_umath")),
        ("SIGINT", maps("libtorch_python")),
        ("SIGTERM", maps("libtorch_python")),
    ],
)
def test_a_signal_is_one_line_at_any_moment(
    name: str, moment: Callable[[int], bool], where: Path
) -> None:
    """Also while libraries are imported, which takes most of the time of a short command."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pgti", "evaluate", "run"],
        cwd=where,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not moment(process.pid):
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.Signals[name])
        out, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.Signals[name]
    assert out == ""
    assert errors == ("pgti: stopped\n" if name == "SIGINT" else f"pgti: stopped by {name}\n")


def test_control_c_before_training_begins(
    where: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once everything is imported it is an exception, and nothing is left behind."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pgti.run.execute.prepare", interrupt)
    capsys.readouterr()
    tokens = ["train", str(where / "store"), "--run", str(where / "never"), *TINY]
    assert run_command(tokens) == 130
    assert capsys.readouterr() == ("", "pgti: stopped\n")
    assert not (where / "never").exists()
