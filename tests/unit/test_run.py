"""One delivery, run: what each end of a run leads to."""

from __future__ import annotations

import asyncio
import functools
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from dibs import (
    Backoff,
    Bury,
    CurrentJob,
    Dead,
    Dibs,
    Done,
    Message,
    Outcome,
    Retry,
    RetryIn,
    UsageError,
    current_job,
)
from dibs.message import now_ms
from dibs.outcome import ERROR_BYTES, RESULT_BYTES
from dibs.run import Call, Runner, Unwatched


class Stage:
    """An app with one task, and a runner for its messages."""

    def __init__(self, *, unknown_task_limit: float = 3600.0) -> None:
        self.app = Dibs("memory://")
        self._limit = unknown_task_limit

    def run(self, message: Message) -> Outcome:
        begun = Runner(self.app.tasks, self.app.listeners, unknown_task_limit=self._limit).begin(message)
        if not isinstance(begun, Call):
            return begun
        return asyncio.run(begun.arun(Unwatched())) if begun.is_async else begun.run(Unwatched())

    def run_task(self, function: Callable[..., Any], *, attempt: int = 1, **options: Any) -> Outcome:
        """Register the function and run a job of it."""
        return self.run_message(function, attempt=attempt, **options)

    def run_message(self, function: Callable[..., Any], **fields: Any) -> Outcome:
        """The same, with other fields of the message or options of the task."""
        options = {name: fields.pop(name) for name in list(fields) if name not in Message.__struct_fields__}
        name = f"work-{len(self.app.tasks)}"
        self.app.task(name=name, **options)(function)
        return self.run(Message(**{"body": b"{}", "queue": "default", "id": "1", "task": name, **fields}))


@pytest.fixture
def stage() -> Stage:
    return Stage()


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def raising_later(error: BaseException) -> Callable[[], Any]:
    async def work() -> None:
        await asyncio.sleep(0)
        raise error

    return work


BOTH = pytest.mark.parametrize("make", [raising, raising_later])


def ended(outcome: Outcome) -> tuple[bytes | None, str | None]:
    """Return result and note of a job that is done."""
    assert isinstance(outcome, Done)
    return outcome.result, outcome.note


def test_what_a_task_returns_is_its_result_as_json(stage: Stage) -> None:
    assert ended(stage.run_task(lambda: {"a": (1, None)})) == (b'{"a":[1,null]}', None)


def test_what_a_coroutine_returns_is_its_result(stage: Stage) -> None:
    async def work() -> int:
        await asyncio.sleep(0)
        return 7

    assert ended(stage.run_task(work)) == (b"7", None)


@pytest.mark.parametrize("result", [object(), float("nan"), {(1, 2): 3}, print])
def test_a_result_without_a_json_form_is_no_reason_to_do_the_work_again(stage: Stage, result: Any) -> None:
    kept, note = ended(stage.run_task(lambda: result))

    assert kept is None
    assert "JSON" in (note or "")


def test_a_result_that_is_too_large_is_not_kept_and_its_note_says_how_it_begins(stage: Stage) -> None:
    largest = "x" * (RESULT_BYTES - 2)

    assert ended(stage.run_task(lambda: largest)) == (f'"{largest}"'.encode(), None)
    kept, note = ended(stage.run_message(lambda: f"\x1b{largest}", id="2"))

    assert kept is None
    assert note == (
        f"The result is not kept: {RESULT_BYTES + 6} bytes of JSON, where {RESULT_BYTES} are the most. "
        f'It begins: "\\u001b{"x" * 193}'
    )


@pytest.mark.parametrize("result", ["x" * RESULT_BYTES, {"secret": object()}])
def test_nothing_of_a_private_result_is_told(stage: Stage, result: Any) -> None:
    kept, note = ended(stage.run_message(lambda: result, is_private=True))

    assert kept is None
    assert note
    assert "xx" not in note
    assert "object" not in note


@BOTH
@pytest.mark.parametrize("retries", [0, 1])
def test_a_run_that_ends_is_told_with_its_times(stage: Stage, make: Any, retries: int) -> None:
    before = now_ms()

    outcomes = [stage.run_task(lambda: 1), stage.run_message(make(ValueError()), id="2", retries=retries)]

    for outcome in outcomes:
        assert isinstance(outcome, Done | RetryIn | Dead)
        assert outcome.run is not None
        assert before <= outcome.run.started <= outcome.run.ended <= now_ms()


