"""Arguments and results as JSON, checked and decoded by a function's annotations.

Knows the body of a job, `{"args": [...], "kwargs": {...}}`, and nothing of queues. Never pickle: what comes off
a wire may have been written by anybody.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import msgspec

from dibs.errors import BadArguments, BadTask

_Kind = inspect.Parameter


class Unreadable(Exception):
    """A body that is not a job's: no JSON, or not of the form `{"args": [...], "kwargs": {...}}`."""


class _Body(msgspec.Struct):
    """A job's body with its values still undecoded; a stranger may leave either part out."""

    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}


class Signature:
    """What a task can be called with, and the JSON form of its calls."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        self._signature = inspect.signature(function)
        parameters = self._signature.parameters.values()
        self._positional = [
            p.name for p in parameters if p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)
        ]
        self._rest = next((p.name for p in parameters if p.kind is _Kind.VAR_POSITIONAL), None)
        self._keywords = {p.name for p in parameters if p.kind in (_Kind.KEYWORD_ONLY, _Kind.POSITIONAL_OR_KEYWORD)}
        self._others = next((p.name for p in parameters if p.kind is _Kind.VAR_KEYWORD), None)

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Return the body of this call, checked as a worker will check it.

        Raises:
            BadArguments: the call does not fit the signature, or a value has no JSON form or not that of its
                annotation. Names the parameter.
        """
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{self._name}{self._signature} can't be called so: {error}.") from None
        call = {"args": bound.args, "kwargs": bound.kwargs}
        try:
            body = _ENCODER.encode(call)
        except (TypeError, ValueError, OverflowError, RecursionError):
            self._blame(bound)
            raise
        if b"null" in body and _has_nan(call):
            self._blame(bound)
        self.decode(body)
        return body

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments in a body, as their annotations say.

        Raises:
            Unreadable: the body is not a job's.
            BadArguments: the arguments don't fit the signature. Names the parameter.
        """
        try:
            raw = _BODY_DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"The body is not a job's {{'args': [...], 'kwargs': {{...}}}}: {error}") from None
        names = self._names(len(raw.args))
        args = [self._decode_one(name, value) for name, value in zip(names, raw.args, strict=True)]
        kwargs = {key: self._decode_one(self._keyword(key), value) for key, value in raw.kwargs.items()}
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{self._name}{self._signature} can't be called so: {error}.") from None
        return args, kwargs

    def resolve(self) -> None:
        """Resolve the annotations now rather than at the first call.

        Raises:
            BadTask: an annotation can't be resolved or has no JSON form.
        """
        _ = self._decoders

    @cached_property
    def _decoders(self) -> dict[str, msgspec.json.Decoder[Any]]:
        """A decoder per parameter; made at the first call, when names used in annotations exist."""
        try:
            hints = typing.get_type_hints(self._function, include_extras=True)
        except (NameError, AttributeError, TypeError) as error:
            raise BadTask(
                f"The annotations of task {self._name} can't be resolved: {error}. Import what they name at run "
                "time, not under TYPE_CHECKING."
            ) from error
        return {name: self._decoder(name, hints.get(name, Any)) for name in self._signature.parameters}

    def _decoder(self, name: str, hint: Any) -> msgspec.json.Decoder[Any]:
        try:
            return msgspec.json.Decoder(hint, dec_hook=_from_json)
        except TypeError as error:
            raise BadTask(
                f"Parameter {name!r} of task {self._name} is annotated {hint!r}, which has no JSON form: {error}"
            ) from error

    def _names(self, count: int) -> Sequence[str]:
        extra = count - len(self._positional)
        if extra <= 0:
            return self._positional[:count]
        if self._rest is None:
            raise BadArguments(
                f"{self._name}{self._signature} takes {len(self._positional)} positional arguments, not {count}."
            )
        return self._positional + [self._rest] * extra

    def _keyword(self, key: str) -> str:
        if key in self._keywords:
            return key
        if self._others is None:
            raise BadArguments(f"{self._name}{self._signature} has no parameter {key!r}.")
        return self._others

    def _decode_one(self, name: str, value: msgspec.Raw) -> Any:
        try:
            return self._decoders[name].decode(value)
        except Exception as error:  # a type's own validation runs here, and may raise anything
            raise BadArguments(f"Parameter {name!r} of task {self._name}: {error}.") from error

    def _blame(self, bound: inspect.BoundArguments) -> None:
        """Raise for the first parameter whose value has no JSON form."""
        for name, value in bound.arguments.items():
            try:
                _ENCODER.encode(value)
                problem = "NaN and infinity have no JSON form" if _has_nan(value) else None
            except (TypeError, ValueError, OverflowError, RecursionError) as error:
                problem = str(error)
            if problem is not None:
                raise BadArguments(f"Parameter {name!r} of task {self._name} can't be sent: {problem}.") from None


def encode(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        BadArguments: it has no JSON form.
    """
    try:
        data = _ENCODER.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise BadArguments(f"The value has no JSON form: {error}.") from None
    if b"null" in data and _has_nan(value):
        raise BadArguments("The value contains NaN or infinity, which have no JSON form.")
    return data


def _to_json(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # a pydantic model, without importing pydantic
    if callable(dump):
        return dump(mode="json")
    raise TypeError(f"a {type(value).__qualname__} has no JSON form")


def _from_json(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(value)
    raise TypeError(f"a {kind.__qualname__} has no JSON form")


def _has_nan(value: Any) -> bool:
    """Tell whether a NaN or infinity is in there; msgspec would write it as null."""
    match value:
        case float():
            return not math.isfinite(value)
        case dict():
            return any(_has_nan(item) for item in value.values())
        case list() | tuple() | set() | frozenset():
            return any(_has_nan(item) for item in value)
        case _:
            return False


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)
_BODY_DECODER = msgspec.json.Decoder(_Body)
