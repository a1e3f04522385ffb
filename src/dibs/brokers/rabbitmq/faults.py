"""What goes wrong on a connection or a channel, told in dibs' errors. The one place that reads pika's."""

from __future__ import annotations

import re

from pika import exceptions

from dibs.errors import AccessRefused, BrokerError, BrokerUnavailable, QueueMismatch

# AMQP reply codes, as the server closes channels and connections with them.
ACCESS_REFUSED, NOT_FOUND, LOCKED, PRECONDITION_FAILED, NOT_IMPLEMENTED, INTERNAL_ERROR = 403, 404, 405, 406, 540, 541


def code_of(error: BaseException | None) -> int:
    """Return the AMQP reply code with which the server closed a channel or connection; 0 for all else."""
    if isinstance(error, exceptions.ChannelClosed | exceptions.ConnectionClosed):
        return int(error.reply_code)
    return 0


def text_of(error: BaseException | None) -> str:
    """Return what the server, or the operating system, said."""
    if isinstance(error, exceptions.ChannelClosed | exceptions.ConnectionClosed):
        return str(error.reply_text)
    return str(error) or type(error).__name__


def has_no_streams(error: BaseException) -> bool:
    """Tell whether the server closed a connection because it knows no streams, which no patience mends."""
    return code_of(error) == NOT_IMPLEMENTED or (
        code_of(error) == INTERNAL_ERROR and "feature flag" in text_of(error)
    )


def is_down(error: BaseException) -> bool:
    """Tell whether what was asked for is there, and the server has not brought it up (yet)."""
    text = text_of(error)
    if code_of(error) == PRECONDITION_FAILED:  # a stream
        return re.search(r"does not have a (running )?replica on the local node", text) is not None
    return code_of(error) == NOT_FOUND and "down or inaccessible" in text


def from_login(error: BaseException, location: str) -> BrokerError:
    """Translate why a connection could not be opened.

    pika wraps what it heard into text, more than once, so text is what there is to read.
    """
    text = repr(error)
    if "is down" in text:  # a virtual host that is still starting is refused like one that does not exist
        return BrokerUnavailable(f"{location} is still starting its virtual host.")
    if "ACCESS_REFUSED" in text:
        return AccessRefused(f"{location} refuses this user: unknown, wrong password, or not allowed from here.")
    if "NOT_ALLOWED" in text:
        return AccessRefused(f"{location} refuses the virtual host: it does not exist, or this user may not use it.")
    inner = re.findall(r"last exception - (.*?); first exception", text)
    said = inner[-1] if inner else text
    if system := re.search(r"\(-?\d+, ['\"](.*?)['\"]\)", said):  # an OSError: its own words are enough
        said = system[1]
    return BrokerUnavailable(f"{location} can't be reached: {said}. Does the server run there? Is the URL right?")


def from_channel(error: BaseException, location: str, doing: str) -> BrokerError:
    """Translate what closed a channel, or its connection, while `doing` something."""
    code, text = code_of(error), text_of(error)
    if code == ACCESS_REFUSED:
        return AccessRefused(f"{location} does not allow {doing}: {text}. Grant this user the permission.")
    if is_down(error):  # a classic queue lives on one node of its cluster
        return BrokerUnavailable(f"{location} can't serve {doing}: {text}. Start that node, or use quorum queues.")
    if code == NOT_FOUND:
        return BrokerError(f"{location} has nothing of that name for {doing}: {text}.")
    if code in {LOCKED, PRECONDITION_FAILED}:
        return QueueMismatch(f"{location} refuses {doing}: {text}.")
    return BrokerUnavailable(f"{location} was lost while {doing}: {text}.")
