"""Where a server listens, and what it grants a request."""

import ipaddress
from dataclasses import dataclass

from pgti.errors import ConfigError, option, require_whole_number
from pgti.forecasting.calibration import check_levels
from pgti.options import require_number

__all__ = ["TOKEN_VARIABLE", "ServeOptions", "is_loopback"]

TOKEN_VARIABLE = "PGTI_SERVE_TOKEN"
_MIN_TOKEN = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """Where a server listens, and what it grants a request.

    Attributes:
        host: name or address to listen on; any but loopback needs a token.
        port: to listen on; 0 takes a free one.
        token: that requests must bear; None grants everybody on this machine access.
        intervals: probabilities of the intervals that requests may ask for.
        max_body_bytes: of a request, also once it is decompressed.
        max_readings: of a request: rows x sensors x channels.
        timeout_seconds: from the beginning of a request to its answer.
        max_waiting: requests for forecasts at once, the one that is computed included.
        reload_seconds: between two looks at the run's best checkpoint.

    Raises:
        ConfigError: if a value breaks its rule, or another host than loopback has no token.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    intervals: tuple[float, ...] = (0.8, 0.95)
    max_body_bytes: int = 16 << 20
    max_readings: int = 1_000_000
    timeout_seconds: float = 30.0
    max_waiting: int = 16
    reload_seconds: float = 2.0

    def __post_init__(self) -> None:
        require_whole_number("port", self.port, 0)
        if self.port >= 1 << 16:
            raise ConfigError(f"port is {self.port}: it must be below {1 << 16}")
        for name in ("max_body_bytes", "max_readings", "max_waiting"):
            require_whole_number(name, getattr(self, name), 1)
        require_number("timeout_seconds", self.timeout_seconds, above_zero=True)
        require_number("reload_seconds", self.reload_seconds, above_zero=True)
        if self.intervals:
            object.__setattr__(self, "intervals", check_levels(self.intervals))
        self._check_access()

    def _check_access(self) -> None:
        if self.token is None:
            if not is_loopback(self.host):
                raise ConfigError(
                    f"host is {self.host!r}, which other machines reach: set a token in the "
                    f"variable {TOKEN_VARIABLE}, or listen on {option('host', '127.0.0.1')}"
                )
            return
        if len(self.token) < _MIN_TOKEN or not self.token.isascii() or " " in self.token:
            raise ConfigError(
                f"the token in {TOKEN_VARIABLE} has {len(self.token)} characters: it must have at "
                f"least {_MIN_TOKEN}, of ASCII and without spaces"
            )


def is_loopback(host: str) -> bool:
    """Whether a name or an address is that of this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
