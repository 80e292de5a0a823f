"""Benchmark rows of libraries over a KV cache, beside fp16 attention in the same run where torch is there."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.runtime.backend import CudaBackend, gpus_for
from vqcc.runtime.timing import copies_past_cache, time_kernel, time_torch
from vqcc.verify.harness import not_repeated
from vqcc.verify.sampled_cache import page_shape, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.cache_layouts import CacheLayout
    from vqcc.cache_library import AppendKernel, CacheKernel, CacheLibrary
    from vqcc.ops.attention.model import AttentionDecode
    from vqcc.ops.base import Variant
    from vqcc.runtime.backend import CudaRunner
    from vqcc.runtime.device import Device, DeviceArray
    from vqcc.runtime.timing import Timing
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.verify.sampled_cache import SampledCache

__all__ = ["AttentionBaselines", "bench_cache_library", "longest_context"]


#: Part of the free memory that caches may take.
_FREE_SHARE = 0.8
#: What a workspace holds at first.
_ZEROS = np.zeros(1 << 16, np.uint8)


class AttentionBaselines:
    """Times of torch's attention over an fp16 cache, by backend and shape, each measured once; none without PyTorch."""

    BACKENDS = ("cudnn", "flash")

    def __init__(self, l2_bytes: int) -> None:
        self._l2_bytes = l2_bytes
        self._times: dict[tuple[Any, ...], dict[str, Timing]] = {}

    def times(
        self, batch: int, q_heads: int, kv_heads: int, head_dim: int, context: int, dtype: str
    ) -> Mapping[str, Timing]:
        """One query token of each sequence over `context` tokens; backends that refuse the shape are left out."""
        key = (batch, q_heads, kv_heads, head_dim, context, dtype)
        if key not in self._times:
            self._times[key] = self._measure(*key)
        return self._times[key]

    def _measure(
        self, batch: int, q_heads: int, kv_heads: int, head_dim: int, context: int, dtype: str
    ) -> dict[str, Timing]:
        try:
            import torch
            from torch.nn.attention import SDPBackend, sdpa_kernel
        except ImportError:
            return {}
        kind = getattr(torch, dtype)
        copies = copies_past_cache(4 * batch * kv_heads * context * head_dim, self._l2_bytes)
        query = torch.randn(batch, q_heads, 1, head_dim, dtype=kind, device="cuda")
        caches = [
            [torch.randn(batch, kv_heads, context, head_dim, dtype=kind, device="cuda") for _ in "kv"]
            for _ in range(copies)
        ]
        backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
        found = {}
        for name in self.BACKENDS:
            try:
                with sdpa_kernel(backends[name]):
                    found[name] = time_torch(
                        lambda i: torch.nn.functional.scaled_dot_product_attention(
                            query, caches[i][0], caches[i][1], enable_gqa=q_heads != kv_heads
                        ),
                        copies,
                    )
            except RuntimeError:
                continue
        caches.clear()
        torch.cuda.empty_cache()
        return found


@dataclass(frozen=True)
class _Bench:
    """What the rows of one library have in common."""

    library: CacheLibrary
    device: Device
    runner: CudaRunner
    baselines: AttentionBaselines | None
    bandwidth: float
    sides: tuple[CacheTensor, CacheTensor]
    books: Mapping[str, NDArray[Any]]


def bench_cache_library(
    library: CacheLibrary,
    device: Device,
    baselines: AttentionBaselines | None,
    *,
    contexts: Sequence[int] = (),
    seed: int = 0,
    overlap: bool = False,
) -> Iterator[dict[str, Any]]:
    """Time every kernel of `library` that this device runs, at each of `contexts` (default: the op's).

    All sequences are as long as the context. Outputs of some sequences and heads are checked against float64. Rows of
    kernels that append a token to each sequence follow, `kv_append`. Raises VQ0808 for a kernel that attends and gives
    other bits when it is launched again.
    """
    from vqcc.verify.cache_harness import random_sides
    from vqcc.verify.sampled_cache import draw_sampled

    rng = np.random.default_rng(seed)
    sides = random_sides(library, rng)
    gpu = gpus_for(library, device)[0]
    build = library.builds[gpu]
    bench = _Bench(
        library,
        device,
        CudaBackend(device, overlap=overlap).load(library, gpu),
        baselines,
        build.dram_bytes_per_second,
        sides,
        library.pack(*sides).arrays(),
    )
    for context in contexts or (library.op.context,):
        for kernel in build.kernels:
            cache = draw_sampled(library, kernel.variant, context, rng)
            row = _attend_row(bench, kernel, cache)
            yield {**row, "overlap": True} if overlap else row
            for append in build.appends:
                if append.single and _share_a_cache(append.variant, kernel.variant):
                    yield _append_row(bench, append, cache)


def _share_a_cache(one: Variant, other: Variant) -> bool:
    """Whether kernels of these variants read caches of one type, in pages of one size."""
    return (one.dtype, one.sizes["page_tokens"]) == (other.dtype, other.sizes["page_tokens"])


def longest_context(
    op: AttentionDecode, layout: CacheLayout, batch: int, *, l2_bytes: int, free_bytes: int
) -> int:
    """Tokens of each of `batch` sequences that can be timed: the op's context, or half of it, and so on.

    Until the cache and its copies past the L2 take no more than 80 % of the free memory of the device.
    """

    def timed_bytes(context: int) -> int:
        copies = copies_past_cache(read_bytes(layout, batch, context - op.window), l2_bytes)
        return copies * 4 * math.prod(page_shape(layout, batch, context))

    context, least = op.context, max(BLOCK_TOKENS, op.window, op.query_tokens)
    while context // 2 >= least and timed_bytes(context) > _FREE_SHARE * free_bytes:
        context //= 2
    return context


