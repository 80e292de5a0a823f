"""The decoder layer of examples/engine in fp16 PyTorch: cuBLAS, torch's fastest attention, one CUDA graph."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["LayerSizes", "TorchTiming", "time_layers"]

EPSILON, ROPE_BASE = 1e-5, 500_000.0
REPEATS, WARM_UP, SAMPLE_SECONDS = 20, 3, 5e-3


@dataclass(frozen=True)
class LayerSizes:
    """Of one decoder layer, and of a launch."""

    hidden: int
    intermediate: int
    q_heads: int
    kv_heads: int
    head_dim: int
    batch: int
    context: int


@dataclass(frozen=True)
class TorchTiming:
    """Microseconds of a layer, and the attention that gave them."""

    us: float
    us_min: float
    us_max: float
    attention: str


class Layers:
    """`count` layers with weights and caches of their own; new keys and values go to the caches' last place."""

    def __init__(self, sizes: LayerSizes, count: int, *, compiled: bool) -> None:
        import torch

        self.sizes, self.count = sizes, count
        half: dict[str, Any] = {"dtype": torch.float16, "device": "cuda"}
        width, key_width = sizes.q_heads * sizes.head_dim, sizes.kv_heads * sizes.head_dim

        def weights(n: int, k: int) -> list[Any]:
            return [torch.randn(n, k, **half) * k**-0.5 for _ in range(count)]

        self.qkv = weights(width + 2 * key_width, sizes.hidden)
        self.o = weights(sizes.hidden, width)
        self.gate_up = weights(2 * sizes.intermediate, sizes.hidden)
        self.down = weights(sizes.hidden, sizes.intermediate)
        self.norms = [torch.ones(sizes.hidden, **half) for _ in range(2)]
        shape = (sizes.batch, sizes.kv_heads, sizes.context, sizes.head_dim)
        self.caches = [[torch.randn(shape, **half) for _ in "kv"] for _ in range(count)]
        self.x = torch.randn(sizes.batch, sizes.hidden, **half)
        pairs = torch.arange(sizes.head_dim // 2, device="cuda") / (sizes.head_dim // 2)
        angles = (sizes.context - 1) * ROPE_BASE**-pairs
        self.cosines = torch.cos(angles).to(torch.float16).repeat(2)
        self.sines = torch.sin(angles).to(torch.float16).repeat(2)
        wrap: Callable[[Any], Any] = (
            (lambda f: torch.compile(f, dynamic=False)) if compiled else (lambda f: f)
        )
        self.add_norm, self.rotate, self.gated = wrap(add_norm), wrap(rotate), wrap(gated)

    def run(self, attention: Callable[[Any, Any, Any], Any]) -> Any:
        """All layers, one after the other."""
        import torch

        sizes, linear = self.sizes, torch.nn.functional.linear
        residual, delta = self.x, torch.zeros_like(self.x)
        heads = (sizes.q_heads, sizes.kv_heads, sizes.kv_heads)
        for i in range(self.count):
            residual, normed = self.add_norm(residual, delta, self.norms[0])
            qkv = linear(normed, self.qkv[i]).view(sizes.batch, sum(heads), sizes.head_dim)
            queries, keys, values = qkv.split(heads, dim=1)
            queries, keys = self.rotate(queries, keys, self.cosines, self.sines)
            own_keys, own_values = self.caches[i]
            own_keys[:, :, -1] = keys
            own_values[:, :, -1] = values
            attended = attention(queries, own_keys, own_values).reshape(sizes.batch, -1)
            residual, normed = self.add_norm(residual, linear(attended, self.o[i]), self.norms[1])
            delta = linear(self.gated(linear(normed, self.gate_up[i])), self.down[i])
        return residual + delta


def add_norm(residual: Any, delta: Any, weight: Any) -> tuple[Any, Any]:
    """The sum and its RMSNorm."""
    import torch

    total = residual + delta
    return total, torch.nn.functional.rms_norm(total, (total.shape[-1],), weight, EPSILON)


def rotate(queries: Any, keys: Any, cosines: Any, sines: Any) -> tuple[Any, Any]:
    """RoPE by halves."""
    import torch

    def turned(rows: Any) -> Any:
        first, second = rows.chunk(2, dim=-1)
        return rows * cosines + torch.cat((-second, first), dim=-1) * sines

    return turned(queries), turned(keys)


def gated(gate_up: Any) -> Any:
    """silu(gate) * up."""
    import torch

    gate, up = gate_up.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def attentions(sizes: LayerSizes) -> Iterator[tuple[str, Callable[[Any, Any, Any], Any]]]:
    """Torch's ways to attend by one query of each head: by backend, by GQA or a group's queries as rows of a head."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    group = sizes.q_heads // sizes.kv_heads
    attend = torch.nn.functional.scaled_dot_product_attention
    backends = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}

    def by_heads(backend: Any) -> Callable[[Any, Any, Any], Any]:
        def run(queries: Any, keys: Any, values: Any) -> Any:
            with sdpa_kernel(backend):
                return attend(queries[:, :, None], keys, values, enable_gqa=group > 1)

        return run

    def by_groups(backend: Any) -> Callable[[Any, Any, Any], Any]:
        def run(queries: Any, keys: Any, values: Any) -> Any:
            rows = queries.reshape(sizes.batch, sizes.kv_heads, group, sizes.head_dim)
            with sdpa_kernel(backend):
                return attend(rows, keys, values)

        return run

    for name, backend in backends.items():
        yield f"{name}, by heads", by_heads(backend)
        if group > 1:
            yield f"{name}, by groups", by_groups(backend)


def time_layers(sizes: LayerSizes, count: int, *, compiled: bool) -> TorchTiming | None:
    """The fastest attention's time of a layer, of `count` in one CUDA graph; None where memory does not suffice."""
    import torch

    try:
        layers = Layers(sizes, count, compiled=compiled)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        return None
    best: TorchTiming | None = None
    for name, attention in attentions(sizes):
        try:
            found = _time(layers, attention, name)
        except RuntimeError:  # a backend that refuses the shape, or needs more memory than there is
            continue
        best = found if best is None or found.us < best.us else best
    del layers
    torch.cuda.empty_cache()
    return best


def _time(layers: Layers, attention: Callable[[Any, Any, Any], Any], name: str) -> TorchTiming:
    """As the engine does: replays back to back, begun while the GPU is busy."""
    import torch

    stream = torch.cuda.Stream()
    with torch.no_grad(), torch.cuda.stream(stream):
        for _ in range(2):  # compiles, and chooses cuBLAS's kernels
            layers.run(attention)
        stream.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream):
            layers.run(attention)
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)

        def sample(launches: int) -> float:
            graph.replay()
            start.record(stream)
            for _ in range(launches):
                graph.replay()
            end.record(stream)
            end.synchronize()
            return start.elapsed_time(end) * 1e-3 / launches

        once = [sample(1) for _ in range(WARM_UP)][-1]
        launches = max(1, min(200, math.floor(SAMPLE_SECONDS / once)))
        each = [1e6 * sample(launches) / layers.count for _ in range(REPEATS)]
    return TorchTiming(statistics.median(each), min(each), max(each), name)
