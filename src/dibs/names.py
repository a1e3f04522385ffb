"""What names every broker can carry: of queues, tasks and jobs."""

from __future__ import annotations

from dibs.errors import BadName

#: Longest queue name in UTF-8 bytes: it is the last word of an AMQP routing key of 255 bytes, behind the
#: words of the delay levels.
QUEUE_NAME_BYTES = 180
#: Longest task name in UTF-8 bytes: an AMQP short string is 255 bytes long.
TASK_NAME_BYTES = 200
#: Longest job id in UTF-8 bytes.
ID_BYTES = 200
#: Set aside messages of queue `mail` stand in `mail.dead`, so no queue of the user's may end so.
DEAD_SUFFIX = ".dead"


def check_queue_name(name: str) -> str:
    """Return `name` if every broker can carry it.

    Raises:
        BadName: empty, over 180 bytes, with control characters, `*` or `#` (wildcards in AMQP routing keys),
            with an empty word (`a..b`), or reserved (`dibs`, `dibs.…`, `….dead`).
    """
    _check_name(name, "queue", QUEUE_NAME_BYTES)
    if any(sign in name for sign in "*#"):
        raise BadName(f"Queue name {name!r} contains '*' or '#', which AMQP reads as wildcards. Leave them out.")
    if "" in name.split("."):
        raise BadName(f"Queue name {name!r} begins or ends with a dot or has two in a row. Leave them out.")
    if name == "dibs" or name.startswith("dibs.") or name.endswith(DEAD_SUFFIX):
        raise BadName(
            f"Queue name {name!r} is reserved: 'dibs', names that begin with 'dibs.' and names that end with "
            f"'{DEAD_SUFFIX}' are dibs' own. Choose another one."
        )
    return name


def check_task_name(name: str) -> str:
    """Return `name` if every broker can carry it.

    Raises:
        BadName: empty, over 200 bytes or with control characters.
    """
    return _check_name(name, "task", TASK_NAME_BYTES)


def check_id(job_id: str) -> str:
    """Return `job_id` if every broker can carry it.

    Raises:
        BadName: empty, over 200 bytes or with control characters.
    """
    return _check_name(job_id, "job id", ID_BYTES)


def _check_name(name: str, what: str, limit: int) -> str:
    if not isinstance(name, str):
        raise BadName(f"A {what} name is a str, not {type(name).__name__}: {name!r}.")
    size = len(name.encode("utf-8", "surrogatepass"))
    if not name or size > limit:
        raise BadName(f"The {what} name {name[:40]!r} has {size} bytes; it must have 1 to {limit}.")
    if not name.isprintable():
        raise BadName(f"The {what} name {name!r} contains a control or other unprintable character. Leave it out.")
    return name
