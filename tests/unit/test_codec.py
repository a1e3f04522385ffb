"""Arguments as JSON: what fits, what is refused, and that each refusal names the parameter."""

from __future__ import annotations

import datetime as dt
import enum
import functools
import json
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from dibs import codec
from dibs.codec import Signature, Unreadable
from dibs.errors import BadArguments, BadTask
from tests.ids import stable

if TYPE_CHECKING:
    from collections import OrderedDict


class Colour(enum.Enum):
    RED = "red"


@dataclass
class Point:
    x: int
    y: int = 0


class Size(TypedDict):
    width: int


class Pair(NamedTuple):
    left: int
    right: str


class Struct(msgspec.Struct):
    a: int


class Model(BaseModel):
    name: str
    when: dt.date


class Stubborn:
    """A type that msgspec knows nothing of."""


class Explosive(msgspec.Struct):
    """A type whose own validation raises what nobody expects."""

    number: int

    def __post_init__(self) -> None:
        raise ZeroDivisionError("boom")


def resize(path: str, width: int = 800) -> None: ...


def anything(value: Any) -> None: ...


def point(value: Point) -> None: ...


def instant(value: dt.datetime) -> None: ...


def day(value: dt.date) -> None: ...


def span(value: dt.timedelta) -> None: ...


def unique(value: uuid.UUID) -> None: ...


def decimal(value: Decimal) -> None: ...


def colour(value: Colour) -> None: ...


def size(value: Size) -> None: ...


def pair(value: Pair) -> None: ...


def struct(value: Struct) -> None: ...


def model(value: Model) -> None: ...


def models(value: dict[str, list[Model]]) -> None: ...


def raw(value: bytes) -> None: ...


def by_number(value: dict[int, str]) -> None: ...


def numbers(value: frozenset[int]) -> None: ...


def maybe(value: int | None) -> None: ...


def choice(value: Literal["a", "b"]) -> None: ...


def bounded(value: Annotated[int, msgspec.Meta(ge=1)]) -> None: ...


def signature(function: Callable[..., Any]) -> Signature:
    return Signature(function, function.__name__)


def there_and_back(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    made = signature(function)
    return made.decode(made.encode(args, kwargs))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (point, Point(1, 2)),
        (instant, dt.datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=dt.UTC)),
        (day, dt.date(2026, 1, 2)),
        (span, dt.timedelta(days=1, microseconds=5)),
        (unique, uuid.UUID(int=7)),
        (decimal, Decimal("1.10")),
        (colour, Colour.RED),
        (size, {"width": 3}),
        (pair, Pair(1, "a")),
        (struct, Struct(1)),
        (model, Model(name="x", when=dt.date(2026, 1, 2))),
        (models, {"a": [Model(name="x", when=dt.date(2026, 1, 2))]}),
        (raw, b"\x00\xff"),
        (by_number, {1: "a", -2: "b"}),
        (numbers, frozenset({1, 2})),
        (maybe, None),
        (choice, "a"),
        (bounded, 1),
        (anything, {"deep": [1, 2.5, None, True, "ü\0"]}),
        (anything, 2**70),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_value_comes_back_as_its_annotation_says(function: Callable[..., Any], value: Any) -> None:
    args, kwargs = there_and_back(function, value)

    assert (args, kwargs) == ([value], {})
    assert type(args[0]) is type(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_any_json_value_comes_back_as_it_was(value: Any) -> None:
    args, _ = there_and_back(anything, value)

    assert args == [value]


def test_the_body_is_plain_json_that_other_languages_can_write() -> None:
    body = signature(resize).encode(("a.png",), {"width": 200})

    assert json.loads(body) == {"args": ["a.png", 200], "kwargs": {}}


def test_defaults_are_the_workers_own() -> None:
    body = signature(resize).encode(("a.png",), {})

    assert json.loads(body) == {"args": ["a.png"], "kwargs": {}}
    assert signature(resize).decode(body) == (["a.png"], {})


def test_positional_only_and_keyword_only_parameters_are_told_apart() -> None:
    def function(first: int, /, second: int, *, third: int) -> None: ...

    assert there_and_back(function, 1, second=2, third=3) == ([1, 2], {"third": 3})
    with pytest.raises(BadArguments, match="'first'"):
        signature(function).encode((), {"first": 1, "second": 2, "third": 3})
    with pytest.raises(BadArguments, match="positional"):
        signature(function).encode((1, 2, 3), {})
    with pytest.raises(BadArguments, match="'third'"):
        signature(function).encode((1, 2), {})
    with pytest.raises(BadArguments, match="'third'"):
        signature(function).decode(b'{"args": [1, 2]}')


def test_rest_and_other_keywords_take_their_annotation_each() -> None:
    def function(first: int, *rest: Point, **others: Decimal) -> None: ...

    args, kwargs = there_and_back(function, 1, Point(1), Point(2), a=Decimal("1.5"), first_=Decimal(2))

    assert args == [1, Point(1), Point(2)]
    assert kwargs == {"a": Decimal("1.5"), "first_": Decimal(2)}


def test_another_keyword_of_a_positional_only_parameters_name_is_no_clash() -> None:
    def function(first: int, /, **others: str) -> None: ...

    assert there_and_back(function, 1, first="x") == ([1], {"first": "x"})


@pytest.mark.parametrize(
    ("args", "kwargs", "named"),
    [
        ((), {}, "'path'"),
        ((1,), {}, "'path'"),
        (("a",), {"width": "b"}, "'width'"),
        (("a",), {"width": True}, "'width'"),
        (("a",), {"height": 3}, "'height'"),
        (("a", 1, 2), {}, "too many positional"),
        (("a", 1), {"width": 2}, "'width'"),
        (("a",), {"width": object()}, "'width'"),
        (("a",), {"width": float("nan")}, "'width'"),
        (("\ud800",), {}, "'path'"),
    ],
    ids=stable,
)
def test_a_wrong_call_is_refused_by_the_name_of_its_parameter(
    args: tuple[Any, ...], kwargs: dict[str, Any], named: str
) -> None:
    with pytest.raises(BadArguments, match=named) as caught:
        signature(resize).encode(args, kwargs)

    assert "resize" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_among_other_keywords_the_one_at_fault_is_named() -> None:
    def function(**others: int) -> None: ...

    with pytest.raises(BadArguments, match="'bad'"):
        signature(function).encode((), {"good": 1, "bad": object()})
    with pytest.raises(BadArguments, match="'bad'"):
        signature(function).encode((), {"good": 1, "bad": "x"})


@dataclass
class Measured:
    value: Any


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        [[{"deep": -float("inf")}]],
        {"a": (1, float("nan"))},
        {float("inf"), 1.0},
        Measured(float("nan")),
    ],
    ids=stable,
)
def test_nan_and_infinity_are_refused_and_never_become_null(value: Any) -> None:
    with pytest.raises(BadArguments, match=r"'value'.*NaN"):
        signature(anything).encode((value,), {})
    with pytest.raises(BadArguments, match="NaN"):
        codec.encode(value)


