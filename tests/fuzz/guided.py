"""Two readers under inputs that atheris chooses by the code that they reach.

    pip install atheris
    python -m tests.fuzz.guided pickle 60

An input that raises anything but a refusal is kept in build/fuzz.
"""

import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["pgti.ingestion"]):
    import pgti.ingestion.ingestion
    import pgti.ingestion.safe_pickle
    from pgti.errors import DataError, PgtiError

_ROWS = [f"2024-03-13 0{hour}:00:00,{hour}.5,{hour}" for hour in range(6)]
_TEXTS = (
    "\n".join(["time,a,b", *_ROWS]),
    "\n".join(row.replace(",", ";").replace(".", ",") for row in ["time,a,b", *_ROWS]),
    "time,sensor,value\n" + "".join(f"2024-03-13 0{i // 2}:00,{i % 2},{i}\n" for i in range(9)),
)
_MATRIX = (["a", "b"], {"a": 0, "b": 1}, [[0.5, 0.0], [1.0, 0.0]])
_SEEDS = {
    "pickle": [pickle.dumps(_MATRIX, protocol=protocol) for protocol in range(6)],
    "text": [text.encode() for text in _TEXTS],
}


def read_pickle(content: bytes) -> None:
    """Unpickle the content."""
    with suppress(DataError):
        pgti.ingestion.safe_pickle.loads_pickle(content, "a.pkl")


def read_text(directory: Path) -> Callable[[bytes], None]:
    """What reads the content as a table, into a directory."""
    path = directory / "a.csv"

    def read(content: bytes) -> None:
        path.write_bytes(content)
        with suppress(PgtiError):
            pgti.ingestion.ingestion.ingest(path, directory / "store", overwrite=True)

    return read


def main(reader: str, seconds: str) -> int:
    """Run until the time is over or an input fails, which ends a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pgti-guided-") as place:
        child = os.fork()
        if child == 0:
            _fuzz(reader, seconds, Path(place))
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _fuzz(reader: str, seconds: str, directory: Path) -> None:
    seeds, kept = directory / "seeds", Path("build/fuzz")
    seeds.mkdir()
    kept.mkdir(parents=True, exist_ok=True)
    for number, content in enumerate(_SEEDS[reader]):
        (seeds / str(number)).write_bytes(content)
    targets: dict[str, Any] = {"pickle": read_pickle, "text": read_text(directory)}
    options = (f"-max_total_time={seconds}", "-timeout=20", "-rss_limit_mb=2000",
               f"-artifact_prefix={kept}/guided-{reader}-")  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(seeds)], targets[reader])
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
