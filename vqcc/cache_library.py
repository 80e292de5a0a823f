"""A compiled library over a KV cache as its manifest describes it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from vqcc.algorithms import from_mapping
from vqcc.compiled import (
    CompiledKernel,
    CompiledLibrary,
    GpuKernels,
    check_described,
    common_fields,
    gpu_fields,
    kernel_fields,
)
from vqcc.levels import Strategy
from vqcc.manifest_values import text_of
from vqcc.ops.attention.model import AttentionDecode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.algorithms.base import Algorithm
    from vqcc.cache_layouts import CacheLayout
    from vqcc.codegen.bundle import Bundle
    from vqcc.levels import Dataflow
    from vqcc.ops.base import Variant
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem
    from vqcc.tensors.cache_packing import PackedBooks
    from vqcc.tensors.cache_tensor import CacheTensor

__all__ = [
    "AppendKernel",
    "CacheGpuKernels",
    "CacheKernel",
    "CacheLibrary",
    "describe_append",
    "describe_cache_kernel",
    "describe_cache_library",
    "layout_id_of",
    "read_cache_library",
]


@dataclass(frozen=True)
class CacheKernel(CompiledKernel):
    """A kernel that attends, of `rows` query rows at a time."""

    dataflow: Dataflow
    rows: int


@dataclass(frozen=True)
class AppendKernel(CompiledKernel):
    """A kernel that appends a token to each sequence (`single`), or any number; its grid serves any batch."""

    single: bool


@dataclass(frozen=True)
class CacheGpuKernels(GpuKernels[CacheKernel]):
    """Kernels that attend, and those that append to the cache that these read."""

    appends: tuple[AppendKernel, ...]

    @property
    def in_cubin(self) -> tuple[CompiledKernel, ...]:
        """Every kernel that the cubin has."""
        return (*self.kernels, *self.appends)


@dataclass(frozen=True)
class CacheLibrary(CompiledLibrary[CacheKernel]):
    """A library over a KV cache: algorithms of keys and of values, op, and the layout that all kernels share.

    `by_rows`: kernels that attend look entries up by rows (EntryRows), not each in a codebook by itself.
    """

    builds: Mapping[str, CacheGpuKernels]
    keys: Algorithm
    values: Algorithm
    op: AttentionDecode
    layout: CacheLayout
    by_rows: bool

    @property
    def layout_id(self) -> str:
        """What packed books must carry to fit this library."""
        return _layout_identity(self.keys, self.values, self.op, self.layout, by_rows=self.by_rows)

    def layout_of(self, variant: Variant) -> CacheLayout:
        """The layout of a kernel's cache, in pages of its size."""
        return self.layout.in_pages(variant.sizes["page_tokens"])

    def pack(self, keys: CacheTensor, values: CacheTensor) -> PackedBooks:
        """Pack the books of keys and values, which fit this library, as its kernels read them."""
        from vqcc.ops.attention.reference import turn_steps
        from vqcc.tensors.cache_packing import pack_cache

        op = self.op
        turns = None if op.rope == "none" else turn_steps(op.head_dim, op.rope_base, op.rope_scaling)
        return pack_cache(keys, values, by_rows=self.by_rows, rotations=turns)


def describe_cache_library(problem: CacheProblem, plan: CachePlan) -> dict[str, Any]:
    """What all kernels of a library share, as the manifest keeps it."""
    by_rows, layout = _reads_rows(plan.strategy), _shared_layout(problem, plan)
    return {
        "algorithm": {"key": problem.keys.mapping(), "value": problem.values.mapping()},
        "op": problem.op.model_dump(mode="json"),
        "level": problem.level,
        "layout": {"kind": "token-blocks", **asdict(layout), "block_bytes": layout.block_bytes},
        "books": "rows" if by_rows else "entries",
        "layout_id": layout_id_of(problem, plan),
    }


def describe_cache_kernel(problem: CacheProblem, plan: CachePlan) -> dict[str, Any]:
    """A kernel that attends as the manifest keeps it."""
    assert plan.launch is not None
    assert plan.tile is not None
    assert plan.resources is not None
    return {
        "name": plan.kernel,
        "variant": problem.variant.suffix,
        "strategy": asdict(plan.strategy),
        "tile": {constant.name: constant.value for constant in plan.tile.constants()},
        "launch": asdict(plan.launch),
        "resources": plan.resources.to_json(),
        "arguments": [asdict(argument) for argument in problem.op.arguments(problem.variant)],
    }