def test_null_beside_numbers_is_no_nan() -> None:
    assert there_and_back(anything, [None, 1.0, "null"]) == ([[None, 1.0, "null"]], {})


def cyclic() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


class Liar:
    """Claims to be a model, and fails when asked."""

    def model_dump(self, *, mode: str) -> Any:
        raise KeyError("no")


@pytest.mark.parametrize(
    "value",
    [object(), Stubborn(), Stubborn, Model, Liar(), cyclic(), nested(100_000), {(1, 2): 3}, 1j, iter(())],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_a_json_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(BadArguments, match="'value'"):
        signature(anything).encode((value,), {})
    with pytest.raises(BadArguments):
        codec.encode(value)


def test_a_model_itself_is_not_taken_for_a_value_of_it() -> None:
    with pytest.raises(BadArguments, match="type ModelMetaclass has none"):
        codec.encode(Model)


def test_depth_near_the_recursion_limit_never_escapes_as_another_error() -> None:
    made = signature(anything)

    for depth in range(150, 1300, 7):
        with suppress(BadArguments):
            made.encode((nested(depth),), {})


def test_a_types_own_validation_may_raise_anything() -> None:
    def function(value: Explosive) -> None: ...

    with pytest.raises(BadArguments, match="'value' of task function: boom"):
        signature(function).decode(b'{"args": [{"number": 1}]}')


def test_what_pydantic_finds_is_one_line() -> None:
    with pytest.raises(BadArguments, match=r"'value'.*name") as caught:
        signature(model).encode(({"name": 3, "when": "yesterday"},), {})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("body", "args", "kwargs"),
    [
        (b'{"args": ["a"]}', ["a"], {}),
        (b'{"kwargs": {"path": "a"}}', [], {"path": "a"}),
        (b'{"kwargs": {"width": 3}, "args": ["a"]}', ["a"], {"width": 3}),
        (b' \n{ "args" : [ "\\u0061" ] } ', ["a"], {}),
    ],
)
def test_a_strangers_body_may_leave_a_part_out(body: bytes, args: list[Any], kwargs: dict[str, Any]) -> None:
    assert signature(resize).decode(body) == (args, kwargs)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"Pune........",
        b"null",
        b"[]",
        b'"text"',
        b"7",
        b'{"args": {}}',
        b'{"args": null}',
        b'{"kwargs": []}',
        b'{"args": ["a"]',
        b'{"args": ["a"]} trailing',
        b'{"args": [NaN]}',
        b'{"args": ["\xff"]}',
        b"\xff\xfe",
        b'{"args": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_body_that_is_no_jobs_is_unreadable(body: bytes) -> None:
    with pytest.raises(Unreadable):
        signature(resize).decode(body)


