"""Standalone sources over the device headers."""

from __future__ import annotations

from vqcc.codegen.device_parts import inline_headers
from vqcc.data_files import templates_directory

__all__ = ["device_source"]


def device_source(headers: tuple[str, ...], kernels: str) -> str:
    """The device headers with all they include, each once, then `kernels`, which may use their names."""
    parts = inline_headers(templates_directory() / "device", headers)
    return "\n".join([*map(str, parts), "using namespace vqcc;", '#line 1 "kernel.cu"', kernels])
