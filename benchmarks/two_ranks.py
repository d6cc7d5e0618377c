"""What a second rank is worth and what it costs: an epoch on one rank and on two, in alternation.

    python benchmarks/two_ranks.py STORE --rounds 3
    python benchmarks/two_ranks.py STORE --memory

Each rank has one thread. With --memory a few steps are taken, and what is told is the private
memory of the ranks (pages that nobody else has) and how much of the series is in the page cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

OPTIONS = ["--val-windows", "64", "--seed", "0"]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    given, options = parser.parse_known_args()  # the rest goes to pgti train
    if given.memory:
        for ranks in (1, 2):
            tell_memory(given.store, ranks, options)
        return
    ratios = []
    for number in range(given.rounds):
        one, two = (seconds_of_epoch(given.store, ranks, options) for ranks in (1, 2))
        ratios.append(one / two)
        print(f"round {number + 1}: one rank {one:.1f} s, two {two:.1f} s: {ratios[-1]:.3f} times")
    print(
        f"median {statistics.median(ratios):.3f} times as fast on two ranks "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


def started(
    store: Path, run: Path, ranks: int, options: list[str]
) -> tuple[subprocess.Popen[bytes], Path]:
    """A training on so many ranks of one thread each."""
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
        *("--master-port", "29400", "-m", "pgti", "train", str(store), "--run-dir", str(run)),
        *("--epochs", "1", "--test-windows", "64", *OPTIONS, *options),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL), run


def seconds_of_epoch(store: Path, ranks: int, options: list[str]) -> float:
    """Seconds of the epoch's steps: neither start-up nor validation."""
    with tempfile.TemporaryDirectory() as directory:
        process, run = started(store, Path(directory) / "run", ranks, options)
        if process.wait() != 0:
            sys.exit(f"training on {ranks} ranks failed")
        lines = (run / "metrics.jsonl").read_text().splitlines()
    epoch = next(line for line in map(json.loads, lines) if line["kind"] == "epoch")
    return float(epoch["seconds"])


def tell_memory(store: Path, ranks: int, options: list[str]) -> None:
    """Print the most private memory of the ranks and the cached share of the series."""
    series = store / "series.npy"
    with tempfile.TemporaryDirectory() as directory:
        process, _ = started(store, Path(directory) / "run", ranks, options)
        most: dict[int, int] = {}
        done = threading.Event()

        def watch() -> None:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            while not done.wait(0.2):
                try:
                    found = [int(child) for child in children.read_text().split()]
                except OSError:
                    return
                for child in found:
                    most[child] = max(most.get(child, 0), private_bytes(child))

        watcher = threading.Thread(target=watch)
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
    if code != 0:
        sys.exit(f"training on {ranks} ranks failed")
    time.sleep(0.5)
    cached = subprocess.run(
        ["fincore", "--bytes", "--noheadings", "--output", "RES", str(series)],
        capture_output=True,
        text=True,
        check=True,
    )
    share = int(cached.stdout) / series.stat().st_size
    each = ", ".join(f"{value / 2**20:.0f} MiB" for value in most.values())
    print(
        f"{ranks} ranks: {sum(most.values()) / 2**20:.0f} MiB of private memory ({each}); "
        f"{share:.3f} of the series is in the page cache"
    )


def private_bytes(process: int) -> int:
    """Memory that no other process has mapped."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))


if __name__ == "__main__":
    main()
