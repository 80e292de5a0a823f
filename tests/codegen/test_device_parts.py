"""Device headers are plain C++, and an emitted source holds each it needs exactly once."""

from __future__ import annotations

import re

import pytest

from vqcc.codegen.device_parts import inline_headers
from vqcc.data_files import templates_directory

DEVICE = templates_directory() / "device"
HEADERS = sorted(path.relative_to(DEVICE).as_posix() for path in DEVICE.rglob("*.cuh"))
# CUDA's intrinsics start with two underscores; so do a few words of the language extension.
INTRINSIC = re.compile(r"\b__(?!half\b|nv_bfloat16\b|device__|forceinline__|restrict__)[a-z]\w*")


def test_dependencies_come_first_and_once() -> None:
    parts = inline_headers(DEVICE, ["codebook_cache.cuh", "unpack.cuh", "algorithms/kmeans.cuh"])
    titles = [part.splitlines()[0].split()[2] for part in parts]
    assert len(titles) == len(set(titles))
    assert titles.index("arch.cuh") < titles.index("elements.cuh") < titles.index("codebook_cache.cuh")
    assert not any('#include "' in part or "#pragma once" in part for part in parts)


@pytest.mark.parametrize("name", HEADERS)
def test_headers_hold_no_template_language(name: str) -> None:
    text = (DEVICE / name).read_text(encoding="utf-8")
    assert "${" not in text
    assert "//%" not in text
    assert text.count("#pragma once") == 1


@pytest.mark.parametrize("name", [name for name in HEADERS if not name.startswith("arch")])
def test_intrinsics_and_ptx_live_in_arch(name: str) -> None:
    code = re.sub(r"//.*", "", (DEVICE / name).read_text(encoding="utf-8"))
    assert not INTRINSIC.findall(code)
    assert "asm" not in code


@pytest.mark.parametrize("name", HEADERS)
def test_headers_are_short(name: str) -> None:
    most = 620 if name == "arch.cuh" else 400  # which has nearly all intrinsics and PTX
    assert len((DEVICE / name).read_text(encoding="utf-8").splitlines()) <= most
