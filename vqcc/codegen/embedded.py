"""The files that make a library's GPU code part of a host program (docs/header.md, Embedded)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.codegen.embedding import declarations, embedding_files
from vqcc.codegen.render import environment
from vqcc.codegen.symbols import image_symbol
from vqcc.codegen.text import banner_of, c_identifier, hexadecimal, literal, string_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.codegen.embedding import Machine

__all__ = ["GpuCode", "embedded_files"]


@dataclass(frozen=True)
class GpuCode:
    """What a library has for a GPU: its cubin, and PTX if that is embedded too, for later GPUs."""

    gpu: str
    cubin: bytes
    ptx: str | None = None


def embedded_files(
    name: str,
    identifier: str,
    build_id: str,
    codes: Sequence[GpuCode],
    *,
    arrays: bool,
    machine: Machine | None,
) -> dict[str, bytes]:
    """The header of library `name`, C name `identifier`, and C source with `arrays`, an object for a `machine`.

    Either holds the code of all GPUs, in the order of the library's header.
    """
    cubins = {code.gpu: c_identifier(image_symbol(identifier, code.gpu, "cubin")) for code in codes}
    texts = {
        code.gpu: c_identifier(image_symbol(identifier, code.gpu, "ptx"))
        for code in codes
        if code.ptx is not None
    }
    images: dict[str, bytes] = {cubins[code.gpu]: code.cubin for code in codes}
    # The driver takes PTX as a string of C.
    images |= {texts[code.gpu]: code.ptx.encode() + b"\0" for code in codes if code.ptx is not None}
    header = (
        environment()
        .get_template("embedded.h.j2")
        .render(
            p=c_identifier(identifier),
            P=c_identifier(identifier.upper()),
            banner=banner_of(f"{identifier}: what is embedded of it"),
            stem=string_text(name),
            build_id=hexadecimal(build_id),
            declarations=declarations(images),
            cubins=tuple(cubins.values()),
            texts=tuple(texts.get(gpu, literal("NULL")) for gpu in cubins) if texts else (),
        )
    )
    return embedding_files(name, header, images, arrays=arrays, machine=machine)
