"""A compiled library as its manifest describes it: all that packing, validating and timing need to know."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vqcc.algorithms import from_mapping
from vqcc.cache_library import CacheLibrary, read_cache_library
from vqcc.code_layouts import CODE_LAYOUTS, CodeLayout, layout_mapping
from vqcc.codegen.bundle import read_bundle
from vqcc.codegen.manifest import WRITTEN_KERNELS
from vqcc.compiled import (
    CompiledKernel,
    CompiledLibrary,
    GpuKernels,
    check_described,
    common_fields,
    gpu_fields,
    kernel_fields,
    select_gpus,
)
from vqcc.diagnostics import Diagnostic, VqccError, did_you_mean
from vqcc.manifest_values import dataclass_of, text_of
from vqcc.ops import WEIGHT_OPS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vqcc.algorithms.base import Algorithm
    from vqcc.codegen.bundle import Bundle
    from vqcc.ops.base import Op
    from vqcc.plan import Plan, Tile
    from vqcc.problem import Problem
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = [
    "CacheLibrary",
    "CompiledKernel",
    "CompiledLibrary",
    "GpuKernels",
    "Kernel",
    "Library",
    "ModelBundleError",
    "describe_kernel",
    "describe_library",
    "layer_folders",
    "load_cache_library",
    "load_libraries",
    "load_library",
    "load_weight_library",
    "select_gpus",
]


#: Of a whole model's manifest: the ids of its libraries' builds by their folders, and its layers by their names.
LIBRARIES = "libraries"
LAYERS = "layers"


class ModelBundleError(VqccError):
    """A whole model was given where one library is wanted."""


@dataclass(frozen=True)
class Kernel(CompiledKernel):
    """A kernel over a quantized weight."""

    tile: Tile


@dataclass(frozen=True)
class Library(CompiledLibrary[Kernel]):
    """A library over a quantized weight: its algorithm, op and layout.

    `profile_codes` are the SHA-256 of the codes that its profile counted, one per tensor; none without a profile.
    """

    algorithm: Algorithm
    op: Op
    layout: CodeLayout
    profile_codes: tuple[str, ...] = ()

    @property
    def layout_id(self) -> str:
        """What packed weights must carry to fit this library."""
        return layout_identity(self.algorithm, self.op.weight_shape, self.layout)

    def pack(self, tensor: VQTensor) -> PackedTensor:
        """Pack `tensor`, which fits this library, as its kernels read it.

        For a library built from a profile, entries are renamed by how often the tensor's own codes look them up:
        wherever vqcc packs it is here, so that kernels with hot entries meet them where they were planned.

        Raises VQ0547 for stages that may add up past float16, where kernels add them in that type.
        """
        from vqcc.tensors.packing import check_stage_sums, pack_tensor

        kernels = (kernel for build in self.builds.values() for kernel in build.kernels)
        if self.algorithm.residuals > 1 and any(
            self.op.adds_stages(kernel.tile, kernel.variant.dtype) for kernel in kernels
        ):
            check_stage_sums(tensor)
        return pack_tensor(tensor, self.layout, by_frequency=bool(self.profile_codes))


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
        "resources": plan.resources.to_json(),
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


def load_libraries(directory: Path) -> tuple[Library | CacheLibrary, ...]:
    """Those in the folders of a whole model, or the one that a directory is. Raises as load_library does."""
    bundle = _read(directory)
    folders = bundle.manifest.get(LIBRARIES)
    return tuple(load_library(directory / each) for each in folders) if folders else (_library_of(bundle),)


def layer_folders(directory: Path) -> dict[str, str]:
    """The folder with the library of each layer of a whole model, by the layers' names, in the model's order.

    Raises VqccError VQ07xx for a directory that is no sound bundle, or that of one library.
    """
    manifest = read_bundle(directory).manifest
    if LIBRARIES not in manifest:
        raise VqccError(
            Diagnostic(
                "VQ0704",
                f"{directory} is one library, not a whole model",
                help="load it as one library, or give the directory that a spec with layers compiled to",
            )
        )
    try:
        folders = {text_of(name): text_of(layer["library"]) for name, layer in manifest[LAYERS].items()}
        unknown = sorted({*folders.values()} - {*manifest[LIBRARIES]})
        if unknown:
            raise ValueError(f"it has no folder {', '.join(unknown)}")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _undescribed(directory, "model", error) from error
    return folders


def load_library(directory: Path) -> Library | CacheLibrary:
    """Read and verify a bundle. Raises VqccError VQ07xx if it is damaged or none, or that of a whole model."""
    return _library_of(_read(directory))


def _read(directory: Path) -> Bundle:
    """Read a bundle. Of a folder that a whole model lacks, as that of a fused layer's part, its error says so."""
    try:
        return read_bundle(directory)
    except VqccError as error:
        if directory.exists():
            raise
        raise _not_in_model(directory) or error from error


