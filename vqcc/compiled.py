"""What bundles of all ops have in common: kernels, what they hold for each GPU, and how a manifest says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vqcc import gpus
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.gpus.model import has_dependent_launch
from vqcc.manifest_values import build_id_of, count_of, dataclass_of, level_of, rate_of, text_of
from vqcc.plan import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqcc.codegen.bundle import Bundle
    from vqcc.ops.base import Argument, Variant

__all__ = [
    "CompiledKernel",
    "CompiledLibrary",
    "GpuKernels",
    "check_described",
    "common_fields",
    "gpu_fields",
    "kernel_fields",
    "select_gpus",
]


@dataclass(frozen=True)
class CompiledKernel:
    """One kernel of a library on one GPU, and the parameters that it is launched with."""

    name: str
    variant: Variant
    arguments: tuple[Argument, ...]
    launch: Launch
    registers: int


AnyKernel_co = TypeVar("AnyKernel_co", bound=CompiledKernel, covariant=True)


@dataclass(frozen=True)
class GpuKernels(Generic[AnyKernel_co]):
    """What a library holds for one GPU: kernels in the order of the spec, and the targets their cubin runs on.

    Grids are made for `sm_count` multiprocessors; 0: the bundle is of before manifests said so.
    """

    runs_on: tuple[str, ...]
    sm_count: int
    dram_bytes_per_second: float
    kernels: tuple[AnyKernel_co, ...]

    @property
    def in_cubin(self) -> tuple[CompiledKernel, ...]:
        """Every kernel that the cubin has."""
        return self.kernels

    @property
    def can_overlap(self) -> bool:
        """Whether a launch may start while the one before it ends, as the header's table of kernels has it."""
        return has_dependent_launch(self.runs_on[0])

    @property
    def workspace_bytes(self) -> int:
        """Device memory that suffices as the workspace of any of the kernels."""
        return max(kernel.launch.workspace_bytes for kernel in self.kernels)


@dataclass(frozen=True)
class CompiledLibrary(Generic[AnyKernel_co]):
    """A verified bundle, whatever its op."""

    name: str
    build_id: str
    level: str
    toolchain: str
    builds: Mapping[str, GpuKernels[AnyKernel_co]]
    bundle: Bundle

    @property
    def gpus(self) -> tuple[str, ...]:
        """GPUs it was compiled for."""
        return tuple(self.builds)

    def source(self, gpu: str) -> str | None:
        """The emitted `.cu` for `gpu`; None if it was not emitted."""
        name = f"{self.name}.{gpu}.cu"
        return self.bundle.read_file(name).decode() if name in self.bundle.files else None

    def cubin(self, gpu: str) -> bytes | None:
        """The cubin for `gpu`; None if it was not emitted."""
        name = f"{self.name}.{gpu}.cubin"
        return self.bundle.read_file(name) if name in self.bundle.files else None


def select_gpus(library: CompiledLibrary[Any], names: Sequence[str]) -> tuple[str, ...]:
    """The GPUs asked for, or all. Raises VQ0805 for one the library was not compiled for."""
    for name in names:
        if name not in library.gpus:
            near = gpus.meant(name, library.gpus)
            held = f"it was compiled for {', '.join(library.gpus)}"
            if name in gpus.names():
                held += f"; compile its spec for {name} too: `gpu: [{', '.join((*library.gpus, name))}]`"
            raise VqccError(
                Diagnostic(
                    "VQ0805",
                    f"library {library.name} has no kernels for {name}",
                    help=" ".join(filter(None, (near, held))),
                )
            )
    return tuple(names) or library.gpus


def common_fields(bundle: Bundle) -> dict[str, Any]:
    """Of a CompiledLibrary, all but its builds."""
    manifest = bundle.manifest
    return {
        "name": text_of(manifest["name"]),
        "build_id": build_id_of(manifest["build_id"], bundle),
        "level": level_of(manifest["level"]),
        "toolchain": text_of(manifest["toolchain"]),
        "bundle": bundle,
    }


def gpu_fields(gpu: Mapping[str, Any]) -> dict[str, Any]:
    """Of GpuKernels, all but the kernels."""
    return {
        "runs_on": tuple(map(text_of, gpu["runs_on"])),
        "sm_count": count_of(gpu.get("sm_count", 0)),
        "dram_bytes_per_second": rate_of(gpu["dram_bytes_per_second"]),
    }


def kernel_fields(kernel: Mapping[str, Any]) -> dict[str, Any]:
    """Of a CompiledKernel, what no op says."""
    return {
        "name": text_of(kernel["name"]),
        "launch": dataclass_of(Launch, kernel["launch"]),
        "registers": int(kernel["resources"]["registers"]),
    }


def check_described(library: CompiledLibrary[Any], layout_id: str) -> None:
    """Raise ValueError if a manifest's parts are not of one library."""
    if layout_id != library.bundle.manifest["layout_id"]:
        raise ValueError("its layout is not the one its id names")
    if not library.builds or not all(build.kernels for build in library.builds.values()):
        raise ValueError("it names no kernels")
