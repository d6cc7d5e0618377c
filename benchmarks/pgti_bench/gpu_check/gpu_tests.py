"""The tests that need a GPU."""

import subprocess
import sys
from pathlib import Path

import pgti_bench
from pgti_bench.gpu_check.setting import Setting

__all__ = ["check"]

_LIMIT_SECONDS = 75  # less than the part's, so that it says what failed until then
_PROCESSES = 4  # small models leave most of a GPU idle


def check(setting: Setting) -> None:
    """Run the tests with the marker `gpu`; in a rehearsal they are collected and skipped."""
    root = Path(pgti_bench.__file__).parents[2]
    if not (root / "tests").is_dir():
        setting.add("tests", message="left out: pgti_bench is not in a checkout, which has them")
        return
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-m",
        "gpu and not slow",
        "-p",
        "no:cacheprovider",
        "--session-timeout",
        str(_LIMIT_SECONDS),
    ]
    if setting.on_gpu:
        command += ["-n", str(_PROCESSES)]
    # Collecting the others would take longer than these tests.
    files = [
        str(path)
        for directory in ("tests", "benchmarks/tests")
        for path in sorted((root / directory).rglob("test_*.py"))
        if "mark.gpu" in path.read_text(encoding="utf-8")
    ]
    ended = subprocess.run(
        [*command, "--no-header", *files],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    lines = ended.stdout.strip().splitlines()
    summary = lines[-1].strip("= ") if lines else ended.stderr.strip()[-300:]
    failed = [line.strip("! ") for line in lines if "session-timeout" in line]
    failed += [line.split(" - ")[0] for line in lines if line.startswith(("FAILED", "ERROR"))]
    ran = "passed" in summary or not setting.on_gpu  # where all skip themselves, none was checked
    setting.add(
        "tests",
        passed=ended.returncode == 0 and ran,
        message="; ".join([summary, *failed[:5]]),
    )
