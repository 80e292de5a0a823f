"""Runs emitted CUDA on the CPU: every thread a fiber, every access and barrier checked."""

from __future__ import annotations

from vqcc.emulator.arguments import Argument, Buffer, Pointer, Struct
from vqcc.emulator.building import build
from vqcc.emulator.errors import BugKind, EmulationError, Finding, Location
from vqcc.emulator.launching import Counters, Emulated, LaunchReport

__all__ = [
    "Argument",
    "Buffer",
    "BugKind",
    "Counters",
    "Emulated",
    "EmulationError",
    "Finding",
    "LaunchReport",
    "Location",
    "Pointer",
    "Struct",
    "build",
]
