"""A compiled library as its manifest describes it: all that packing, validating and timing need to know."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from vqcc.algorithms import from_mapping
from vqcc.code_layouts import CODE_LAYOUTS, CodeLayout, layout_mapping
from vqcc.codegen.bundle import read_bundle
from vqcc.diagnostics import Diagnostic, VqccError, did_you_mean
from vqcc.levels import LEVELS
from vqcc.ops import OPS
from vqcc.plan import Launch

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vqcc.algorithms.base import Algorithm
    from vqcc.codegen.bundle import Bundle
    from vqcc.ops.base import Op, Variant
    from vqcc.plan import Plan, Tile
    from vqcc.problem import Problem
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = [
    "GpuKernels",
    "Kernel",
    "Library",
    "describe_kernel",
    "describe_library",
    "load_library",
    "select_gpus",
]


@dataclass(frozen=True)
class Kernel:
    """One kernel of a library on one GPU."""

    name: str
    variant: Variant
    tile: Tile
    launch: Launch
    registers: int


@dataclass(frozen=True)
class GpuKernels:
    """What a library holds for one GPU: kernels in the order of the spec, and the targets their cubin runs on."""

    runs_on: tuple[str, ...]
    dram_bytes_per_second: float
    kernels: tuple[Kernel, ...]

    @property
    def workspace_bytes(self) -> int:
        """Device memory that suffices as the workspace of any of the kernels."""
        return max(kernel.launch.workspace_bytes for kernel in self.kernels)


@dataclass(frozen=True)
class Library:
    """A verified bundle: its algorithm, op and layout, and the kernels of each GPU in the order of the spec."""

    name: str
    build_id: str
    algorithm: Algorithm
    op: Op
    level: str
    toolchain: str
    layout: CodeLayout
    builds: Mapping[str, GpuKernels]
    bundle: Bundle
    #: SHA-256 of the codes that its profile counted, one per tensor; empty without a profile.
    profile_codes: tuple[str, ...] = ()

    @property
    def layout_id(self) -> str:
        """What packed weights must carry to fit this library."""
        return layout_identity(self.algorithm, self.op.weight_shape, self.layout)

    @property
    def gpus(self) -> tuple[str, ...]:
        """GPUs it was compiled for."""
        return tuple(self.builds)

    def pack(self, tensor: VQTensor) -> PackedTensor:
        """Pack `tensor`, which fits this library, as its kernels read it.

        For a library built from a profile, entries are renamed by how often the tensor's own codes look them up:
        wherever vqcc packs it is here, so that kernels with hot entries meet them where they were planned.
        """
        from vqcc.tensors.packing import pack_tensor

        return pack_tensor(tensor, self.layout, by_frequency=bool(self.profile_codes))

    def source(self, gpu: str) -> str | None:
        """The emitted `.cu` for `gpu`; None if it was not emitted."""
        name = f"{self.name}.{gpu}.cu"
        return self.bundle.read_file(name).decode() if name in self.bundle.files else None

    def cubin(self, gpu: str) -> bytes | None:
        """The cubin for `gpu`; None if it was not emitted."""
        name = f"{self.name}.{gpu}.cubin"
        return self.bundle.read_file(name) if name in self.bundle.files else None


def select_gpus(library: Library, names: Sequence[str]) -> tuple[str, ...]:
    """The GPUs asked for, or all. Raises VQ0805 for one the library was not compiled for."""
    for name in names:
        if name not in library.gpus:
            near = did_you_mean(name, library.gpus)
            held = f"it was compiled for {', '.join(library.gpus)}"
            raise VqccError(
                Diagnostic(
                    "VQ0805",
                    f"library {library.name} has no kernels for {name}",
                    help=" ".join(filter(None, (near, held))),
                )
            )
    return tuple(names) or library.gpus


def layout_identity(algorithm: Algorithm, shape: tuple[int, int], layout: CodeLayout) -> str:
    """Name of what packed weights and kernels must agree on: algorithm, shape and layout, 12 hex digits."""
    text = json.dumps([algorithm.mapping(), list(shape), layout_mapping(layout)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def describe_kernel(problem: Problem, plan: Plan) -> dict[str, Any]:
    """A kernel as the manifest keeps it."""
    assert plan.launch is not None
    assert plan.tile is not None
    assert plan.resources is not None
    return {
        "name": plan.kernel,
        "variant": problem.variant.suffix,
        "strategy": asdict(plan.strategy),
        "tile": asdict(plan.tile),  # type: ignore[call-overload]
        "launch": asdict(plan.launch),
        "resources": asdict(plan.resources),
        "arguments": [asdict(argument) for argument in problem.op.arguments(problem.variant)],
    }


def describe_library(problem: Problem, plan: Plan) -> dict[str, Any]:
    """What all kernels of a library share, as the manifest keeps it."""
    assert plan.layout is not None
    return {
        "algorithm": problem.algorithm.mapping(),
        "op": problem.op.model_dump(mode="json"),
        "level": problem.level,
        "layout": layout_mapping(plan.layout),
        "layout_id": layout_identity(problem.algorithm, problem.op.weight_shape, plan.layout),
    }


def load_library(directory: Path) -> Library:
    """Read and verify a bundle. Raises VqccError VQ07xx if it is damaged or none."""
    bundle = read_bundle(directory)
    try:
        return _described(bundle)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise VqccError(
            Diagnostic(
                "VQ0705",
                f"the manifest of {directory} describes no library: {reason}",
                help="it was written by another vqcc or changed by hand: compile the spec again",
            )
        ) from error


def _described(bundle: Bundle) -> Library:
    """Read the manifest's fields, trusting none: its hash says what was written, not that it makes sense."""
    manifest = bundle.manifest
    op = OPS[manifest["op"]["kind"]].model_validate(manifest["op"])
    variants = {variant.suffix: variant for variant in op.variants()}
    library = Library(
        name=_text(manifest["name"]),
        build_id=_build_id(manifest["build_id"], bundle),
        toolchain=_text(manifest["toolchain"]),
        algorithm=from_mapping(manifest["algorithm"]),
        op=op,
        level=_level(manifest["level"]),
        layout=_layout(manifest["layout"]),
        builds={
            _text(name): GpuKernels(
                runs_on=tuple(map(_text, gpu["runs_on"])),
                dram_bytes_per_second=_rate(gpu["dram_bytes_per_second"]),
                kernels=tuple(
                    Kernel(
                        _text(kernel["name"]),
                        variants[kernel["variant"]],
                        _dataclass(op.tile_types[kernel["strategy"]["dataflow"]], kernel["tile"]),
                        _dataclass(Launch, kernel["launch"]),
                        int(kernel["resources"]["registers"]),
                    )
                    for kernel in gpu["kernels"]
                ),
            )
            for name, gpu in manifest["gpus"].items()
        },
        bundle=bundle,
        profile_codes=_profile_codes(manifest.get("profile")),
    )
    if library.layout_id != manifest["layout_id"]:
        raise ValueError("its layout is not the one its id names")
    if not library.builds or not all(build.kernels for build in library.builds.values()):
        raise ValueError("it names no kernels")
    return library


