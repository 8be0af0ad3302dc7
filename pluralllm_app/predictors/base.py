"""Stub."""

from typing import Any

Predictor = Any
