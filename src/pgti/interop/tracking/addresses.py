"""Whether a server answers, asked before any work."""

from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit, urlunsplit
from urllib.request import Request, urlopen

from pgti.errors import ConfigError

__all__ = ["require_answer", "without_password"]

_SECONDS = 10.0


def require_answer(name: str, address: str, remedy: str) -> None:
    """Ask an address for anything; proxies of the environment count.

    Raises:
        ConfigError: if nobody answers there.
    """
    request = Request(without_password(address), method="GET")
    try:
        urlopen(request, timeout=_SECONDS).close()
    except HTTPError:
        return  # it answers, and refuses a page that it may not have
    except (URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ConfigError(
            f"{name} does not answer at {without_password(address)} ({reason}): {remedy}"
        ) from None


def without_password(address: str) -> str:
    """An address as it may be shown and kept."""
    if "@" not in address:
        return address
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
