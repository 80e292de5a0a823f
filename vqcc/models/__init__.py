"""Whole models: a spec that lists layers, and the one directory of libraries that it compiles to."""

from __future__ import annotations

from vqcc.models.load import load_any, parse_any
from vqcc.models.model import Layer, Model, Part

__all__ = ["Layer", "Model", "Part", "load_any", "parse_any"]