def test_where_nothing_ran_no_run_is_told(stage: Stage) -> None:
    outcomes = [
        stage.run(Message(body=b"{}", queue="default", id="1", task="nosuch")),
        stage.run_message(lambda: None, expires=1),
        stage.run_message(lambda: None, id="2", body=b"no JSON"),
        stage.run_message(lambda: None, id="3", body=b'{"args": [1]}'),
    ]

    assert [type(outcome) for outcome in outcomes] == [RetryIn, Dead, Dead, Dead]
    assert all(outcome.run is None for outcome in outcomes if isinstance(outcome, RetryIn | Dead))


def test_a_plain_function_that_returns_a_coroutine_has_not_done_its_work(stage: Stage) -> None:
    async def hidden() -> None: ...

    @functools.wraps(hidden)
    def wrapper() -> Any:
        return hidden()

    outcome = stage.run_task(wrapper)

    assert isinstance(outcome, Dead)
    assert outcome.reason == "failed"
    assert "async def" in outcome.error


@BOTH
def test_a_failure_is_tried_again_after_its_backoff(stage: Stage, make: Any) -> None:
    backoff = Backoff(first=10, factor=3, limit=1000, jitter=False)

    outcome = stage.run_task(make(ValueError("boom")), attempt=2, backoff=backoff, retries=2)

    assert isinstance(outcome, RetryIn)
    assert outcome.delay == 30
    assert outcome.message.attempt == 3
    assert "ValueError: boom" in (outcome.message.error or "")


@BOTH
def test_the_last_attempts_failure_sets_aside(stage: Stage, make: Any) -> None:
    outcome = stage.run_task(make(ValueError("boom")), attempt=3, retries=2)

    assert isinstance(outcome, Dead)
    assert outcome.reason == "failed"
    assert outcome.error.rstrip().endswith("ValueError: boom")


def test_without_retries_a_task_runs_once(stage: Stage) -> None:
    assert isinstance(stage.run_task(raising(ValueError()), retries=0), Dead)


class Busy(Exception):
    pass


class VeryBusy(Busy):
    pass


@pytest.mark.parametrize(
    ("error", "fate"),
    [
        (Busy(), "retry"),
        (VeryBusy(), "retry"),
        (ValueError(), "failed"),
        (KeyError(), "buried"),
        (SystemExit(1), "failed"),
        (ExceptionGroup("", [Busy(), VeryBusy()]), "retry"),
        (ExceptionGroup("", [Busy(), ExceptionGroup("", [VeryBusy()])]), "retry"),
        (ExceptionGroup("", [Busy(), ValueError()]), "failed"),
        (ExceptionGroup("", [Busy(), ExceptionGroup("", [KeyError()])]), "buried"),
        (BaseExceptionGroup("", [ValueError(), Retry()]), "retry"),
        (BaseExceptionGroup("", [Retry(), BaseExceptionGroup("", [Bury()])]), "buried"),
        (BaseExceptionGroup("", [Retry(), KeyError()]), "buried"),
        (Retry(), "retry"),
        (Bury("gone"), "buried"),
    ],
    ids=repr,
)
@BOTH
def test_what_is_raised_decides_what_follows(stage: Stage, make: Any, error: BaseException, fate: str) -> None:
    outcome = stage.run_task(make(error), retry_on=Busy, bury_on=(KeyError,))

    assert (outcome.reason if isinstance(outcome, Dead) else "retry") == fate


def test_a_retry_says_when(stage: Stage) -> None:
    outcome = stage.run_task(raising(Retry("busy", delay=0)), backoff=Backoff(first=100))

    assert isinstance(outcome, RetryIn)
    assert outcome.delay == 0
    assert "busy" in (outcome.message.error or "")


def test_a_retry_counts_as_an_attempt_and_ends_like_one(stage: Stage) -> None:
    outcome = stage.run_task(raising(Retry(delay=1)), attempt=3, retries=2)

    assert isinstance(outcome, Dead)
    assert outcome.reason == "failed"


