"""Broker URLs: read, checked, and shown without their password."""

from __future__ import annotations

import re

import msgspec

from dibs.errors import BadURL

_FORMS = "sqlite:///file.db, sqlite:////absolute/file.db, amqp://user:password@host/vhost, amqps://… or memory://"

#: A login with a password, in a URL that stands in a text.
_LOGIN = re.compile(r"(?<=://)([^\s/:@'\"]*):[^\s'\"]*@")


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
    if not isinstance(url, str):
        raise BadURL(f"A broker URL is a str, not {type(url).__name__}. dibs knows {_FORMS}.")
    scheme, separator, rest = url.partition("://")
    scheme = scheme.lower()
    if not separator:
        raise BadURL(f"A broker URL begins with a scheme, as in {_FORMS}; this one has none.")
    if scheme not in {"sqlite", "amqp", "amqps", "memory"}:
        shown = f"scheme {scheme!r}" if re.fullmatch(r"[a-z0-9+.-]{1,20}", scheme) else "scheme"
        raise BadURL(f"Unknown {shown} in the broker URL. dibs knows {_FORMS}.")
    if not rest.isprintable():
        raise BadURL("The broker URL contains a line break or other control character. Leave it out.")
    rest, _, query = rest.partition("?")
    place, slash, path = rest.partition("/")
    login, at, hosts = place.rpartition("@")
    user, colon, password = login.partition(":")
    if scheme in {"amqp", "amqps"} and ("@" in path or ("@" in query and not at)):
        raise BadURL(
            "The broker URL has an '@' behind a '/' or '?', so nobody can tell where its password ends. In user, "
            "password and virtual host, write '@' as %40, '/' as %2F and '?' as %3F."
        )
    address = Address(
        scheme=scheme,
        hosts=tuple(_read_host(host, is_shown=bool(at)) for host in hosts.split(",") if host),
        user=_unquote(user) if at else None,
        password=_unquote(password) if colon else None,
        path=_unquote(path) if slash else None,
        options=_read_options(query) if query else {},
    )
    if scheme == "sqlite" and (address.hosts or not address.path):
        raise BadURL(
            f"{address.masked} names no database file. Write sqlite:///file.db (relative) or "
            "sqlite:////absolute/file.db (four slashes)."
        )
    if address.path == ":memory:":
        raise BadURL("An SQLite database in memory can't be a queue. For tests there is memory://.")
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
        shown = f" {name!r}" if re.fullmatch(r"\w{1,20}", name) else ""  # a '?' in a password is read as a query
        raise BadURL(f"{address.masked}: unknown option{shown}. Options of {address.scheme} URLs: {listed}.")


def mask(text: str) -> str:
    """Return a text with the password of each URL in it made unreadable."""
    return _LOGIN.sub(r"\1:***@", text)


def _unquote(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote  # noqa: PLC0415 -- takes 2 ms to import, and few URLs need it

    return unquote(text)


def _read_options(query: str) -> dict[str, str]:
    from urllib.parse import parse_qsl  # noqa: PLC0415

    return dict(parse_qsl(query, keep_blank_values=True))


def _read_host(text: str, *, is_shown: bool) -> tuple[str, int | None]:
    read = re.fullmatch(r"(\[[0-9A-Za-z:.%]+\]|[^\s:\[\]]+)(?::([0-9]{1,5}))?", text)
    port = int(read[2]) if read and read[2] else None
    if read is None or not (port is None or 0 < port < 65536):
        # Where there is no '@', it may be a user with the password, and the host forgotten.
        shown = f"The host {text!r}" if is_shown else "A host"
        raise BadURL(
            f"{shown} in the broker URL can't be read. Write host or host:port, the port from 1 to 65535, or "
            "[address] for IPv6; before it, user:password@ with '@' as %40, '/' as %2F and '?' as %3F."
        )
    return _unquote(read[1].strip("[]")), port


def _show_host(host: str, port: int | None) -> str:
    shown = f"[{host}]" if ":" in host else host
    return shown if port is None else f"{shown}:{port}"
