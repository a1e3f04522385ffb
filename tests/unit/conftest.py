"""Hypothesis, told that a busy machine is no failure."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("dibs", deadline=None)
settings.load_profile("dibs")
