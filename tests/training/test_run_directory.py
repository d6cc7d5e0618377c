"""The run directory: made whole, read by people, never overwritten."""

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pgti.errors import RunError
from pgti.training import RunDirectory


def make_run(path: Path) -> RunDirectory:
    """A new run."""
    return RunDirectory.create(
        path, config="[training]\nepochs = 2\n", info={"fingerprint": "abc", "num_parameters": 7}
    )


def test_a_new_run_tells_what_it_is(tmp_path: Path) -> None:
    """Options, versions and the caller's facts are there, and nothing else beside it."""
    run = make_run(tmp_path / "deep" / "run")

    assert tomllib.loads(run.read_config())["training"]["epochs"] == 2
    info = run.read_info()
    assert {"pgti", "torch", "numpy", "python", "platform", "started"} <= set(info)
    assert (info["fingerprint"], info["num_parameters"]) == ("abc", 7)
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["run"]
    assert RunDirectory.exists(tmp_path / "deep" / "run")


def test_facts_can_be_added(tmp_path: Path) -> None:
    """The rest stays."""
    run = make_run(tmp_path / "run")
    run.update_info(ended="2025-10-01T00:00:00+00:00")

    assert run.read_info()["ended"] == "2025-10-01T00:00:00+00:00"
    assert run.read_info()["fingerprint"] == "abc"


def test_an_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    """The error says how to go on."""
    make_run(tmp_path / "run")

    with pytest.raises(RunError, match=r"holds a run already.*resume=True"):
        make_run(tmp_path / "run")


def test_something_else_is_not_overwritten(tmp_path: Path) -> None:
    """A directory with files and a file are left alone; an empty directory serves."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    (tmp_path / "file").write_text("precious")
    (tmp_path / "empty").mkdir()

    for name in ("full", "file"):
        with pytest.raises(RunError, match="is not a run"):
            make_run(tmp_path / name)
    assert make_run(tmp_path / "empty").read_config()


def test_opening_what_is_not_a_run(tmp_path: Path) -> None:
    """A missing directory and one without a configuration are told apart."""
    with pytest.raises(RunError, match="no such directory"):
        RunDirectory.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no config\.toml"):
        RunDirectory.open(tmp_path)


def test_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    """Half-made runs beside a new one go, and half-written files at a resume."""
    leftover = tmp_path / f".run.tmp-{'0123' * 8}"
    leftover.mkdir()
    leftover.with_suffix(f"{leftover.suffix}.lock").touch()
    (leftover / "config.toml").write_text("")
    run = make_run(tmp_path / "run")
    half = run.last_checkpoint.parent / ".last.pt.partial"
    half.write_bytes(b"half")
    (run.path / ".run.json.partial").write_bytes(b"half")

    run.clean()

    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list(run.path.rglob(".*"))


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that cannot be filled is not there."""

    def full(descriptor: int) -> None:
        del descriptor
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        make_run(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_one_line(tmp_path: Path) -> None:
    """The name of a run cannot lie below a file."""
    (tmp_path / "file").write_text("")

    with pytest.raises(RunError, match="cannot be written") as caught:
        make_run(tmp_path / "file" / "run")
    assert "\n" not in str(caught.value)


def test_metrics_are_lines(tmp_path: Path) -> None:
    """Each line reads by itself; the length comes back, and cutting at it forgets the rest."""
    run = make_run(tmp_path / "run")
    first = run.append_metrics({"kind": "step", "epoch": 1, "step": 1})
    second = run.append_metrics({"kind": "step", "epoch": 1, "step": 2})

    assert run.read_metrics() == [
        {"kind": "step", "epoch": 1, "step": 1},
        {"kind": "step", "epoch": 1, "step": 2},
    ]
    assert run.metrics_file.stat().st_size == second
    run.truncate_metrics(first)
    assert run.read_metrics() == [{"kind": "step", "epoch": 1, "step": 1}]


def test_half_a_line_is_passed_over(tmp_path: Path) -> None:
    """A process killed while it wrote leaves one."""
    run = make_run(tmp_path / "run")
    run.append_metrics({"kind": "step", "epoch": 1, "step": 1})
    with run.metrics_file.open("a") as file:
        file.write('{"epo')

    assert run.read_metrics() == [{"kind": "step", "epoch": 1, "step": 1}]


def test_damaged_files_are_one_line(tmp_path: Path) -> None:
    """The error names the file."""
    run = make_run(tmp_path / "run")
    run.info_file.write_text('{"started": ')
    run.config_file.unlink()

    with pytest.raises(RunError, match=r"run\.json is damaged"):
        run.read_info()
    with pytest.raises(RunError, match=r"config\.toml cannot be read"):
        run.read_config()


def test_test_errors_are_json(tmp_path: Path) -> None:
    """Unobserved errors are null; NaN, which is no JSON, cannot be written."""
    run = make_run(tmp_path / "run")
    run.write_test({"mae": {"1": None, "mean": 2.5}})

    assert json.loads(run.test_file.read_text()) == {"mae": {"1": None, "mean": 2.5}}
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write_test({"mae": float("nan")})


def test_errors_of_other_parameters_are_forgotten(tmp_path: Path) -> None:
    """Whether there were any or not."""
    run = make_run(tmp_path / "run")
    run.write_test({"mae": {"mean": 2.5}})

    run.forget_test()
    run.forget_test()

    assert not run.test_file.exists()


# -- several processes ----------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from pgti.training import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("locked", flush=True)
    time.sleep(100)
"""


def test_one_process_trains_a_run(tmp_path: Path) -> None:
    """A second one is refused in one line, until the first is dead, however it died."""
    run = make_run(tmp_path / "run")
    command = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunError, match="trained by another process") as caught, run.locked():
            pass
        os.kill(holder.pid, signal.SIGKILL)
    assert "\n" not in str(caught.value)
    with run.locked():
        pass


def test_a_lock_ends_with_its_block(tmp_path: Path) -> None:
    """Training can be followed by training, in one process too."""
    run = make_run(tmp_path / "run")
    for _ in range(2):
        with run.locked(), pytest.raises(RunError, match="another process"), run.locked():
            pass


def test_of_two_that_create_a_run_one_succeeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other is refused in one line; neither removes the half-made run of the other."""
    rename = Path.rename

    def compete(partial: Path, target: Path) -> Path:
        monkeypatch.setattr(Path, "rename", rename)
        make_run(target)
        assert (partial / "config.toml").is_file()
        return rename(partial, target)

    monkeypatch.setattr(Path, "rename", compete)
    with pytest.raises(RunError, match="holds a run already"):
        make_run(tmp_path / "run")
    assert RunDirectory.open(tmp_path / "run").read_config()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_run_can_be_removed(tmp_path: Path) -> None:
    """With all that is in it, and twice."""
    run = make_run(tmp_path / "run")
    run.remove()
    run.remove()

    assert list(tmp_path.iterdir()) == []
