"""`pgti append`: add newer readings to a store."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.flags import JsonFlag, heading
from pgti.cli.info import log_store, store_facts
from pgti.cli.ingest_options import ReadingsFlags
from pgti.cli.output import log, print_results
from pgti.display import count_of
from pgti.errors import ConfigError

__all__ = ["append_command"]


def append_command(
    store: Path,
    readings: tuple[Path, ...] = (),
    /,
    *,
    future: Annotated[Path | None, Parameter(group=heading("Covariates"))] = None,
    correct: bool = False,
    options: Annotated[ReadingsFlags | None, Parameter(name="*")] = None,
    json: JsonFlag = False,
) -> None:
    """Append newer readings to a store: the rows after its last one.

    The file is read as the source of the store was, unless options say otherwise. Rows that the
    store has already are skipped if they are the same. Whoever has the store open is
    not disturbed, and a process that is killed leaves the store as it was, or complete.

    Args:
        store: The store that grows.
        readings: File of readings, or several.
        future: File of values known in advance after the last reading, such as a weather forecast.
        correct: Replace rows of the store that have other readings here.
        options: How to read the file, where not as before.
    """
    from pgti.ingestion.appending import append_rows
    from pgti.ingestion.newer.recall import given_options
    from pgti.store import SeriesStore

    opened = SeriesStore.open(store, verify_up_to_bytes=0)
    if not readings and future is None:
        raise ConfigError("there is nothing to append: give a file of readings, or --future")
    given = given_options(options)
    rows = append_rows(
        opened, list(readings) or None, given, future=future, correct=correct, log=log
    )
    log_store(rows.store)
    log(
        f"{count_of(rows.num_appended, 'row')} appended, {rows.num_skipped:,} skipped, "
        f"{rows.num_corrected:,} corrected"
    )
    content = {
        **store_facts(rows.store),
        "appended": rows.num_appended,
        "skipped": rows.num_skipped,
        "corrected": rows.num_corrected,
        "absent": list(rows.absent),
        "extra": list(rows.extra),
        "notes": list(rows.store.notes),
    }
    print_results(content, as_json=json)
