"""What the check found: as JSON, and as the tables that docs show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pgti.run.results import Machine

__all__ = ["Check", "Figure", "GpuCheckResult"]

Figure = float | int | str | bool | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that was checked or measured.

    Attributes:
        part: of the check, such as models.
        name: what it is.
        passed: whether what must hold held; None for a measurement.
        figures: numbers by name; names of times end in their unit.
        message: why it failed, or was left out.
    """

    part: str
    name: str
    passed: bool | None = None
    figures: Mapping[str, Figure] = field(default_factory=dict)
    message: str = ""

    @property
    def outcome(self) -> str:
        """As tables say it."""
        if self.passed is None:
            return "left out" if self.message and not self.figures else "measured"
        return "passed" if self.passed else "FAILED"


@dataclass(frozen=True, kw_only=True, slots=True)
class GpuCheckResult:
    """The whole check.

    Attributes:
        date: day on which it ran, ISO 8601.
        device: name of the GPU, or the CPU of a rehearsal.
        driver: version of the GPU's driver and of CUDA; empty in a rehearsal.
        is_rehearsal: whether it ran on a CPU, at sizes at which its times say nothing.
        machine: where it ran.
        seconds: of the whole check.
        checks: in the order in which they ran.
    """

    date: str
    device: str
    driver: str
    is_rehearsal: bool
    machine: Machine
    seconds: float
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """Checks that did not pass."""
        return tuple(check for check in self.checks if check.passed is False)

    def markdown(self) -> str:
        """A table of each part, below the date, the device and the versions."""
        versions = ", ".join(f"{name} {text}" for name, text in self.machine.versions.items())
        where = f"{self.device}{f' ({self.driver})' if self.driver else ''}"
        counts = [f"{len(self.checks) - len(self.failures)} of {len(self.checks)} without a fault"]
        lines = [f"{self.date}, {where}; {versions}; {self.seconds:,.0f} s; {counts[0]}."]
        if self.is_rehearsal:
            lines = [f"Rehearsal on a CPU: no figure is one of a GPU. {lines[0]}"]
        for part in dict.fromkeys(check.part for check in self.checks):
            lines += ["", f"### {part}", "", *_table([c for c in self.checks if c.part == part])]
        return "\n".join(lines) + "\n"


def _table(checks: Sequence[Check]) -> list[str]:
    rows = ["| check | outcome | figures |", "|---|---|---|"]
    for check in checks:
        known = {name: value for name, value in check.figures.items() if value is not None}
        figures = ", ".join(f"{name} {_text(value)}" for name, value in known.items())
        told = "; ".join(text for text in (figures, check.message) if text).replace("|", "/")
        rows.append(f"| {check.name} | {check.outcome} | {told} |")
    return rows


def _text(value: Figure) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
