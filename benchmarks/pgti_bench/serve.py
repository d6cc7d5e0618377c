"""Load a server of a run on loopback: latency, requests a second, and memory before and after.

`pgti serve` runs as a process of its own with one thread for arithmetic; this process asks it over
a few connections that stay open, each of which sends its next request when it has the answer. All
forms of requests are measured in turn, and again, so that what else the machine does meets all.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from rich.table import Table

import pgti
from pgti.cli.output import print_results
from pgti.errors import require_whole_number
from pgti.memory import pss_bytes
from pgti.run.results import Machine, to_json
from pgti.serve.arrow_streams import MEDIA_TYPE as ARROW
from pgti.serve.arrow_streams import write_stream
from pgti_bench.errors import BenchError
from pgti_bench.output import binary_size, finish
from pgti_bench.synthetic_stores import scratch_directory

__all__ = ["FormResult", "ServeResult", "measure_serve", "serve_command"]

_JSON = "application/json"
_ROUNDS = 5
_WARM = 50  # requests of each form before anything is measured
_START_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True, slots=True)
class FormResult:
    """What one form of requests took.

    Attributes:
        form: what a request brings and what it gets.
        requests: that were answered.
        request_bytes: of a body.
        answer_bytes: of a body.
        median_milliseconds: half of the requests were answered faster.
        slow_milliseconds: 99 of 100 were.
        per_second: requests answered a second.
    """

    form: str
    requests: int
    request_bytes: int
    answer_bytes: int
    median_milliseconds: float
    slow_milliseconds: float
    per_second: float


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeResult:
    """The result of `measure_serve`.

    Attributes:
        machine: where it was measured.
        model: that forecasts.
        sensors: N.
        connections: that ask at once.
        network_milliseconds: of the network alone, median, in this process with one thread.
        forms: of requests.
        requests: of all forms.
        pss_before_bytes: of the server after a few requests of each form.
        pss_after_bytes: after all of them.
    """

    machine: Machine
    model: str
    sensors: int
    connections: int
    network_milliseconds: float
    forms: tuple[FormResult, ...]
    requests: int
    pss_before_bytes: int | None
    pss_after_bytes: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class _Form:
    name: str
    body: bytes
    content_type: str = _JSON
    accept: str = _JSON
    query: str = ""

    def request(self, port: int) -> bytes:
        head = (
            f"POST /v1/forecast{self.query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
            f"Content-Type: {self.content_type}\r\nAccept: {self.accept}\r\n"
            f"Content-Length: {len(self.body)}\r\n\r\n"
        )
        return head.encode() + self.body


def measure_serve(run: Path, *, requests: int, connections: int) -> ServeResult:
    """Load a server of a run.

    Args:
        run: directory of the run; its store must be there.
        requests: of all forms together.
        connections: that ask at once.

    Raises:
        BenchError: if the server does not start, or answers with an error.
        ConfigError: if a number is less than 1.
        RunError: if there is no such run.
    """
    require_whole_number("requests", requests, 1)
    require_whole_number("connections", connections, 1)
    torch.set_num_threads(1)
    opened = pgti.Run.open(run)
    forms = _forms_of(opened)
    network = _time_network(opened)
    share = max(1, requests // (len(forms) * _ROUNDS))
    with _server(run, connections) as (process, port):
        load = [
            _Load(port, form, max(connections, min(_WARM, share)), connections) for form in forms
        ]
        for each in load:
            asyncio.run(each.ask())
        before = pss_bytes(process.pid)
        measured = [_Load(port, form, share, connections) for form in forms]
        for _ in range(_ROUNDS):
            for each in measured:
                asyncio.run(each.ask())
        after = pss_bytes(process.pid)
    return ServeResult(
        machine=Machine.here(),
        model=opened.config.model.name,
        sensors=opened.store.meta.num_nodes,
        connections=connections,
        network_milliseconds=network,
        forms=tuple(each.result() for each in measured),
        requests=sum(len(each.seconds) for each in measured),
        pss_before_bytes=before,
        pss_after_bytes=after,
    )


class _Load:
    """Requests of one form."""

    def __init__(self, port: int, form: _Form, requests: int, connections: int) -> None:
        self._port, self._form = port, form
        self._requests, self._connections = requests, connections
        self._left = 0
        self._answer_bytes = 0
        self._elapsed = 0.0
        self.seconds: list[float] = []

    async def ask(self) -> None:
        """Send the requests over all connections."""
        self._left = self._requests
        began = time.perf_counter()
        await asyncio.gather(*(self._connect() for _ in range(self._connections)))
        self._elapsed += time.perf_counter() - began

    def result(self) -> FormResult:
        median, slow = np.percentile(self.seconds, (50, 99)).tolist()
        return FormResult(
            form=self._form.name,
            requests=len(self.seconds),
            request_bytes=len(self._form.body),
            answer_bytes=self._answer_bytes,
            median_milliseconds=1e3 * median,
            slow_milliseconds=1e3 * slow,
            per_second=len(self.seconds) / self._elapsed,
        )

    async def _connect(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        request = self._form.request(self._port)
        while self._left > 0:
            self._left -= 1
            began = time.perf_counter()
            writer.write(request)
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
            length = re.search(r"content-length: (\d+)", head)
            body = await reader.readexactly(int(length[1]) if length else 0)
            if " 200 " not in head.partition("\r\n")[0]:
                raise BenchError(f"{self._form.name}: the server answered {body[:300]!r}")
            self.seconds.append(time.perf_counter() - began)
            self._answer_bytes = len(body)
        writer.close()
        await writer.wait_closed()


def _forms_of(run: pgti.Run) -> tuple[_Form, ...]:
    """The newest rows of the store in every form, and nothing."""
    store, meta = run.store, run.store.meta
    count = min(meta.num_steps, 2 * run.source.spec.input_steps)
    rows = np.arange(meta.num_steps - count, meta.num_steps)
    values = store.read(int(rows[0]), meta.num_steps).astype(np.float64)
    times = [store.time_axis.isoformat(int(row)) for row in rows]
    plain: Any = values.astype(object)
    plain[np.isnan(values)] = None
    grid = plain[..., 0] if meta.num_channels == 1 else plain
    table = {
        "times": times,
        "sensors": list(meta.node_ids),
        "channels": list(meta.channels),
        "values": grid.tolist(),
    }
    records = [
        {"time": time_, "sensor": sensor, "channel": channel, "value": plain[t, n, c]}
        for t, time_ in enumerate(times)
        for n, sensor in enumerate(meta.node_ids)
        for c, channel in enumerate(meta.channels)
    ]
    long: dict[str, Any] = {
        "time": np.repeat(times, meta.num_nodes),
        "sensor": np.tile(np.array(meta.node_ids), count),
    }
    long |= {name: values[..., c].ravel() for c, name in enumerate(meta.channels)}
    arrow = write_stream(pa.Table.from_pandas(pd.DataFrame(long), preserve_index=False))
    columns = "?layout=columns"
    return (
        _Form(name="nothing, columns", body=b"{}", query=columns),
        _Form(name="Arrow, Arrow", body=arrow, content_type=ARROW, accept=ARROW),
        _Form(name="table, columns", body=_encode({"readings": table}), query=columns),
        _Form(name="records, records", body=_encode({"readings": records})),
    )


def _encode(content: Any) -> bytes:
    return json.dumps(content).encode()


def _time_network(run: pgti.Run) -> float:
    """Milliseconds of the network in a forecast from the store, median of 30."""
    spent, began = list[float](), 0.0

    def begin(*_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    network = run.forecaster.network
    handles = [
        network.register_forward_pre_hook(begin),
        network.register_forward_hook(lambda *_: spent.append(time.perf_counter() - began)),
    ]
    for _ in range(33):
        run.forecast(log=lambda _: None)
    for handle in handles:
        handle.remove()
    return float(1e3 * np.median(spent[3:]))


@contextmanager
def _server(run: Path, connections: int) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    """A server on a free port, once it is ready."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    environment.pop("PGTI_SERVE_TOKEN", None)
    command = [sys.executable, "-m", "pgti", "serve", str(run), "--port", "0"]
    command += ["--max-waiting", str(4 * connections)]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            said: list[str] = []
            for line in process.stderr:
                said.append(line.strip())
                if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                    port = int(found[1])
                    _wait_until_ready(port)
                    yield process, port
                    return
            raise BenchError(f"the server did not start: {' '.join(said)}")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_until_ready(port: int) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz"):
                return
        except OSError:  # also an answer that it is not
            time.sleep(0.1)
    raise BenchError(f"the server was not ready within {_START_SECONDS:.0f} s")


