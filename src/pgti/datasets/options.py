"""Choices for a data set."""

from dataclasses import dataclass
from typing import Literal, get_args

from pgti.errors import ConfigError

__all__ = ["FetchOptions", "Zeros"]

Zeros = Literal["missing", "observed"]


@dataclass(frozen=True, kw_only=True, slots=True)
class FetchOptions:
    """Choices for a data set.

    Attributes:
        zeros: Whether a zero in the first channel is a "missing" reading or an "observed" one.
            By default as the data set's description says.
        years: Years of LargeST, consecutive. By default 2019, as in its paper.
        interval: Time between steps of LargeST, 15min or 5min. By default 15min, as in its paper.
        overwrite: Replace an existing store, once the new one is complete.

    Raises:
        ConfigError: if a value cannot be used.
    """

    zeros: Zeros | None = None
    years: tuple[int, ...] = ()
    interval: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        if self.zeros not in (None, *get_args(Zeros)):
            raise ConfigError(
                f"zeros is {self.zeros!r}: it must be one of {', '.join(get_args(Zeros))}"
            )