def test_signals_out_of_a_task_group_are_found(stage: Stage) -> None:
    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(raising_later(Retry(delay=7))())
            group.create_task(asyncio.sleep(60))

    outcome = stage.run_task(work)

    assert isinstance(outcome, RetryIn)
    assert outcome.delay == 7


def test_leaving_the_program_is_a_failure_of_the_task(stage: Stage) -> None:
    outcome = stage.run_task(lambda: sys.exit("enough"), retries=0)

    assert isinstance(outcome, Dead)
    assert "SystemExit: enough" in outcome.error


def test_an_interrupt_of_the_tasks_own_is_a_failure_unless_it_is_to_pass(stage: Stage) -> None:
    stage.app.task(name="work", retries=0)(raising(KeyboardInterrupt()))
    message = Message(body=b"{}", queue="default", id="1", task="work")
    call = Runner(stage.app.tasks, {}, unknown_task_limit=1).begin(message)
    assert isinstance(call, Call)

    assert isinstance(call.run(Unwatched()), Dead)
    with pytest.raises(KeyboardInterrupt):
        call.run(Unwatched(), passing=(KeyboardInterrupt,))


def test_waiting_for_something_cancelled_is_a_failure(stage: Stage) -> None:
    async def work() -> None:
        cancelled = asyncio.get_running_loop().create_future()
        cancelled.cancel()
        await cancelled

    outcome = stage.run_task(work)

    assert isinstance(outcome, RetryIn)


def test_a_run_that_is_cancelled_is_seen_cancelled(stage: Stage) -> None:
    stage.app.task(name="work")(lambda: asyncio.sleep(60))

    async def work() -> None:
        await asyncio.sleep(60)

    stage.app.task(name="long")(work)
    message = Message(body=b"{}", queue="default", id="1", task="long")
    call = Runner(stage.app.tasks, {}, unknown_task_limit=1).begin(message)
    assert isinstance(call, Call)

    async def cancel_it() -> None:
        running = asyncio.create_task(call.arun(Unwatched()))
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(cancel_it())


@BOTH
def test_an_error_text_has_the_tasks_frames_only(stage: Stage, make: Any) -> None:
    outcome = stage.run_task(make(ValueError("boom")), retries=0)

    assert isinstance(outcome, Dead)
    assert "in work" in outcome.error
    assert "dibs/run.py" not in outcome.error


def test_an_error_text_is_clipped(stage: Stage) -> None:
    outcome = stage.run_task(raising(ValueError("x" * 100_000)), retries=0)

    assert isinstance(outcome, Dead)
    assert len(outcome.error.encode()) <= ERROR_BYTES


def test_an_error_that_can_not_be_shown_is_an_outcome_too(stage: Stage) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    outcome = stage.run_task(raising(Mute("\ud800")), retries=0)

    assert isinstance(outcome, Dead)
    assert "Mute" in outcome.error


def test_an_expired_job_is_not_started(stage: Stage) -> None:
    ran: list[int] = []
    stage.app.task(name="work")(lambda: ran.append(1))

    late = stage.run(Message(body=b"{}", queue="default", id="1", task="work", expires=now_ms() - 1500))
    in_time = stage.run(Message(body=b"{}", queue="default", id="2", task="work", expires=now_ms() + 60_000))

    assert isinstance(late, Dead)
    assert (late.reason, "1.5 s" in late.error) == ("expired", True)
    assert isinstance(in_time, Done)
    assert ran == [1]


def test_an_unknown_task_waits_for_a_worker_that_knows_it(stage: Stage) -> None:
    first = stage.run(Message(body=b"{}", queue="default", id="1", task="nosuch", attempt=3))

    assert isinstance(first, RetryIn)
    assert first.delay == 1
    assert first.message.attempt == 3
    assert first.message.unknown_since is not None
    assert abs(first.message.unknown_since - now_ms()) < 10_000
    assert "'nosuch'" in (first.message.error or "")
    assert "module that defines it" in (first.message.error or "")


@pytest.mark.parametrize(("waited", "delay"), [(1, 1.0), (30, 15.0), (1000, 60.0)])
def test_an_unknown_task_is_tried_ever_more_seldom(stage: Stage, waited: int, delay: float) -> None:
    since = now_ms() - waited * 1000

    outcome = stage.run(Message(body=b"{}", queue="default", id="1", task="nosuch", unknown_since=since))

    assert isinstance(outcome, RetryIn)
    assert outcome.delay == pytest.approx(delay, abs=1)
    assert outcome.message.unknown_since == since


