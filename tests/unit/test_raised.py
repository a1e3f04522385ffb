"""What was raised, read back from the text that was kept of it."""

from __future__ import annotations

import traceback
from collections.abc import Callable

import pytest

from dibs.outcome import ERROR_BYTES, clip_error
from dibs.raised import raised_in


class Own(Exception):
    """An exception of a program's own."""


def text_of(function: Callable[[], object]) -> str:
    """Return what an executor keeps of what this raises."""
    try:
        function()
    except Exception as error:  # noqa: BLE001 -- whatever it is
        return clip_error("".join(traceback.format_exception(error)))
    raise AssertionError("it raised nothing")


def chained() -> None:
    try:
        raise ValueError("first: one")
    except ValueError as error:
        raise KeyError("second") from error


def in_handler() -> None:
    try:
        raise ValueError("first")
    except ValueError:
        raise TypeError("second\nof: two lines") from None


def while_handling() -> None:
    try:
        raise ValueError("first")
    except ValueError:
        int("seven")


def group() -> None:
    raise ExceptionGroup("many\nfailed: all", [ValueError("one"), ExceptionGroup("inner", [OSError("two")])])


def after_group() -> None:
    try:
        group()
    except ExceptionGroup as error:
        raise Own("after a group") from error


def deep(level: int = 0) -> None:
    if level == 300:
        raise Own("at the bottom")
    other(level)


def other(level: int) -> None:
    deep(level + 1)


def raising(error: BaseException) -> Callable[[], object]:
    def function() -> None:
        raise error

    return function


def noted() -> None:
    error = Own("with")
    error.add_note("a note")
    raise error


QUOTING = "child failed:\nTraceback (most recent call last):\n  File 'x'\nOSError: inner"


@pytest.mark.parametrize(
    ("function", "name", "message"),
    [
        (raising(ValueError("boom")), "ValueError", "boom"),
        (raising(ValueError()), "ValueError", ""),
        (raising(ValueError("one\nKey: two\n\nThe end: three")), "ValueError", "one\nKey: two\n\nThe end: three"),
        (raising(RuntimeError(QUOTING)), "RuntimeError", QUOTING),
        (raising(Own("ours")), "Own", "ours"),
        (raising(KeyError("k")), "KeyError", "'k'"),
        (chained, "KeyError", "'second'"),
        (in_handler, "TypeError", "second\nof: two lines"),
        (while_handling, "ValueError", "invalid literal for int() with base 10: 'seven'"),
        (group, "ExceptionGroup", "many\nfailed: all (2 sub-exceptions)"),
        (after_group, "Own", "after a group"),
        (deep, "Own", "at the bottom"),
        (noted, "Own", "with\na note"),
        (lambda: exec("a b"), "SyntaxError", "invalid syntax"),
    ],
    ids=lambda value: value if isinstance(value, str) and value.isidentifier() else "",
)
def test_type_and_message_are_those_of_what_was_raised_last(
    function: Callable[[], object], name: str, message: str
) -> None:
    assert raised_in(text_of(function)) == (name, message)


def test_a_long_traceback_that_was_cut_has_them_still() -> None:
    text = text_of(deep)

    assert "bytes cut" in text
    assert raised_in(text) == ("Own", "at the bottom")


def test_of_a_message_that_was_cut_both_ends_are_there() -> None:
    name, message = raised_in(text_of(raising(Own("begin " + "x" * 2 * ERROR_BYTES + " end"))))

    assert name == "Own"
    assert message.startswith("begin x")
    assert message.endswith("x end")


def test_a_type_that_a_function_defined_has_its_own_name() -> None:
    class Local(Exception):
        pass

    assert raised_in(text_of(raising(Local("here")))) == ("Local", "here")


def test_what_was_never_raised_has_no_traceback_and_is_understood() -> None:
    text = "".join(traceback.format_exception(Own("judged")))

    assert raised_in(text) == ("Own", "judged")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Expired 3.2 s before a worker was free to start it.",
        "work is no coroutine function, but: it returned one",
    ],
)
def test_text_that_comes_of_no_exception_is_a_message_alone(text: str) -> None:
    assert raised_in(text) == ("", text)