def _not_in_model(directory: Path) -> VqccError | None:
    """What to say of a folder that is not there, if the one above it is a whole model's; else nothing."""
    model = directory.parent
    name = directory.name
    try:
        folders = layer_folders(model)
        layers = read_bundle(model).manifest[LAYERS]
        fused = {
            part: (layer, list(layers[layer]["parts"])) for layer in layers for part in layers[layer]["parts"]
        }
    except (VqccError, KeyError, TypeError):
        return None
    if name in fused:
        whole, parts = fused[name]
        message = f"{name} is a part of {whole} in the model {model}"
        help_text = (
            f"give {model / folders[whole]}; its weight is that of {' and '.join(parts)} together, as "
            f"`vqcc quantize --fuse {whole}` makes it"
        )
    elif name in folders:
        message = f"{name} shares the library {folders[name]} of the model {model}"
        help_text = f"give {model / folders[name]}"
    else:
        message = f"the model {model} has no library {name}"
        listed = list(dict.fromkeys(folders.values()))
        near = did_you_mean(name, listed)
        help_text = " ".join(filter(None, (near, f"it has {', '.join(listed)}")))
    return VqccError(Diagnostic("VQ0704", message, help=help_text))


def _library_of(bundle: Bundle) -> Library | CacheLibrary:
    directory = bundle.directory
    if LIBRARIES in bundle.manifest:
        raise ModelBundleError(
            Diagnostic(
                "VQ0704",
                f"{directory} is a whole model, of which this takes one library",
                help=f"give one of its folders: {', '.join(bundle.manifest[LIBRARIES])}",
            )
        )
    if bundle.manifest.get("kind") == WRITTEN_KERNELS:
        raise VqccError(
            Diagnostic(
                "VQ0704",
                f"{directory} holds hand-written kernels, no library",
                help="vqcc cubin wrote it: their own program runs them; give a directory that vqcc compile wrote",
            )
        )
    try:
        return _described(bundle)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _undescribed(directory, "library", error) from error


def _undescribed(directory: Path, what: str, error: Exception) -> VqccError:
    """For a manifest whose hash is right, and whose fields make no sense."""
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return VqccError(
        Diagnostic(
            "VQ0705",
            f"the manifest of {directory} describes no {what}: {reason}",
            help="it was written by another vqcc or changed by hand: compile the spec again",
        )
    )


def load_weight_library(directory: Path) -> Library:
    """The same for what only a library over a quantized weight will do. Raises VQ0713 for one over a KV cache."""
    library = load_library(directory)
    if isinstance(library, Library):
        return library
    raise VqccError(
        Diagnostic(
            "VQ0713",
            f"library {library.name} is over a KV cache, {library.op.kind}, not over a weight",
            help="its codebooks are packed from two tensors: give --keys NAME and --values NAME",
        )
    )


def load_cache_library(directory: Path) -> CacheLibrary:
    """The same for what only a library over a KV cache will do. Raises VQ0713 for one over a quantized weight."""
    library = load_library(directory)
    if isinstance(library, CacheLibrary):
        return library
    raise VqccError(
        Diagnostic(
            "VQ0713",
            f"library {library.name} is over a weight, {library.op.kind}, not over a KV cache",
            help="leave --keys and --values out: its tensors are named by --tensor",
        )
    )


def _described(bundle: Bundle) -> Library | CacheLibrary:
    """Read the manifest's fields, trusting none: its hash says what was written, not that it makes sense."""
    manifest = bundle.manifest
    kind = manifest["op"]["kind"]
    if kind not in WEIGHT_OPS:
        return read_cache_library(bundle)
    op = WEIGHT_OPS[kind].model_validate(manifest["op"])
    variants = {variant.suffix: variant for variant in op.variants()}
    library = Library(
        **common_fields(bundle),
        algorithm=from_mapping(manifest["algorithm"]),
        op=op,
        layout=_layout(manifest["layout"]),
        builds={
            text_of(name): GpuKernels(
                **gpu_fields(gpu),
                kernels=tuple(
                    Kernel(
                        **kernel_fields(kernel),
                        variant=variants[kernel["variant"]],
                        arguments=op.arguments(variants[kernel["variant"]]),
                        tile=dataclass_of(op.tile_types[kernel["strategy"]["dataflow"]], kernel["tile"]),
                    )
                    for kernel in gpu["kernels"]
                ),
            )
            for name, gpu in manifest["gpus"].items()
        },
        profile_codes=_profile_codes(manifest.get("profile")),
    )
    check_described(library, library.layout_id)
    return library


def _layout(values: Mapping[str, Any]) -> CodeLayout:
    fields_of = {name: value for name, value in values.items() if name != "kind"}
    layout: CodeLayout = dataclass_of(CODE_LAYOUTS[values["kind"]], fields_of)
    return layout


def _profile_codes(profile: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Hashes of the codes that the library's profile counted; none where it was built without one."""
    if profile is None:
        return ()
    codes = tuple(map(text_of, profile["codes"]))
    if not codes or not all(re.fullmatch("[0-9a-f]{64}", item) for item in codes):
        raise ValueError("its profile names no codes")
    return codes
