"""`pgti bench`: measurements on the user's own machine, one sub-command each."""

import cyclopts

__all__ = ["bench_app"]


bench_app = cyclopts.App(
    name="bench",
    help="Measure memory and speed on this machine; step and loader in alternation with PGT "
    "too, where it is installed (make bench-pgt).",
)
for _name in ("memory", "loader", "step", "epoch", "scaling", "models", "equivalence"):
    bench_app.command(f"pgti.cli.bench_{_name}:bench_{_name}_command", name=_name)
bench_app.command("pgti.cli.bench_dry_run:bench_dry_run_command", name="dry-run")
