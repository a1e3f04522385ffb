"""Arguments and results as JSON, checked and decoded by a function's annotations.

Knows the body of a job, `{"args": [...], "kwargs": {...}}`, and nothing of queues. Never pickle: what comes off
a wire may have been written by anybody.
"""

from __future__ import annotations

import functools
import inspect
import math
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from dibs.errors import BadArguments, BadTask

_Kind = inspect.Parameter


class Unreadable(Exception):
    """A body that is not a job's: no JSON, or not of the form `{"args": [...], "kwargs": {...}}`."""


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    """A job's body with its values still undecoded; a stranger may leave either part out.

    A part of another name is refused: most likely it is one of these two, misspelt, and without it the task would
    run with its defaults.
    """

    args: list[msgspec.Raw] = []
    kwargs: dict[str, msgspec.Raw] = {}


class Signature:
    """What a task can be called with, and the JSON form of its calls."""

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        self._function = function
        self._name = name
        try:
            self._signature = inspect.signature(function)
        except (TypeError, ValueError) as error:
            raise BadTask(f"{function!r} can't be task {name}: {error}. Wrap it in a function of yours.") from None
        parameters = self._signature.parameters.values()
        self._positional = [
            p.name for p in parameters if p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)
        ]
        self._rest = next((p.name for p in parameters if p.kind is _Kind.VAR_POSITIONAL), None)
        self._keywords = {p.name for p in parameters if p.kind in (_Kind.KEYWORD_ONLY, _Kind.POSITIONAL_OR_KEYWORD)}
        self._others = next((p.name for p in parameters if p.kind is _Kind.VAR_KEYWORD), None)
        #: With so many positional arguments and no others it can be called, whatever they are: `bind` need not look.
        self._fitting = _fitting(list(parameters))

    def encode(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bytes:
        """Return the body of this call, checked as a worker will check it.

        Raises:
            BadArguments: the call does not fit the signature, or a value has no JSON form or not that of its
                annotation. Names the parameter.
        """
        if kwargs or len(args) not in self._fitting:
            bound = self._bind(args, kwargs)
            args, kwargs = bound.args, bound.kwargs
        call = {"args": args, "kwargs": kwargs}
        try:
            body = _ENCODER.encode(call)
            has_nan = b"null" in body and _has_nan(call)
        except Exception as error:  # noqa: BLE001 -- a value's own conversion runs here, and may raise anything
            self._blame(self._bind(args, kwargs))
            raise BadArguments(f"The arguments of {self._name} can't be sent: {_one_line(error)}.") from None
        if has_nan:
            self._blame(self._bind(args, kwargs))
        if self._decode_at_once(body) is None:
            self._decode_values(body)
        return body

    def decode(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Return the positional and keyword arguments in a body, as their annotations say.

        Raises:
            Unreadable: the body is not a job's.
            BadArguments: the arguments don't fit the signature. Names the parameter.
            BadTask: an annotation can't be resolved or has no JSON form.
        """
        if (values := self._decode_at_once(body)) is not None and len(values) in self._fitting:
            return values, {}
        args, kwargs = self._decode_values(body)
        self._bind(args, kwargs)
        return args, kwargs

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> inspect.BoundArguments:
        try:
            return self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise BadArguments(f"{self._name}{self._signature} can't be called so: {error}.") from None

    def _decode_at_once(self, body: bytes) -> list[Any] | None:
        """Return the arguments where all are positional, as is the rule; None: `_decode_values` must look."""
        decoder = self._decoder_at_once
        if decoder is None:
            return None
        try:
            body.decode()
            found = decoder.decode(body)
        except Exception:  # noqa: BLE001 -- see `_decode_one`, which says what is wrong with which parameter
            return None
        if found.kwargs:
            return None
        values = list(msgspec.structs.astuple(found.args))
        while values and values[-1] is msgspec.UNSET:
            values.pop()
        return values

    def decode_result(self, result: bytes) -> Any:
        """Return what the function returned, from its JSON, as its annotation says; without one as it comes.

        Raises:
            BadArguments: it does not fit the annotation.
            BadTask: the annotation can't be resolved or has no JSON form.
        """
        decoder = self._result_decoder
        try:
            return decoder.decode(result)
        except Exception as error:  # a type's own validation runs here, and may raise anything
            raise BadArguments(f"The result of task {self._name}: {_one_line(error)}.") from error

    def _decode_values(self, body: bytes) -> tuple[list[Any], dict[str, Any]]:
        """Decode each value by its parameter's annotation; whether they make a call together is not looked at."""
        decoders = self._decoders
        try:
            body.decode()  # values stay undecoded at first, and with them what is no UTF-8
            raw = _BODY_DECODER.decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Unreadable(f"The body is not a job's {{'args': [...], 'kwargs': {{...}}}}: {error}") from None
        names = self._names(len(raw.args))
        args = [self._decode_one(name, decoders[name], value) for name, value in zip(names, raw.args, strict=True)]
        kwargs = {
            key: self._decode_one(key, decoders[self._keyword(key)], value) for key, value in raw.kwargs.items()
        }
        return args, kwargs

    def resolve(self) -> None:
        """Resolve the annotations now rather than at the first call.

        Raises:
            BadTask: an annotation can't be resolved or has no JSON form.
        """
        _ = self._decoder_at_once

    @functools.cached_property
    def _decoders(self) -> dict[str, msgspec.json.Decoder[Any]]:
        """A decoder per parameter; made at the first call, when names used in annotations exist."""
        hints = self._hints
        return {
            name: self._decoder(f"Parameter {name!r}", hints.get(name, Any)) for name in self._signature.parameters
        }

    @functools.cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[Any]:
        """The decoder of what is returned: apart, as a worker has no need of it."""
        return self._decoder("The result", self._hints.get("return", Any))

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(_annotated(self._function), include_extras=True)
        except Exception as error:  # an annotation is an expression, and may raise anything
            raise BadTask(
                f"The annotations of task {self._name} can't be resolved: {error}. Import what they name at run "
                "time, not under TYPE_CHECKING."
            ) from error

    @functools.cached_property
    def _decoder_at_once(self) -> msgspec.json.Decoder[Any] | None:
        """A decoder of whole bodies, in a quarter of the time that a decoder per value takes.

        None where a type can stand for itself only.
        """
        decoders = self._decoders
        fields = [(f"p{place}", decoders[name].type, msgspec.UNSET) for place, name in enumerate(self._positional)]
        try:
            args = msgspec.defstruct("Args", fields, array_like=True, forbid_unknown_fields=True)
            body = msgspec.defstruct(
                "Body", [("args", args), ("kwargs", dict[str, msgspec.Raw], {})], forbid_unknown_fields=True
            )
            return msgspec.json.Decoder(body, dec_hook=_from_json)
        except Exception:  # noqa: BLE001 -- see `_decoder`; each was accepted by itself
            return None

    def _decoder(self, what: str, hint: Any) -> msgspec.json.Decoder[Any]:
        try:
            return msgspec.json.Decoder(hint, dec_hook=_from_json)
        except Exception as error:  # msgspec looks into the type, and so may run code of the type's own
            raise BadTask(
                f"{what} of task {self._name} is annotated {hint!r}, which has no JSON form: {error}"
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

    def _decode_one(self, name: str, decoder: msgspec.json.Decoder[Any], value: msgspec.Raw) -> Any:
        try:
            return decoder.decode(value)
        except Exception as error:  # a type's own validation runs here, and may raise anything
            raise BadArguments(f"Parameter {name!r} of task {self._name}: {_one_line(error)}.") from error

    def _blame(self, bound: inspect.BoundArguments) -> None:
        """Raise for the first parameter whose value has no JSON form."""
        arguments = dict(bound.arguments)
        others: dict[str, Any] = {} if self._others is None else arguments.pop(self._others, {})
        for name, value in (arguments | others).items():
            try:
                _ENCODER.encode(value)
                problem = "NaN and infinity have no JSON form" if _has_nan(value) else None
            except Exception as error:  # noqa: BLE001 -- see encode
                problem = _one_line(error)
            if problem is not None:
                raise BadArguments(f"Parameter {name!r} of task {self._name} can't be sent: {problem}.") from None


def _fitting(parameters: Sequence[inspect.Parameter]) -> range:
    positional = [p for p in parameters if p.kind in (_Kind.POSITIONAL_ONLY, _Kind.POSITIONAL_OR_KEYWORD)]
    if any(p.kind is _Kind.KEYWORD_ONLY and p.default is _Kind.empty for p in parameters):
        return range(0)
    most = sys.maxsize if any(p.kind is _Kind.VAR_POSITIONAL for p in parameters) else len(positional) + 1
    return range(sum(p.default is _Kind.empty for p in positional), most)


def encode(value: Any) -> bytes:
    """Return a value as JSON.

    Raises:
        BadArguments: it has no JSON form.
    """
    if value is None:  # what most tasks return, and it would be looked through for NaN
        return b"null"
    try:
        data = _ENCODER.encode(value)
        has_nan = b"null" in data and _has_nan(value)
    except Exception as error:  # noqa: BLE001 -- a value's own conversion runs here, and may raise anything
        raise BadArguments(f"The value has no JSON form: {_one_line(error)}.") from None
    if has_nan:
        raise BadArguments("The value contains NaN or infinity, which have no JSON form.")
    return data


def decode(data: bytes) -> Any:
    """Return the value that this JSON is."""
    return _ANY.decode(data)


def encode_plain(body: Any) -> tuple[bytes, str]:
    """Return the body of a plain message and its content type: bytes as they are, a str in UTF-8, else JSON.

    Raises:
        BadArguments: it has none of these forms.
    """
    match body:
        case bytes() | bytearray() | memoryview():
            return bytes(body), "application/octet-stream"
        case str():
            try:
                return body.encode(), "text/plain"
            except UnicodeEncodeError as error:
                raise BadArguments(f"The text has no UTF-8 form: {error}. Send it as bytes.") from None
        case _:
            return encode(body), "application/json"


def check_headers(headers: Mapping[str, Any]) -> None:
    """Raise if every broker could not carry these headers of a plain message.

    Raises:
        BadArguments: a name is dibs' own or no text, or a value has no JSON form.
    """
    for name, value in headers.items():
        if not isinstance(name, str) or not name or name.startswith("dibs-"):
            raise BadArguments(f"Header {name!r}: a header's name is a text that does not begin with 'dibs-'.")
        try:
            encode(value)
        except BadArguments as error:
            raise BadArguments(f"Header {name!r}: {error}") from None


def _to_json(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # a pydantic model, without importing pydantic
    if callable(dump) and not isinstance(value, type):
        return dump(mode="json")
    raise TypeError(f"type {type(value).__qualname__} has none")


def _from_json(kind: type, value: Any) -> Any:
    validate = getattr(kind, "model_validate", None)
    if callable(validate):
        return validate(value)
    raise TypeError(f"type {kind.__qualname__} has none")


def _one_line(error: Exception) -> str:
    """Return what an error says; a type's own validation may be long-winded."""
    return " ".join(str(error).split()).removesuffix(".") or type(error).__name__


def _annotated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function that has the annotations: that of a partial, or an object's `__call__`."""
    while isinstance(function, functools.partial):
        function = function.func
    return function if inspect.isroutine(function) else type(function).__call__


def _has_nan(value: Any) -> bool:
    """Tell whether a NaN or infinity is in there; msgspec would write it as null."""
    waiting = [msgspec.to_builtins(value, enc_hook=_to_json)]
    while waiting:
        match waiting.pop():
            case float() as number if not math.isfinite(number):
                return True
            case dict() as items:
                waiting += items.values()
            case list() | tuple() as items:
                waiting += items
    return False


_ENCODER = msgspec.json.Encoder(enc_hook=_to_json)
_ANY = msgspec.json.Decoder()
_BODY_DECODER = msgspec.json.Decoder(_Body)
