"""Broker URLs: read, checked, and shown without their password."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

import msgspec

from dibs.errors import BadURL

_FORMS = "sqlite:///file.db, sqlite:////absolute/file.db, amqp://user:password@host/vhost, amqps://… or memory://"


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """A broker URL in its parts, percent-decoded."""

    #: "sqlite", "amqp", "amqps" or "memory".
    scheme: str
    #: Host and port (None: the scheme's own) of each host, in the order given.
    hosts: tuple[tuple[str, int | None], ...] = ()
    user: str | None = None
    password: str | None = None
    #: What stands behind the slash after the hosts, without it; None where there is no slash.
    path: str | None = None
    #: The query.
    options: dict[str, str] = {}

    def __repr__(self) -> str:
        """Never shows the password."""
        return f"Address({self.masked!r})"

    @property
    def masked(self) -> str:
        """The URL for people: without the password and the query."""
        login = "" if self.user is None else f"{self.user}:***@" if self.password is not None else f"{self.user}@"
        hosts = ",".join(_show_host(host, port) for host, port in self.hosts)
        return f"{self.scheme}://{login}{hosts}" + ("" if self.path is None else f"/{self.path}")


def parse(url: str) -> Address:
    """Return the parts of a broker URL.

    Raises:
        BadURL: an unknown scheme or a part that can't be read. The text never shows the password.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        raise BadURL(f"A broker URL begins with a scheme, as in {_FORMS}; this one has none.")
    if scheme not in {"sqlite", "amqp", "amqps", "memory"}:
        raise BadURL(f"Unknown scheme {scheme!r} in the broker URL. dibs knows {_FORMS}.")
    rest, _, query = rest.partition("?")
    place, slash, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    user, colon, password = login.partition(":")
    address = Address(
        scheme=scheme,
        hosts=tuple(_read_host(host) for host in hosts.split(",") if host),
        user=unquote(user) if at else None,
        password=unquote(password) if colon else None,
        path=unquote(path) if slash else None,
        options=dict(parse_qsl(query, keep_blank_values=True)),
    )
    if scheme == "sqlite" and (address.hosts or not address.path):
        raise BadURL(
            f"{address.masked} names no database file. Write sqlite:///file.db (relative) or "
            "sqlite:////absolute/file.db (four slashes)."
        )
    if scheme in {"amqp", "amqps"} and not address.hosts:
        raise BadURL(f"{address.masked} names no host. Write {scheme}://user:password@host/vhost.")
    return address


def check_options(address: Address, known: set[str]) -> None:
    """Raise if the query has an option that the broker does not know.

    Raises:
        BadURL: names the option and those that there are.
    """
    for name in address.options.keys() - known:
        listed = ", ".join(sorted(known)) or "none"
        raise BadURL(f"{address.masked}: unknown option {name!r}. Options of {address.scheme} URLs: {listed}.")


def _read_host(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":") if not text.endswith("]") else (text, "", "")
    if not colon:
        host, port = text, ""
    if colon and not (port.isdigit() and 0 < int(port) < 65536):
        raise BadURL(f"The port {port!r} of host {host!r} in the broker URL is not a number from 1 to 65535.")
    return host.strip("[]"), int(port) if port else None


def _show_host(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