def test_a_misspelt_part_is_refused_rather_than_run_with_defaults() -> None:
    def function(width: int = 800) -> None: ...

    with pytest.raises(Unreadable, match="kwarg"):
        signature(function).decode(b'{"kwarg": {"width": 3}}')


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b"{}", "'path'"),
        (b'{"args": []}', "'path'"),
        (b'{"args": [1]}', "'path'"),
        (b'{"args": ["a", "b"]}', "'width'"),
        (b'{"args": ["a", 1, 2]}', "2 positional arguments, not 3"),
        (b'{"args": ["a"], "kwargs": {"path": "b"}}', "'path'"),
        (b'{"args": ["a"], "kwargs": {"height": 1}}', "'height'"),
    ],
    ids=stable,
)
def test_a_strangers_arguments_that_do_not_fit_are_named(body: bytes, named: str) -> None:
    with pytest.raises(BadArguments, match=named):
        signature(resize).decode(body)


@given(st.binary(max_size=200))
def test_no_body_whatever_raises_anything_else(body: bytes) -> None:
    with suppress(Unreadable, BadArguments):
        signature(resize).decode(body)


def test_an_annotation_under_type_checking_is_told_apart_from_a_wrong_call() -> None:
    def function(value: OrderedDict[str, int]) -> None: ...

    with pytest.raises(BadTask, match=r"function.*OrderedDict.*TYPE_CHECKING"):
        signature(function).encode(({},), {})
    with pytest.raises(BadTask, match="OrderedDict"):
        signature(function).resolve()


def test_an_annotation_that_raises_is_a_bad_task() -> None:
    def function(value: 1 / 0) -> None: ...  # type: ignore[valid-type]  # what the test is about

    with pytest.raises(BadTask, match="division by zero"):
        signature(function).resolve()


def test_an_annotation_without_a_json_form_names_its_parameter() -> None:
    def function(good: int, bad: dict[str, int] | dict[int, str]) -> None: ...

    with pytest.raises(BadTask, match="'bad' of task function"):
        signature(function).resolve()


def test_partials_and_objects_have_the_annotations_of_what_they_call() -> None:
    class Greeter:
        def __call__(self, name: str) -> None: ...

    assert Signature(functools.partial(resize, width=3), "p").encode(("a",), {})
    with pytest.raises(BadArguments, match="'path'"):
        Signature(functools.partial(resize, width=3), "p").encode((1,), {})
    with pytest.raises(BadArguments, match="'name'"):
        Signature(Greeter(), "g").encode((1,), {})


def test_what_has_no_signature_is_no_task() -> None:
    with pytest.raises(BadTask, match="no signature"):
        Signature(int, "int")


@pytest.mark.parametrize(
    ("body", "data", "kind"),
    [
        (b"\xff", b"\xff", "application/octet-stream"),
        (bytearray(b"a"), b"a", "application/octet-stream"),
        (memoryview(b"a"), b"a", "application/octet-stream"),
        ("Pune…", "Pune…".encode(), "text/plain"),
        ({"a": 1}, b'{"a":1}', "application/json"),
        (None, b"null", "application/json"),
    ],
    ids=stable,
)
def test_a_plain_body_says_what_it_is(body: Any, data: bytes, kind: str) -> None:
    assert codec.encode_plain(body) == (data, kind)


@pytest.mark.parametrize("body", ["\ud800", object(), float("nan"), [b"\xff", 1j]], ids=stable)
def test_a_plain_body_without_a_form_is_refused(body: Any) -> None:
    with pytest.raises(BadArguments):
        codec.encode_plain(body)


@pytest.mark.parametrize(
    "headers", [{"dibs-attempt": 9}, {"": 1}, {1: 2}, {"a": object()}, {"a": float("inf")}], ids=stable
)
def test_headers_that_no_broker_could_carry_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(BadArguments, match="Header"):
        codec.check_headers(headers)


# Results


def made_point() -> Point:
    return Point(1)


async def made_model() -> Model:
    return Model(name="a", when=dt.date(2026, 1, 2))


def made_pair() -> Pair:
    return Pair(1, "b")


def made_numbers() -> frozenset[int]:
    return frozenset({1})


def made_anything():  # type: ignore[no-untyped-def]  # on purpose
    return {"a": 1}


def made_raw() -> bytes:
    return b"\xff"


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (made_point, Point(1)),
        (made_model, Model(name="a", when=dt.date(2026, 1, 2))),
        (made_pair, Pair(1, "b")),
        (made_numbers, frozenset({1})),
        (made_anything, {"a": 1}),
        (made_raw, b"\xff"),
        (resize, None),
    ],
    ids=stable,
)
def test_a_result_comes_back_as_its_annotation_says(function: Callable[..., Any], value: object) -> None:
    assert signature(function).decode_result(codec.encode(value)) == value


def test_a_result_that_does_not_fit_names_the_task() -> None:
    with pytest.raises(BadArguments, match=r"The result of task made_point: Expected `object`, got `int`"):
        signature(made_point).decode_result(b"7")


def test_an_annotation_of_a_result_that_has_no_json_form_is_told_and_leaves_arguments_alone() -> None:
    def odd(number: int) -> set[str] | list[str]:
        return []

    made = signature(odd)

    assert made.decode(b'{"args":[1]}') == ([1], {})
    with pytest.raises(BadTask, match="The result of task odd is annotated"):
        made.decode_result(b"[]")
