"""Processes that answer requests, and every way in which they fail to."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from pgti_bench import worker_loop
from pgti_bench.errors import BenchError
from pgti_bench.worker import Worker, thread_settings
from pgti_bench.worker_loop import peak_resident_bytes

WORKER_LOOP = Path(worker_loop.__file__)


def script(text: str) -> list[str]:
    return [sys.executable, "-I", "-c", text]


def serving_script(handlers: str) -> list[str]:
    """A process that serves `handlers`, and finds nothing but the standard library."""
    return script(
        "import importlib.util, os, sys\n"
        f"spec = importlib.util.spec_from_file_location('worker_loop', {str(WORKER_LOOP)!r})\n"
        "worker_loop = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(worker_loop)\n"
        f"worker_loop.serve({handlers})\n"
    )


def replying(text: str) -> list[str]:
    """A process that answers every request with the same line."""
    return script(f"import sys\nfor line in sys.stdin: print({text!r}, flush=True)")


def ask(command: list[str], **request: object) -> dict[str, Any]:
    with Worker(command, name="the peer") as worker:
        return worker.ask(**request)


def test_requests_are_answered_one_after_the_other() -> None:
    command = serving_script(
        "{'add': lambda a, b: {'sum': a + b}, 'pid': lambda: {'pid': os.getpid()}}"
    )
    with Worker(command, name="adder") as worker:
        assert worker.ask(do="add", a=1, b=2) == {"sum": 3}
        first, second = worker.ask(do="pid"), worker.ask(do="pid")
    assert first == second != {"pid": os.getpid()}


def test_what_a_handler_prints_is_no_reply() -> None:
    command = serving_script(
        "{'talk': lambda: (print('hello'), os.system('echo hi'), {'x': 1})[2]}"
    )
    assert ask(command, do="talk") == {"x": 1}


def test_an_error_is_told_and_the_process_goes_on() -> None:
    command = serving_script("{'fail': lambda: 1 / 0, 'work': lambda: {'x': 1}}")
    with Worker(command, name="the peer") as worker:
        with pytest.raises(
            BenchError, match="the peer failed: ZeroDivisionError: division by zero"
        ):
            worker.ask(do="fail")
        with pytest.raises(BenchError, match="the peer failed: KeyError: 'dance'"):
            worker.ask(do="dance")
        assert worker.ask(do="work") == {"x": 1}


def test_the_environment_reaches_the_process() -> None:
    command = serving_script("{'get': lambda: {'threads': os.environ['OMP_NUM_THREADS']}}")
    with Worker(command, thread_settings(3)) as worker:
        assert worker.ask(do="get") == {"threads": "3"}
    assert thread_settings(None) == {}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (script("import sys; sys.exit('no such library')"), "exit code 1: no such library"),
        (script("import os; os.kill(os.getpid(), 9)"), "signal 9.*memory ran out"),
        (script("import os; os.kill(os.getpid(), 15)"), r"was killed \(signal 15\)"),
        (replying("3"), "replied '3': expected a JSON object"),
        (replying("not json"), "replied 'not json': expected a JSON object"),
    ],
)
def test_a_process_that_does_not_answer_is_reported(command: list[str], message: str) -> None:
    with pytest.raises(BenchError, match=f"the peer .*{message}"):
        ask(command, do="work")


def test_a_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"cannot start the peer: .*nowhere is not a program"):
        ask([str(tmp_path / "nowhere")])
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF, but not really")
    broken.chmod(0o755)
    with pytest.raises(BenchError, match="cannot start the peer"):
        ask([str(broken)])


def test_asking_needs_a_running_process() -> None:
    with pytest.raises(BenchError, match="use a `with` statement"):
        Worker(script("")).ask(do="work")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_process_is_left_behind() -> None:
    """Whether the block ends well or not, and although this one ignores the end of its input."""
    command = serving_script("{'pid': lambda: {'pid': os.getpid()}}")
    with Worker(command) as worker:
        pid = worker.ask(do="pid")["pid"]
    assert not is_running(pid)
    stubborn = script(
        f"import signal, sys, time\nsignal.signal({signal.SIGTERM.value}, signal.SIG_IGN)\n"
        "import os\nsys.stdin.readline()\nprint('{\"pid\": %d}' % os.getpid(), flush=True)\n"
        "time.sleep(600)"
    )
    pids: list[int] = []

    def interrupted() -> None:
        with Worker(stubborn) as worker:
            pids.append(worker.ask(do="pid")["pid"])
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        interrupted()
    assert not is_running(pids[0])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc/self/status")
def test_the_peak_is_that_of_the_process() -> None:
    handlers = "{'peak': lambda: {'x': worker_loop.peak_resident_bytes()}, 'grow': grow}"
    # Written to, not only allocated: untouched pages take no memory.
    grow = "grow = lambda n: {'bytes': len(b'x' * n)}"
    command = serving_script(handlers)
    command[-1] = f"{grow}\n{command[-1]}"
    with Worker(command) as worker:
        first = worker.ask(do="peak")["x"]
        worker.ask(do="grow", n=64 << 20)
        assert worker.ask(do="peak")["x"] - first >= 60 << 20
    assert peak_resident_bytes() is not None
