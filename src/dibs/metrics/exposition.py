"""The text that Prometheus reads, format 0.0.4. Knows the form and not what is measured.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple

#: What an answer in this form says it is.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


class Sample(NamedTuple):
    """One number."""

    labels: Mapping[str, str]
    value: float
    #: Behind the family's name: "_bucket", "_sum", "_count" of a histogram.
    suffix: str = ""


class Family(NamedTuple):
    """One metric with all its samples."""

    name: str
    kind: Kind
    help: str
    samples: Sequence[Sample]


def render(families: Iterable[Family]) -> str:
    """Return the text of these metrics; those without a sample are left out."""
    lines: list[str] = []
    for family in families:
        if family.samples:
            lines += (
                f"# HELP {family.name} {_escape(family.help)}",
                f"# TYPE {family.name} {family.kind}",
            )
            lines += (_line(family.name, sample) for sample in family.samples)
    return "".join(f"{line}\n" for line in lines)


def _line(name: str, sample: Sample) -> str:
    labels = ",".join(f'{label}="{_quote(value)}"' for label, value in sample.labels.items())
    return f"{name}{sample.suffix}{{{labels}}} {sample.value!r}" if labels else f"{name} {sample.value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quote(value: str) -> str:
    """Return a label's value as it stands between quotes: a stranger may have chosen it."""
    return _escape(value.encode("utf-8", "backslashreplace").decode()).replace('"', r"\"")
