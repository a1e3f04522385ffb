"""What a page is, and the address of one that somebody looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec

from dibs.dashboard.source import Source
from dibs.errors import UsageError

#: What a page's template is given.
Shown = dict[str, Any]


class Query(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What may stand in a page's address behind the question mark. Each page has its own."""

    def but(self, **changes: Any) -> str:
        """Return it as text for a link, with some of it changed."""
        fields = {**msgspec.to_builtins(self), **changes}
        given = {name: value for name, value in fields.items() if value not in (None, "", False)}
        return f"?{urlencode(given)}" if given else "?"


class Page(NamedTuple):
    """One of the pages."""

    path: str
    title: str
    #: As the bar at the top has it.
    short: str
    template: str
    query: type[Query]
    look: Callable[[Source, Any], Shown]


class BadQuery(UsageError):
    """An address asks for what there is not."""


def read_query(kind: type[Query], pairs: Iterable[tuple[str, str]]) -> Query:
    """Return what stands in an address. Fields of a form that were left empty count for nothing.

    Raises:
        BadQuery: it has a name or a value that this page does not know.
    """
    given: dict[str, str] = {}
    for name, value in pairs:
        if "\0" in value or not value.isprintable():
            raise BadQuery(f"The address has a control character in its {name!r:.40}.")
        if value.strip():
            given[name] = value.strip()
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadQuery(f"This address asks for what there is not: {error}.") from None
