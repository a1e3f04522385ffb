"""Where a worker is to be asked how it is: `9108`, `host:9108` or `[::1]:9108`."""

from __future__ import annotations

from dibs.errors import BadOption

_LOOPBACK = "127.0.0.1"


def read_address(text: str) -> tuple[str, int]:
    """Return host and port; without a host it is this machine alone that may ask.

    Raises:
        BadOption: there is no port, or none that there can be.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") if host.startswith("[") else host
    if not (port.isascii() and port.isdigit() and int(port) < 65536) or (":" in host) != text.startswith("["):
        raise BadOption(f"--metrics {text}: must be a port or host:port, such as 9108, 0.0.0.0:9108 or [::]:9108.")
    return host or _LOOPBACK, int(port)
