"""Spans of OpenTelemetry from enqueue to run. Needs `dibs[otel]`; where spans go is the user's own SDK's matter.

    from dibs.otel import instrument

    app = Dibs()
    instrument(app)

The names follow OpenTelemetry's semantic conventions for messaging. The context travels in the message's headers, as
W3C `traceparent` and `tracestate`, on every broker; so it comes from, and goes to, programs in other languages too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from dibs.app import Dibs
from dibs.message import Message
from dibs.outcome import Retry
from dibs.run import Call

#: dibs' entry in `tracestate`: the span of the run before this one.
_OWN = "dibs"
_PROPAGATOR = TraceContextTextMapPropagator()


def instrument(app: Dibs, *, tracer_provider: TracerProvider | None = None) -> None:
    """Make spans of what `app` hands over and of what is run of it, here and in its workers.

    Args:
        app: the app; call this beside its definition, so that workers do too.
        tracer_provider: where spans go; else the global one, which may be set later.
    """
    app.tracing = Tracing(app, tracer_provider)


class Tracing:
    """Makes an app's spans."""

    def __init__(self, app: Dibs, provider: TracerProvider | None) -> None:
        self._app = app
        self._tracer: Tracer = trace.get_tracer("dibs", tracer_provider=provider)

    def send(self, messages: Sequence[Message], send: Callable[[Sequence[Message]], None]) -> None:
        """Hand messages over, each with a span that it carries along."""
        spans = [
            self._tracer.start_span(
                f"send {message.queue}", kind=SpanKind.PRODUCER, attributes=self._attributes(message, "send")
            )
            for message in messages
        ]
        try:
            send([_carrying(message, span) for message, span in zip(messages, spans, strict=True)])
        except BaseException as error:
            for span in spans:
                _fail(span, error)
            raise
        finally:
            for span in spans:
                span.end()

    def begin(self, call: Call) -> Call:
        """Return the call such that running it is a span, and a further attempt knows of it."""
        message = call.message
        headers = {name: value for name, value in message.headers.items() if isinstance(value, str)}
        sent = _PROPAGATOR.extract(headers)
        origin = trace.get_current_span(sent).get_span_context()
        span = self._tracer.start_span(
            f"process {message.queue}",
            context=sent,
            kind=SpanKind.CONSUMER,
            attributes={**self._attributes(message, "process"), "dibs.job.attempt": message.attempt},
            links=_former(origin),
        )
        run = _Run(span, is_private=message.is_private)
        function = run.around_coroutine(call.function) if call.is_async else run.around(call.function)
        return msgspec.structs.replace(call, function=function, message=_mark(message, origin, span))

    def _attributes(self, message: Message, operation: str) -> dict[str, str]:
        attributes = {
            "messaging.system": "rabbitmq" if self._app.url.startswith("amqp") else "dibs",
            "messaging.destination.name": message.queue,
            "messaging.message.id": message.id,
            "messaging.operation.name": operation,
            "messaging.operation.type": operation,
        }
        return attributes if message.task is None else {**attributes, "dibs.task": message.task}


def _carrying(message: Message, span: Span) -> Message:
    """Return the message with a span's context in its headers."""
    headers = dict(message.headers)
    _PROPAGATOR.inject(headers, trace.set_span_in_context(span))
    return msgspec.structs.replace(message, headers=headers)


def _former(origin: SpanContext) -> list[Link]:
    """Return a link to the run before this one."""
    try:
        span_id = int(origin.trace_state.get(_OWN, ""), 16)
    except ValueError:
        return []  # it is the first
    former = SpanContext(origin.trace_id, span_id, is_remote=True, trace_flags=origin.trace_flags)
    return [Link(former)] if former.is_valid else []


def _mark(message: Message, origin: SpanContext, span: Span) -> Message:
    """Return the message such that, should it come again, it tells of this run; its parent stays who sent it."""
    own = span.get_span_context()
    if not origin.is_valid or not own.is_valid or own.trace_id != origin.trace_id:
        return message
    state = origin.trace_state.delete(_OWN).add(_OWN, f"{own.span_id:016x}")
    return msgspec.structs.replace(message, headers={**message.headers, "tracestate": state.to_header()})


class _Run:
    """One run within its span."""

    def __init__(self, span: Span, *, is_private: bool) -> None:
        self._span = span
        self._is_private = is_private

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            with self._current():
                return function(*args, **kwargs)

        return run

    def around_coroutine(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            with self._current():
                return await function(*args, **kwargs)

        return run

    @contextmanager
    def _current(self) -> Iterator[None]:
        """Have the span be the current one while the task runs, and end with it."""
        span = self._span
        with trace.use_span(span, end_on_exit=True, record_exception=False, set_status_on_exception=False):
            try:
                yield
            except Retry as asked:  # a task's own word, and no error of it
                span.add_event("retry", {} if self._is_private else {"dibs.reason": str(asked)})
                raise
            except BaseException as error:
                _fail(span, error, is_private=self._is_private)
                raise


def _fail(span: Span, error: BaseException, *, is_private: bool = False) -> None:
    """Record an error on a span; of a private job's nothing but what kind it is."""
    name = type(error).__qualname__
    span.set_attribute("error.type", name)
    if is_private:
        span.set_status(Status(StatusCode.ERROR))
    else:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{name}: {error}"))
