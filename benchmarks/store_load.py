"""What ranks that watch each other ask of the job's key-value store, simulated on this machine.

    python benchmarks/store_load.py

One process serves the store, as torchrun or rank 0 does. For each number of ranks, another process
makes the requests of one second of all of them, and the table has the seconds that this takes: the
store of a real job is busy for about as long. At more than one second it falls behind.

`every rank reads all` is what pgti 0.1 does where ranks wait for one another, five times a
second; `waiting` and `training` are what this version does.
"""

import json
import statistics
import time
from collections.abc import Callable
from datetime import timedelta
from multiprocessing import get_context
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event

from torch._C._distributed_c10d import TCPStore

STATE = json.dumps([1000, 100000, False, None, "", 0, ""])
RANKS = (8, 128, 512, 1024)
POLLS_A_SECOND = 1000


def serve(ports: "Queue[int]", done: Event) -> None:
    """Serve the store until all is measured."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    ports.put(store.port)
    done.wait()


def seconds_of(store: TCPStore, ranks: int) -> tuple[float, float, float]:
    """Of a second's requests: where all read all while they wait; waiting; training."""
    keys = [f"{ranks}/{rank}" for rank in range(ranks)]
    for key in keys:
        store.set(key, STATE)

    def time_of(request: Callable[..., object], *arguments: object) -> float:
        seconds = []
        for _ in range(50):
            began = time.perf_counter()
            request(*arguments)
            seconds.append(time.perf_counter() - began)
        return statistics.median(seconds)

    writing, reading_all = time_of(store.set, keys[0], STATE), time_of(store.multi_get, keys)
    training = ranks * (writing + time_of(store.multi_get, keys[:1])) + reading_all
    polling = min(5 * ranks, POLLS_A_SECOND) * time_of(store.check, [f"{ranks}/all"])
    return ranks * (writing + 5 * reading_all), training + polling, training


def main() -> None:
    """Measure and print."""
    context = get_context("spawn")
    ports: Queue[int] = context.Queue()
    done = context.Event()
    server = context.Process(target=serve, args=(ports, done))
    server.start()
    store = TCPStore("127.0.0.1", ports.get(), is_master=False, timeout=timedelta(seconds=60))
    print("seconds of requests a second")
    print(f"{'ranks':>6} {'every rank reads all':>22} {'waiting':>10} {'training':>10}")
    for ranks in RANKS:
        before, waiting, training = seconds_of(store, ranks)
        print(f"{ranks:>6} {before:>22.3f} {waiting:>10.3f} {training:>10.3f}")
    done.set()
    server.join()


if __name__ == "__main__":
    main()