def _layout(values: Mapping[str, Any]) -> CodeLayout:
    fields_of = {name: value for name, value in values.items() if name != "kind"}
    layout: CodeLayout = _dataclass(CODE_LAYOUTS[values["kind"]], fields_of)
    return layout


def _profile_codes(profile: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Hashes of the codes that the library's profile counted; none where it was built without one."""
    if profile is None:
        return ()
    codes = tuple(map(_text, profile["codes"]))
    if not codes or not all(re.fullmatch("[0-9a-f]{64}", item) for item in codes):
        raise ValueError("its profile names no codes")
    return codes


def _level(value: object) -> str:
    if value not in LEVELS:
        raise ValueError(f"there is no level {value!r}")
    return _text(value)


def _build_id(value: object, bundle: Bundle) -> str:
    """The id, which a header of the bundle must state too: an engine compares the two."""
    build_id = _text(value)
    if not re.fullmatch("[0-9a-f]{16}", build_id):
        raise ValueError(f"{build_id!r} is no build id")
    for name, data in bundle.files.items():
        if name.endswith(".h") and f'_BUILD_ID "{build_id}"\n'.encode() not in data:
            raise ValueError(f"its build id {build_id} is not that of {name}")
    return build_id


def _rate(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"dram_bytes_per_second is {value!r}")
    return float(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _dataclass(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Make `kind` of `values` if each has the type of its field, and numbers are such as a plan makes.

    A number is 1 at least, or 0 where that is its field's default or the field is `dynamic_shared_bytes`.
    """
    for field in fields(kind):
        expected = {"int": int, "bool": bool}.get(str(field.type), str)
        value = values[field.name]
        if type(value) is not expected:
            raise TypeError(f"{field.name} is {value!r}")
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value < (0 if field.name == "dynamic_shared_bytes" or field.default == 0 else 1)
        ):
            raise ValueError(f"{field.name} is {value}")
    return kind(**values)
