"""Files of hand-written kernels: a cubin for each architecture, or all of them as part of a host program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.codegen.contract import contract_values
from vqcc.codegen.embedding import declarations, embedding_files
from vqcc.codegen.render import environment
from vqcc.codegen.symbols import image_symbol
from vqcc.codegen.text import Fragment, banner_of, c_identifier, comment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqcc.codegen.embedding import Machine

__all__ = ["cubin_files", "written_files"]


@dataclass(frozen=True)
class _Kernel:
    name: Fragment
    upper: Fragment
    comma: Fragment


@dataclass(frozen=True)
class _Image:
    symbol: Fragment
    major: int
    minor: int


def cubin_files(name: str, cubins: Mapping[str, bytes]) -> dict[str, bytes]:
    """A file of each cubin, by its target."""
    return {f"{name}.{target}.cubin": cubin for target, cubin in cubins.items()}


def written_files(
    name: str,
    identifier: str,
    kernels: Sequence[str],
    cubins: Mapping[str, bytes],
    *,
    arrays: bool,
    machine: Machine | None,
) -> dict[str, bytes]:
    """The header of kernels `name`, C name `identifier`, and C source with `arrays`, an object for a `machine`.

    All hold the cubins of all targets ("sm_90"). Raises ValueError for names that C does not take, and for kernels
    whose names differ by case alone.
    """
    if len({kernel.upper() for kernel in kernels}) != len(kernels):
        raise ValueError("the names of two kernels differ by case alone")
    symbols = {target: c_identifier(image_symbol(identifier, target, "cubin")) for target in cubins}
    images: dict[str, bytes] = {symbols[target]: cubin for target, cubin in cubins.items()}
    header = (
        environment()
        .get_template("cubin.h.j2")
        .render(
            p=c_identifier(identifier),
            P=c_identifier(identifier.upper()),
            banner=banner_of(f"{identifier}: hand-written kernels, embedded", "source"),
            declarations=declarations(images),
            **contract_values("kernels", gpus=", ".join(cubins)),
            kernels=tuple(
                _Kernel(
                    c_identifier(each),
                    c_identifier(each.upper()),
                    comment("," if each != kernels[-1] else ""),
                )
                for each in kernels
            ),
            images=tuple(_Image(symbols[target], *_capability(target)) for target in cubins),
        )
    )
    return embedding_files(name, header, images, arrays=arrays, machine=machine)


def _capability(target: str) -> tuple[int, int]:
    """Major and minor of "sm_90", "sm_120"."""
    number = int(target.removeprefix("sm_").rstrip("af"))
    return divmod(number, 10)