def describe_append(problem: CacheProblem, plan: AppendPlan) -> dict[str, Any]:
    """A kernel that appends as the manifest keeps it; `problem` is one of its element type."""
    assert plan.launch is not None
    assert plan.resources is not None
    several = len(problem.op.page_sizes) > 1
    return {
        "name": plan.kernel,
        "dtype": plan.tile.dtype,
        **({"page_tokens": plan.page_tokens} if several else {}),
        "single": plan.single,
        "tile": {constant.name: constant.value for constant in plan.tile.constants()},
        "launch": asdict(plan.launch),
        "resources": plan.resources.to_json(),
        "arguments": [asdict(argument) for argument in problem.op.append_arguments(problem.variant)],
    }


def read_cache_library(bundle: Bundle) -> CacheLibrary:
    """Read the manifest's fields, trusting none. Raises ValueError, TypeError or KeyError for one that is wrong."""
    manifest = bundle.manifest
    op = AttentionDecode.model_validate(manifest["op"])
    keys, values = (from_mapping(manifest["algorithm"][side]) for side in ("key", "value"))
    library = CacheLibrary(
        **common_fields(bundle),
        keys=keys,
        values=values,
        op=op,
        layout=_layout(manifest["layout"], op, keys, values),
        by_rows={"rows": True, "entries": False}[manifest["books"]],
        builds={text_of(name): _gpu_kernels(gpu, op) for name, gpu in manifest["gpus"].items()},
    )
    check_described(library, library.layout_id)
    return library


def _gpu_kernels(gpu: Mapping[str, Any], op: AttentionDecode) -> CacheGpuKernels:
    variants = {variant.suffix: variant for variant in op.variants()}
    return CacheGpuKernels(
        **gpu_fields(gpu),
        kernels=tuple(
            CacheKernel(
                **kernel_fields(kernel),
                variant=variants[kernel["variant"]],
                arguments=op.arguments(variants[kernel["variant"]]),
                dataflow=Strategy(**kernel["strategy"]).dataflow,
                rows=int(kernel["tile"]["kRows"]),
            )
            for kernel in gpu["kernels"]
        ),
        appends=tuple(_append_kernel(kernel, op) for kernel in gpu["appends"]),
    )


def _append_kernel(kernel: Mapping[str, Any], op: AttentionDecode) -> AppendKernel:
    """A kernel that appends; of a library of one page size the manifest does not say it."""
    single = bool(kernel["single"])
    variants = {
        (dtype, page_tokens): op.append_variant(dtype, page_tokens, single=single)
        for dtype in op.dtype
        for page_tokens in op.page_sizes
    }
    page_tokens = kernel["page_tokens"] if len(op.page_sizes) > 1 else op.page_tokens
    variant = variants[kernel["dtype"], page_tokens]
    return AppendKernel(
        **kernel_fields(kernel), variant=variant, arguments=op.append_arguments(variant), single=single
    )


def _layout(
    values: Mapping[str, Any], op: AttentionDecode, keys: Algorithm, value_algorithm: Algorithm
) -> CacheLayout:
    """The layout that the op has for a manifest's order of keys; everything else that it says must follow from that."""
    layout = op.layout(keys, value_algorithm, values["key_order"])
    if values != {"kind": "token-blocks", **asdict(layout), "block_bytes": layout.block_bytes}:
        raise ValueError("its layout is not the op's")
    return layout


def _reads_rows(strategy: Strategy) -> bool:
    return strategy.dataflow != "decode"


def layout_id_of(problem: CacheProblem, plan: CachePlan) -> str:
    """What packed books and caches of a planned library are known by."""
    layout, by_rows = _shared_layout(problem, plan), _reads_rows(plan.strategy)
    return _layout_identity(problem.keys, problem.values, problem.op, layout, by_rows=by_rows)


def _shared_layout(problem: CacheProblem, plan: CachePlan) -> CacheLayout:
    """A plan's layout less what other kernels of its library may have otherwise: the size of pages."""
    assert plan.layout is not None
    return plan.layout.in_pages(problem.op.page_tokens)


def _layout_identity(
    keys: Algorithm, values: Algorithm, op: AttentionDecode, layout: CacheLayout, *, by_rows: bool
) -> str:
    """Name of what packed books, caches and kernels must agree on, 12 hex digits.

    Books do not depend on pages: of several sizes none is in it.
    """
    agreed = [keys.mapping(), values.mapping(), asdict(layout), by_rows, op.rotation]
    text = json.dumps(agreed, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