def test_a_task_that_stays_unknown_is_set_aside() -> None:
    stage = Stage(unknown_task_limit=5)
    since = now_ms() - 5000

    outcome = stage.run(Message(body=b"{}", queue="default", id="1", task="nosuch", unknown_since=since))

    assert isinstance(outcome, Dead)
    assert outcome.reason == "unknown-task"


def test_an_unknown_task_that_was_first_seen_in_the_future_does_not_wait_for_that(stage: Stage) -> None:
    outcome = stage.run(Message(body=b"{}", queue="default", id="1", task="nosuch", unknown_since=now_ms() + 10**12))

    assert isinstance(outcome, RetryIn)
    assert outcome.message.unknown_since is not None
    assert outcome.message.unknown_since <= now_ms()


def test_a_task_that_was_known_in_between_starts_its_wait_anew(stage: Stage) -> None:
    stage.app.task(name="work")(raising(ValueError()))

    outcome = stage.run(Message(body=b"{}", queue="default", id="1", task="work", unknown_since=1))

    assert isinstance(outcome, RetryIn)
    assert outcome.message.unknown_since is None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"Pune........", "unreadable"),
        (b'{"args": "a"}', "unreadable"),
        (b"\xff", "unreadable"),
        (b'{"args": ["x"]}', "bad-arguments"),
        (b'{"kwargs": {"other": 1}}', "bad-arguments"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_set_aside_with_its_reason(stage: Stage, body: bytes, reason: str) -> None:
    def work(number: int = 0) -> None: ...

    stage.app.task(name="work")(work)

    outcome = stage.run(Message(body=body, queue="default", id="1", task="work"))

    assert isinstance(outcome, Dead)
    assert outcome.reason == reason
    assert outcome.error


def test_a_plain_message_without_a_consumer_is_set_aside(stage: Stage) -> None:
    outcome = stage.run(Message(body=b"x", queue="plain", id="1"))

    assert isinstance(outcome, Dead)
    assert (outcome.reason, "'plain'" in outcome.error) == ("no-consumer", True)


def test_a_plain_message_goes_to_its_queues_consumer_as_it_came(stage: Stage) -> None:
    seen: list[Message] = []
    stage.app.consumer("plain")(seen.append)
    message = Message(body=b"\xff", queue="plain", id="1", headers={"a": 1})

    assert isinstance(stage.run(message), Done)

    assert seen == [message]


def test_a_failing_consumer_follows_its_own_policy(stage: Stage) -> None:
    @stage.app.consumer("plain", retries=0)
    async def listen(message: Message) -> None:
        raise ValueError(message.text)

    outcome = stage.run(Message(body=b"boom", queue="plain", id="1"))

    assert isinstance(outcome, Dead)
    assert "ValueError: boom" in outcome.error


def test_a_task_learns_of_its_job(stage: Stage) -> None:
    seen: list[CurrentJob] = []

    async def work() -> None:
        seen.append(current_job())
        seen.append(await asyncio.to_thread(current_job))

    stage.app.task(name="work")(work)

    stage.run(Message(body=b"{}", queue="mail", id="7", task="work", attempt=2, error="boom"))

    assert len(seen) == 2
    for job in seen:
        assert (job.id, job.task, job.queue, job.attempt, job.last_error) == ("7", "work", "mail", 2, "boom")


def test_outside_of_a_run_there_is_no_current_job(stage: Stage) -> None:
    assert isinstance(stage.run_task(lambda: None), Done)

    with pytest.raises(UsageError, match="inside a task"):
        current_job()


def test_runs_on_threads_do_not_see_each_others_job(stage: Stage) -> None:
    meeting = threading.Barrier(2, timeout=10)
    seen: dict[str, str] = {}

    def work(name: str) -> None:
        meeting.wait()
        seen[name] = current_job().id
        meeting.wait()

    stage.app.task(name="work")(work)
    messages = [Message(body=b'{"args": ["%d"]}' % n, queue="q", id=str(n), task="work") for n in (1, 2)]
    threads = [threading.Thread(target=stage.run, args=(message,)) for message in messages]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)

    assert seen == {"1": "1", "2": "2"}
