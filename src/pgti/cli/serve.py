"""`pgti serve`: forecasts of a trained run over HTTP."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pgti.cli.output import log
from pgti.errors import Interrupted, MissingExtraError, require_whole_number

__all__ = ["serve_command"]


def serve_command(
    run: Path,
    /,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    intervals: Annotated[tuple[float, ...], Parameter(negative_iterable="empty-")] = (0.8, 0.95),
    max_body_mib: int = 16,
    max_readings: int = 1_000_000,
    timeout_seconds: float = 30.0,
    max_waiting: int = 16,
    store: Path | None = None,
    model: str | None = None,
    device: str | None = None,
) -> None:
    """Serve a trained run: forecasts over HTTP, metrics, and a dashboard.

    It stops at SIGTERM or SIGINT, once the requests that run are answered, and loads the run's best
    checkpoint anew when that changes.

    Args:
        run: Directory of the run.
        host: Name or address to listen on; any but loopback needs a token in PGTI_SERVE_TOKEN.
        port: Port to listen on; 0 takes a free one.
        intervals: Probabilities of conformal intervals that requests may ask for, which are
            calibrated on the validation windows.
        max_body_mib: Largest body of a request in MiB, also once it is decompressed.
        max_readings: Most readings of a request.
        timeout_seconds: Longest time of a request.
        max_waiting: Most requests for forecasts at once; others are told to come again.
        store: Path of the run's store, if it has moved; or of a store of newer readings.
        model: Your own network, MODULE:CLASS, if its module is in the current directory or has
            moved. By default pgti finds the run's network among installed modules.
        device: Compute device. By default the run's.
    """
    from pgti.cli.run_options import allow_own_module

    try:
        from pgti.serve.options import TOKEN_VARIABLE, ServeOptions
        from pgti.serve.server import serve_run
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pgti"):
            raise
        raise MissingExtraError(error.name, "serve") from None
    require_whole_number("max_body_mib", max_body_mib, 1)
    options = ServeOptions(
        host=host,
        port=port,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        intervals=intervals,
        max_body_bytes=max_body_mib << 20,
        max_readings=max_readings,
        timeout_seconds=timeout_seconds,
        max_waiting=max_waiting,
    )
    allow_own_module(model)
    number = serve_run(run, options, log, store=store, model=model, device=device)
    raise Interrupted("stopped, all requests are answered", number)
