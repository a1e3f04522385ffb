"""What buttons do: one table from a button's name to the change that it makes, and what is asked first."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from dibs.dashboard.page import BadQuery
from dibs.dashboard.pages.jobs import AGES
from dibs.dashboard.source import Source
from dibs.message import now_ms
from dibs.selection import Selection


class Form(NamedTuple):
    """What a form carried, by name. A letter is `queue<TAB>id`, as job ids are told apart in their queue alone."""

    fields: Mapping[str, Sequence[str]]

    def one(self, name: str) -> str:
        """Return a field that must be there.

        Raises:
            BadQuery: it is not.
        """
        values = self.fields.get(name) or [""]
        if not values[0]:
            raise BadQuery(f"The form lacks its {name!r}.")
        return values[0]

    def letters(self) -> dict[str, frozenset[str]]:
        """Return the letters that were ticked, by queue."""
        found: dict[str, set[str]] = {}
        for value in self.fields.get("letter", ()):
            queue, tab, job_id = value.partition("\t")
            if tab:
                found.setdefault(queue, set()).add(job_id)
        return {queue: frozenset(ids) for queue, ids in found.items()}

    def filtered(self) -> Selection:
        """Return those letters that the page's filters meant."""
        age = (self.fields.get("since") or [""])[0]
        return Selection(
            task=(self.fields.get("task") or [""])[0] or None,
            reason=(self.fields.get("reason") or [""])[0] or None,
            died_since=now_ms() - AGES[age] if age in AGES else None,
        )


class Action(NamedTuple):
    """One thing that a button does."""

    #: Does it, and returns how many it was done to.
    act: Callable[[Source, Form], int]
    #: What is said afterwards: of one, of none, of many.
    said: str
    #: What is asked before; None: nothing.
    question: Callable[[Form], str] | None = None
    #: The word on the button that does it.
    verb: str = ""


def _pause(source: Source, form: Form) -> int:
    source.pause(form.one("queue"))
    return 1


def _resume(source: Source, form: Form) -> int:
    source.resume(form.one("queue"))
    return 1


def _cancel(source: Source, form: Form) -> int:
    answers = source.cancel([form.one("id")])
    return sum(answer in {"cancelled", "requested"} for answer in answers.values())


def _replay(source: Source, form: Form) -> int:
    letters = form.letters()
    if not letters:
        raise BadQuery("No letter was ticked: tick those that are meant, and try again.")
    return sum(source.replay(queue, Selection(ids=ids)) for queue, ids in letters.items())


def _drop(source: Source, form: Form) -> int:
    letters = form.letters()
    if not letters:
        raise BadQuery("No letter was ticked: tick those that are meant, and try again.")
    return sum(source.drop(queue, Selection(ids=ids)) for queue, ids in letters.items())


def _replay_all(source: Source, form: Form) -> int:
    return sum(source.replay(queue, form.filtered()) for queue in _queues(source, form))


def _drop_all(source: Source, form: Form) -> int:
    return sum(source.drop(queue, form.filtered()) for queue in _queues(source, form))


def _queues(source: Source, form: Form) -> list[str]:
    """Return the queue that is meant, or all that have dead letters."""
    named = (form.fields.get("queue") or [""])[0]
    return [named] if named else [queue.name for queue in source.board().queues if queue.dead]


def _ticked(verb: str) -> Callable[[Form], str]:
    def ask(form: Form) -> str:
        count = sum(map(len, form.letters().values()))
        return f"{verb} {count} dead letter{'s' if count != 1 else ''}?"

    return ask


def _all_fitting(verb: str) -> Callable[[Form], str]:
    def ask(form: Form) -> str:
        selection, queue = form.filtered(), (form.fields.get("queue") or [""])[0]
        parts = [f"of queue {queue}" if queue else "of all queues"]
        if selection.task:
            parts.append(f"of task {selection.task}")
        if selection.reason:
            parts.append(f"with reason {selection.reason}")
        if selection.died_since:
            parts.append(f"that died in the last {(form.fields.get('since') or [''])[0]}")
        return f"{verb} every dead letter {', '.join(parts)}?"

    return ask


ACTIONS: Mapping[str, Action] = MappingProxyType(
    {
        "pause": Action(_pause, "Paused: nothing of this queue is started until it is resumed."),
        "resume": Action(_resume, "Resumed."),
        "purge": Action(
            lambda source, form: source.purge(form.one("queue")),
            "{n} waiting jobs deleted.",
            lambda form: f"Delete every job that waits in queue {form.one('queue')}, for good?",
            "Delete them",
        ),
        "cancel": Action(
            _cancel,
            "Cancelling was asked for; what was over before stays as it is.",
            lambda form: f"Cancel job {form.one('id')}?",
            "Cancel it",
        ),
        "replay": Action(_replay, "{n} put back into their queues."),
        "drop": Action(_drop, "{n} dropped.", _ticked("Drop"), "Drop them for good"),
        "replay-all": Action(
            _replay_all, "{n} put back into their queues.", _all_fitting("Put back"), "Put them back"
        ),
        "drop-all": Action(_drop_all, "{n} dropped.", _all_fitting("Drop"), "Drop them for good"),
    }
)


def said(did: str | None, count: str | None) -> str | None:
    """Return what is said of an action that was done; None where the address was made up."""
    action = ACTIONS.get(did or "")
    if action is None:
        return None
    return action.said.replace("{n}", count if count and count.isdecimal() and len(count) < 10 else "?")
