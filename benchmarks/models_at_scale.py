"""Every model on a graph as large as California's, in a memory limit where everything counts.

    python benchmarks/models_at_scale.py STORE --limit 4GiB --models all --table table.md

Each model trains two steps of two windows with its default options, validates and tests on two
windows, as `pgti train` in a control group of its own: its memory, page cache included, cannot pass
the limit. The first row of a command that was killed or refused says so.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from pgti.bench import Machine
from pgti.bench.limited_run import LimitedRun, run_limited
from pgti.bench.measured_commands import last_message, last_object
from pgti.memory.available import parse_bytes
from pgti.models import MODELS

BATCH_SIZE, STEPS, WINDOWS = 2, 2, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("--limit", default="4GiB")
    parser.add_argument("--models", default="all", help="names with commas, or all")
    parser.add_argument("--table", type=Path, help="write the table here too")
    options = parser.parse_args()
    limit = parse_bytes("limit", options.limit)
    names = sorted(MODELS) if options.models == "all" else options.models.split(",")
    lines = [
        "| model | parameters | peak PSS | peak of the group | checkpointed | s a step | |",
        "|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for name in names:
        lines.append(row(name, trained(name, options.store, limit)))
        print(lines[-1], flush=True)
    machine = Machine.here()
    print(f"{machine.cpu}, {machine.cores} cores, limit {options.limit}")
    if options.table is not None:
        options.table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def trained(name: str, store: Path, limit: int) -> LimitedRun:
    with tempfile.TemporaryDirectory(prefix="pgti-") as scratch:
        command = [sys.executable, "-m", "pgti", "train", str(store), "--model", name]
        command += ["--batch-size", str(BATCH_SIZE), "--max-steps", str(STEPS)]
        command += ["--val-windows", str(WINDOWS), "--test-windows", str(WINDOWS)]
        command += ["--memory-budget", str(limit), "--run", f"{scratch}/run", "--json"]
        return run_limited(command, limit)


def row(name: str, ended: LimitedRun) -> str:
    told = last_object(ended.output)
    failure = "done" if ended.exit_code == 0 else last_message(ended.messages)
    if ended.was_oom_killed:
        failure = "killed by its limit"
    if ended.no_limit_because:
        failure += f" (without a limit: {ended.no_limit_because})"
    seconds = "-"
    if told:
        seconds = f"{BATCH_SIZE / told['windows_per_second']:,.1f}"
    cells = [
        name,
        f"{told['parameters']:,}" if told else "-",
        size(ended.peak_pss_bytes),
        size(ended.group_peak_bytes),
        "yes" if "recompute on" in ended.messages else "no",
        seconds,
        failure,
    ]
    return "| " + " | ".join(cells) + " |"


def size(num_bytes: int | None) -> str:
    return "-" if num_bytes is None else f"{num_bytes / 2**30:.2f} GiB"


if __name__ == "__main__":
    main()