def _attend_row(bench: _Bench, kernel: CacheKernel, cache: SampledCache) -> dict[str, Any]:
    op = bench.library.op
    workspace = bench.device.repeat(_ZEROS, kernel.launch.workspace_bytes)
    blank = {**bench.books, **cache.inputs, **cache.outputs()}
    arrays = {**_uploaded(bench, blank, cache), "workspace": workspace}
    outputs, again = (_launched(bench, kernel, arrays, cache) for _ in range(2))
    if any(again[name].tobytes() != array.tobytes() for name, array in outputs.items()):
        raise not_repeated(kernel.name)
    found = cache.compare(bench.library, kernel, bench.sides, outputs)
    timing = _time(bench, kernel, arrays, cache, cache.scalars)
    row = {
        **_shape(bench.library, kernel, cache),
        **_times(timing),
        "floor_us": round(1e6 * cache.code_bytes / bench.bandwidth, 3),
        "error": float(f"{max(each.relative_error for each in found):.3e}"),
        "within_bound": all(each.passed for each in found),
        "dataflow": kernel.dataflow,
        **_launch(kernel),
    }
    comparable = op.query_tokens == 1 and not op.sliding_window and not op.softcap
    if bench.baselines is None or not comparable:
        return row
    measured = bench.baselines.times(
        cache.batch, op.q_heads, op.kv_heads, op.head_dim, cache.context, kernel.variant.dtype
    )
    return row | _baseline_fields(measured, kernel.variant.dtype)


def _launched(
    bench: _Bench, kernel: CacheKernel, arrays: Mapping[str, DeviceArray], cache: SampledCache
) -> dict[str, NDArray[Any]]:
    """What a launch leaves in its outputs."""
    outputs = cache.outputs()
    bench.runner.enqueue(kernel, arrays, cache.scalars)
    bench.device.synchronize()
    for name, array in outputs.items():
        bench.device.download(arrays[name], array)
    return outputs


def _baseline_fields(measured: Mapping[str, Timing], dtype: str) -> dict[str, Any]:
    """The first backend as the baseline, others by their names."""
    suffix = "fp16" if dtype == "float16" else "bf16"
    fields: dict[str, Any] = {}
    for number, (name, timing) in enumerate(measured.items()):
        prefix = f"{name}_{suffix}" if number else "baseline"
        fields |= {} if number else {"baseline": f"{name}_{suffix}"}
        fields |= {f"{prefix}_{part}": value for part, value in _times(timing).items()}
    return fields


def _append_row(bench: _Bench, kernel: AppendKernel, cache: SampledCache) -> dict[str, Any]:
    own = {"key_books": bench.books["append_key_books"], "value_books": bench.books["append_value_books"]}
    inputs, scalars = cache.new_tokens()
    timing = _time(bench, kernel, _uploaded(bench, {**own, **inputs}, cache), cache, scalars)
    shape = {**_shape(bench.library, kernel, cache), "op": "kv_append"}
    return {**shape, **_times(timing), **_launch(kernel), "within_bound": True}


def _uploaded(
    bench: _Bench, arrays: Mapping[str, NDArray[Any]], cache: SampledCache
) -> dict[str, DeviceArray]:
    uploaded = {name: bench.device.upload(array) for name, array in arrays.items()}
    return {**uploaded, "pages": bench.device.repeat(cache.words, cache.page_bytes)}


def _time(
    bench: _Bench,
    kernel: CacheKernel | AppendKernel,
    arrays: Mapping[str, DeviceArray],
    cache: SampledCache,
    scalars: Mapping[str, float],
) -> Timing:
    """Replays over copies of the cache past the L2; books, queries and outputs, which an engine reuses, are one."""
    device = bench.device
    more = copies_past_cache(cache.code_bytes, device.l2_bytes) - 1
    copies = [arrays, *({**arrays, "pages": device.clone(arrays["pages"])} for _ in range(more))]
    return time_kernel(device, bench.runner, kernel, copies, scalars)


def _shape(library: CacheLibrary, kernel: CacheKernel | AppendKernel, cache: SampledCache) -> dict[str, Any]:
    from vqcc.algorithms.presets import name_of

    op = library.op
    names = [name_of(algorithm) or algorithm.label for algorithm in (library.keys, library.values)]
    return {
        "op": op.kind,
        "algorithm": names[0] if names[0] == names[1] else " / ".join(names),
        "level": library.level,
        "dtype": kernel.variant.dtype,
        "batch": cache.batch,
        "q_heads": op.q_heads,
        "kv_heads": op.kv_heads,
        "head_dim": op.head_dim,
        "context": cache.context,
        "rope": op.rope,
        **({"page_tokens": kernel.variant.sizes["page_tokens"]} if len(op.page_sizes) > 1 else {}),
    }


def _times(timing: Timing) -> dict[str, float]:
    return {"us": round(timing.us, 3), "us_min": round(timing.us_min, 3), "us_max": round(timing.us_max, 3)}


def _launch(kernel: CacheKernel | AppendKernel) -> dict[str, Any]:
    return {
        "grid": kernel.launch.grid,
        "threads": kernel.launch.threads,
        "registers": kernel.registers,
        "workspace_bytes": kernel.launch.workspace_bytes,
    }
