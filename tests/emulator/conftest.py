"""Fixtures of the emulator's tests: kernels compiled once for a whole module."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vqcc.emulator import Emulated, build

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PRELUDE = """\
#include <cuda_bf16.h>
#include <cuda_fp16.h>
template <class T = float> __device__ __forceinline__ T* shared_array() {
  return reinterpret_cast<T*>(vqcc_emulator::dynamic_shared());
}
"""


@pytest.fixture(scope="session")
def emulate(cache_directory: Path) -> Callable[[str], Emulated]:
    """Compile a source, with the half types and `shared_array<T>()` at hand."""

    def compiled(source: str) -> Emulated:
        return build(f'{_PRELUDE}#line 1 "kernel.cu"\n{source}', cache_directory=cache_directory / "emulator")

    return compiled
