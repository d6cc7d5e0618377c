"""Recipes for clusters: commands that the parsers take, and a batch script that does as it says."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed.run import get_args_parser

from pgti.cli.app import build_app

ROOT = Path(__file__).parents[1]
GUIDE = ROOT / "docs/distributed.md"
SBATCH = ROOT / "examples/cluster/slurm.sbatch"
TRAINJOB = ROOT / "examples/cluster/trainjob.yaml"
LAUNCHERS = ("torchrun", "srun", "mpirun", "sbatch", "pgti")


def guide_commands() -> list[str]:
    """Every command line of the guide, continued lines joined."""
    text = re.sub(r"\$\w+", "1", GUIDE.read_text().replace("\\\n", ""))
    lines = (match.strip() for match in re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE))
    return [line for line in lines if line.split()[0] in LAUNCHERS]


def trainjob() -> dict[str, object]:
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")
    content: dict[str, object] = yaml.safe_load(TRAINJOB.read_text())
    return content


def check(tokens: list[str]) -> int:
    """Parse a launcher's options where Python can, and those of pgti; the commands of pgti found.

    `SystemExit` or an error of cyclopts' says what they do not take.
    """
    if tokens[0] == "torchrun":
        launched = get_args_parser().parse_args(tokens[1:])
        assert launched.module
        assert launched.training_script == "pgti"
        return check(["pgti", *launched.training_script_args])
    if "-c" in tokens:
        return check(shlex.split(tokens[tokens.index("-c") + 1]))
    if "pgti" in tokens:
        build_app().parse_args(
            tokens[tokens.index("pgti") + 1 :], exit_on_error=False, print_error=False
        )
        return 1
    return 0


def test_every_command_of_the_guide_is_one() -> None:
    commands = guide_commands()
    assert sum(check(shlex.split(command)) for command in commands) >= 12
    batches = [shlex.split(command) for command in commands if command.startswith("sbatch")]
    for batch in batches:
        script = batch.index("examples/cluster/slurm.sbatch")
        assert batch[script + 1 : script + 3] == ["STORE", "RUN"]
        check(["pgti", "train", "STORE", "--run", "RUN", *batch[script + 3 :]])
        # What comes before the script are options of sbatch that the script sets, too.
        set_there = {line.split()[1].partition("=")[0] for line in batch_options()}
        assert set(batch[1:script:2]) <= set_there
    assert len(batches) == 2


def batch_options() -> list[str]:
    """The lines of the script that Slurm reads."""
    return [line for line in SBATCH.read_text().splitlines() if line.startswith("#SBATCH ")]


@pytest.mark.parametrize(
    "command",
    ["torchrun --no-such -m pgti train STORE --run-dir RUN", "srun pgti train S --run R --no-such"],
)
def test_the_check_finds_what_there_is_not(command: str) -> None:
    with pytest.raises((SystemExit, Exception), match=r"2|no-such"):
        check(shlex.split(command))


def test_the_train_job_is_one_of_torchrun() -> None:
    spec = trainjob()["spec"]
    assert isinstance(spec, dict)
    assert spec["runtimeRef"] == {"name": "torch-distributed"}
    trainer = spec["trainer"]
    assert check(trainer["command"]) == 1
    assert trainer["numProcPerNode"] == int(trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"])
    (patch,) = spec["runtimePatches"]
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = job["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    paths = [token for token in trainer["command"] if token.startswith("/")]
    for path in paths:
        assert any(Path(path).is_relative_to(mount) for mount in mounts.values()), path


# -- the batch script, with an srun and a scontrol that only note what they were asked -------------

SRUN = """#!/bin/bash
echo "in ${VIRTUAL_ENV:-none}" >> "$NOTES"
echo "srun $*" >> "$NOTES"
trap 'sleep 0.3; echo "saved" >> "$NOTES"; exit 138' USR1
touch "$NOTES.begun"
while [ ! -e "$NOTES.end" ]; do sleep 0.05; done
exit "$(cat "$NOTES.end")"
"""
SCONTROL = """#!/bin/bash
echo "scontrol $*" >> "$NOTES"
"""


class Batch:
    """The script under a Slurm that is none."""

    def __init__(self, directory: Path) -> None:
        self.notes = directory / "notes"
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
            (directory / name).write_text(text)
            (directory / name).chmod(0o755)
        environment = os.environ | {
            "PATH": f"{directory}:{os.environ['PATH']}", "NOTES": f"{self.notes}",
            "SLURM_JOB_ID": "42", "SLURM_CPUS_PER_TASK": "8",
            "PGTI_ENV": f"{directory / 'environment'}",
        }  # fmt: skip
        activate = directory / "environment/bin/activate"
        activate.parent.mkdir(parents=True)
        activate.write_text(f"export VIRTUAL_ENV={directory / 'environment'}\n")
        command = ["bash", f"{SBATCH}", "STORE", "RUN", "--epochs", "3"]
        self.process = subprocess.Popen(command, env=environment)
        deadline = time.monotonic() + 60
        while not Path(f"{self.notes}.begun").exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    def end(self, code: int | None = None) -> list[str]:
        """Let srun end with this code; gives what was asked of Slurm."""
        if code is not None:
            Path(f"{self.notes}.end").write_text(f"{code}")
        self.process.wait(timeout=60)
        return self.notes.read_text().splitlines()


@pytest.fixture
def batch(tmp_path: Path) -> Iterator[Batch]:
    if shutil.which("bash") is None:
        pytest.skip("bash is not installed")
    running = Batch(tmp_path)
    yield running
    running.process.kill()
    running.process.wait()


def test_the_batch_script_queues_up_again_once_the_ranks_have_saved(batch: Batch) -> None:
    batch.process.send_signal(signal.SIGUSR1)
    activated, asked, *after = batch.end()
    assert activated == f"in {batch.notes.parent / 'environment'}"
    assert after == ["saved", "scontrol requeue 42"]
    assert batch.process.returncode == 138
    tokens = shlex.split(asked)
    assert "--cpus-per-task=8" in tokens
    assert check(tokens) == 1
    assert tokens[tokens.index("pgti") :] == [
        "pgti", "train", "STORE", "--run", "RUN", "--resume", "--epochs", "3",
    ]  # fmt: skip


@pytest.mark.parametrize("code", [0, 1])
def test_a_batch_that_ends_by_itself_does_not_queue_up_again(batch: Batch, code: int) -> None:
    (_, _) = batch.end(code)
    assert batch.process.returncode == code


def test_without_an_environment_the_batch_script_says_what_to_set(tmp_path: Path) -> None:
    environment = os.environ | {"PGTI_ENV": f"{tmp_path / 'nowhere'}"}
    command = ["bash", f"{SBATCH}", "STORE", "RUN"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        f"there is no virtual environment {tmp_path / 'nowhere'}: set PGTI_ENV to that of pgti\n"
    )


def test_the_batch_script_parses_and_has_its_options_first() -> None:
    subprocess.run(["bash", "-n", f"{SBATCH}"], check=True)
    lines, options = SBATCH.read_text().splitlines(), batch_options()
    first_command = next(n for n, line in enumerate(lines) if line and line[0] != "#")
    assert all(lines.index(option) < first_command for option in options)
    for wanted in ("--requeue", "--signal=B:USR1@120", "--open-mode=append"):
        assert f"#SBATCH {wanted}" in options