def serve_command(
    *,
    run: Path | None = None,
    model: str = "stid",
    sensors: int = 207,
    requests: int = 10_000,
    connections: int = 4,
    workdir: Path | None = None,
    json: bool = False,
) -> None:
    """Load a server on loopback: latency, requests a second, and memory before and after.

    Args:
        run: Directory of a run to serve; by default one on a simulated store.
        model: Model of the simulated run; it trains for one step.
        sensors: Sensors of the simulated run.
        requests: Requests in all.
        connections: Connections that ask at once.
        workdir: Directory for temporary files.
        json: Print one JSON object on standard output, and no tables.
    """
    require_whole_number("sensors", sensors, 1)
    with scratch_directory(workdir) as scratch:
        directory = Path(scratch)
        if run is None:
            options = pgti.SimulationOptions(sensors=sensors, steps=2016)
            pgti.simulate(directory / "store", options)
            run = directory / "run"
            pgti.train(directory / "store", run, model=model, max_steps=1, progress=False)
        result = measure_serve(run, requests=requests, connections=connections)
    table = Table(
        title=f"{result.model} on {result.sensors:,} sensors, {connections} connections; the "
        f"network alone takes {result.network_milliseconds:.1f} ms",
        title_justify="left",
    )
    for name in ("request, answer", "requests", "body", "answer", "50% ms", "99% ms", "per s"):
        table.add_column(name, justify="left" if name.startswith("request,") else "right")
    for each in result.forms:
        table.add_row(
            each.form,
            f"{each.requests:,}",
            binary_size(each.request_bytes),
            binary_size(each.answer_bytes),
            f"{each.median_milliseconds:,.1f}",
            f"{each.slow_milliseconds:,.1f}",
            f"{each.per_second:,.1f}",
        )
    memory = Table(title="memory of the server (PSS)", title_justify="left")
    for name in ("requests", "before", "after"):
        memory.add_column(name, justify="right")
    memory.add_row(
        f"{result.requests:,}",
        binary_size(result.pss_before_bytes),
        binary_size(result.pss_after_bytes),
    )
    print_results(to_json(result), table, memory, as_json=json)
    finish("Serve", result.machine, ())
