"""Who may look, and who may write: logins, sessions and proofs that a form came from a page of ours.

A session is a signed cookie, so any process that was given the same secret knows it, also after a restart. A form
carries the visitor's own random cookie, which no other site can read or set; a browser also says where it comes from.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from dibs.errors import BadOption

#: Seconds for which a login is good.
SESSION = 12 * 3600
_LEAST_TOKEN, _LEAST_PASSWORD = 16, 8


class Access:
    """What somebody has to know to look. Without a secret everybody may who can reach the dashboard.

    Args:
        token: a secret that lets in by itself.
        user: with a password, instead.
        password: theirs.

    Raises:
        BadOption: a secret is too short, or a user has no password.
    """

    def __init__(self, *, token: str | None = None, user: str | None = None, password: str | None = None) -> None:
        if token is not None and user is not None:
            raise BadOption("Give either a token, or a user and a password.")
        if (user is None) != (password is None):
            raise BadOption("A user and a password belong together: one of them is missing.")
        if token is not None and len(token) < _LEAST_TOKEN:
            raise BadOption(f"The token has {len(token)} characters; it needs {_LEAST_TOKEN} or more.")
        if password is not None and len(password) < _LEAST_PASSWORD:
            raise BadOption(f"The password has {len(password)} characters; it needs {_LEAST_PASSWORD} or more.")
        self.user = user
        self._secret = token if token is not None else password
        secret = f"{user or ''}\n{self._secret or ''}".encode()
        # Slow on purpose: whoever gets hold of a cookie must not find the password behind it by trying.
        self._key = hashlib.scrypt(secret, salt=b"dibs dashboard", n=2**14, r=8, p=1)

    @property
    def is_guarded(self) -> bool:
        """Whether something has to be known."""
        return self._secret is not None

    def knows(self, user: str, secret: str) -> bool:
        """Tell whether a login is right; takes the same time however wrong it is."""
        fits_user = _equal(user, self.user or "")
        return _equal(secret, self._secret or "") and (fits_user or self.user is None) and self.is_guarded

    def issue(self) -> str:
        """Return a new session."""
        body = f"{int(time.time()) + SESSION}.{secrets.token_hex(8)}"
        return f"{body}.{self._sign(body)}"

    def admits(self, session: str | None, authorization: str | None) -> bool:
        """Tell whether a request may look: by its cookie, or (for programs) by the token as its bearer."""
        if not self.is_guarded:
            return True
        if authorization is not None and self.user is None and authorization[:7].lower() == "bearer ":
            return self.knows("", authorization[7:].strip())
        body, _, signature = (session or "").rpartition(".")
        until = body.partition(".")[0]
        return _equal(signature, self._sign(body)) and until.isdecimal() and int(until) > time.time()

    def _sign(self, body: str) -> str:
        return hmac.new(self._key, body.encode("utf-8", "replace"), "sha256").hexdigest()


def refusal(headers: Mapping[str, str], visitor: str | None, token: str | None) -> str | None:
    """Return why a form is not to be believed; None: it came from a page of ours.

    Args:
        headers: the request's.
        visitor: its visitor cookie.
        token: what the form carried.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    if site in {"cross-site", "same-site"} or (origin is not None and urlsplit(origin).netloc != headers.get("host")):
        return "It came from another site's page."
    if not token:
        return "It carried no token."
    if not visitor or not _equal(token, visitor):
        return "Its token is out of date: the page is older than your present visit, or cookies are off."
    return None


def is_loopback(host: str) -> bool:
    """Tell whether a host, as a browser names it, is this machine itself."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    return name in {"localhost", "::1"} or (name.startswith("127.") and name.replace(".", "").isdecimal())


def _equal(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode("utf-8", "replace"), right.encode("utf-8", "replace"))
