"""Broker URLs: what is read, what is refused, and that no password is ever shown."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dibs.errors import BadURL
from dibs.url import check_options, mask, parse

SECRET = "s3cr3t"


@pytest.mark.parametrize(
    ("url", "hosts"),
    [
        ("amqp://host", (("host", None),)),
        ("amqp://host:5673", (("host", 5673),)),
        ("amqp://one,two:5673,three/v", (("one", None), ("two", 5673), ("three", None))),
        ("amqp://[::1]:5673", (("::1", 5673),)),
        ("amqp://[fe80::1%25eth0]", (("fe80::1%eth0", None),)),
        ("AMQP://host", (("host", None),)),
    ],
)
def test_hosts_are_read(url: str, hosts: tuple[tuple[str, int | None], ...]) -> None:
    assert parse(url).hosts == hosts


def test_user_password_and_virtual_host_are_percent_decoded() -> None:
    address = parse("amqps://us%40er:p%40s%2Fs%3Aw@host/v%2Fh%40st?heartbeat=5&empty=")

    assert (address.user, address.password, address.path) == ("us@er", "p@s/s:w", "v/h@st")
    assert address.options == {"heartbeat": "5", "empty": ""}


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:///dibs.db", "dibs.db"),
        ("sqlite:////srv/a b@c/dibs.db", "/srv/a b@c/dibs.db"),
        ("sqlite:///a%3Fb.db?share=1", "a?b.db"),
    ],
)
def test_a_database_file_is_read(url: str, path: str) -> None:
    assert parse(url).path == path


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", "begins with a scheme"),
        ("dibs.db", "begins with a scheme"),
        ("amqp:/host", "begins with a scheme"),
        ("ampq://host", "'ampq'"),
        ("postgres://host", "'postgres'"),
        ("sqlite://dibs.db", "four slashes"),
        ("sqlite:///", "no database file"),
        ("sqlite:///:memory:", "memory://"),
        ("amqp://", "no host"),
        ("amqp:///vhost", "no host"),
        ("amqp://u:p@host:port", "'host:port'"),
        ("amqp://host:", "can't be read"),
        ("amqp://host:0", "can't be read"),
        ("amqp://host:65536", "can't be read"),
        ("amqp://host:²", "can't be read"),
        ("amqp://::1", "for IPv6"),
        ("amqp://ho st", "can't be read"),
        ("amqp://host\n", "line break"),
    ],
)
def test_a_typo_is_named_and_the_forms_are_shown(url: str, shown: str) -> None:
    with pytest.raises(BadURL) as caught:
        parse(url)

    assert shown in str(caught.value)


@pytest.mark.parametrize("url", [None, 7, b"amqp://host"])
def test_what_is_no_text_is_no_url(url: Any) -> None:
    with pytest.raises(BadURL, match="is a str"):
        parse(url)


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://user:{SECRET}",
        f"amqp://user:{SECRET}/vhost",
        f"amqp://user:{SECRET}/more@host/vhost",
        f"amqp://user:12/{SECRET}@host/vhost",
        f"amqp://user:12?{SECRET}@host/vhost",
        f"amqp://user:p@12/{SECRET}@host/vhost",
        f"amqp://user:{SECRET}@host:port/vhost",
        f"amqp://user:{SECRET}@",
        f"amqp://user:{SECRET}@host\n",
        f"amqp://user:{SECRET} @:1",
        f"ampq://user:{SECRET}@host",
        f"user:{SECRET}@host://",
        f"amqp:user:{SECRET}@host",
        f"sqlite://user:{SECRET}@",
    ],
)
def test_no_error_shows_the_password(url: str) -> None:
    with pytest.raises(BadURL) as caught:
        parse(url)

    assert SECRET not in str(caught.value)


def test_an_unknown_option_is_named_unless_it_may_be_half_a_password() -> None:
    with pytest.raises(BadURL, match=r"'hartbeat'.*heartbeat"):
        check_options(parse("amqp://host?hartbeat=5"), {"heartbeat"})
    with pytest.raises(BadURL, match="unknown option") as caught:
        check_options(parse(f"amqp://u:p@1?{SECRET}-@x"), {"heartbeat"})
    assert SECRET not in str(caught.value)


@given(st.text(st.characters(codec="latin-1", exclude_categories=["C", "Z"], exclude_characters="/?"), min_size=8))
def test_an_address_never_shows_its_password(password: str) -> None:
    address = parse(f"amqp://user:{password}@host:5672/vhost")

    assert password not in repr(address)
    assert address.masked == "amqp://user:***@host:5672/vhost"


def test_a_masked_address_without_a_password_shows_all_but_the_query() -> None:
    assert parse("amqp://user@[::1]:1,two/v?a=b").masked == "amqp://user@[::1]:1,two/v"
    assert parse("sqlite:////srv/dibs.db?share=1").masked == "sqlite:////srv/dibs.db"


@pytest.mark.parametrize(
    "text",
    [
        f"app = Dibs('amqp://user:{SECRET}@host/v')",
        f'--url=amqp://user:{SECRET}@host and "amqps://:{SECRET}@other"',
        f"amqp://user:{SECRET}:with@signs@host",
        f"amqp://user:{SECRET}/slash@host",
    ],
)
def test_masking_a_text_leaves_no_password(text: str) -> None:
    masked = mask(text)

    assert SECRET not in masked
    assert "***" in masked


def test_masking_leaves_other_texts_alone() -> None:
    text = "See https://example.org/a:b and mail a@b: amqp://host:5672/v"

    assert mask(text) == text
