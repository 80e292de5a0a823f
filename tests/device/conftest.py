"""Fixtures of the device headers' tests: kernels over them, compiled once for a whole module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from device.sources import device_source

from vqcc.emulator import Emulated, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(scope="session")
def emulate_device(cache_directory: Path) -> Callable[..., Emulated]:
    """Compile kernels over device headers for the emulator."""

    def compiled(headers: tuple[str, ...], kernels: str) -> Emulated:
        return build(device_source(headers, kernels), cache_directory=cache_directory / "emulator")

    return compiled
