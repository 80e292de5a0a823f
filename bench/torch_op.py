"""Libraries as PyTorch operators on this machine's GPU: eager, compiled and captured launches give the same bits.

    python bench/torch_op.py --gpu h200 -o bench/results/h200/torch-op.json

A linear layer at several m, and attention that appends and attends over some decoding steps, are held against float64.
What torch.compile makes of them, with and without CUDA graphs of its own, what a captured graph replays, and launches
of other threads and streams must be equal to eager launches in every bit. Rows say what a call costs its thread.
`--only-compile` compiles the libraries into `--cache`, without a GPU. Exit code 4 for any difference.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gemv_levels import add_common, cache_of, document_of, save_document

import vqcc.torch
from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.library import load_cache_library, load_weight_library
from vqcc.ops.attention.reference import attend
from vqcc.spec.load import parse_spec
from vqcc.tensors.cache_packed_file import save_packed_books
from vqcc.tensors.packed_file import save_packed
from vqcc.verify.cache_harness import random_sides
from vqcc.verify.cache_tolerance import compare_outputs
from vqcc.verify.host_cache import draw_cache
from vqcc.verify.tolerance import compare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import Tensor

    from vqcc.tensors.cache_tensor import CacheTensor

PRESETS = ("aqlm-2x8", "gptvq-2")
N, K, ROWS = 4096, 4096, (1, 4, 16, 64)
#: Attention: sequences, tokens that are prefilled, decoding steps, and tokens of the window.
BATCH, PREFILLED, STEPS, WINDOW = 2, 70, 6, 32
Q_HEADS, KV_HEADS, HEAD_DIM, PAGE_TOKENS = 8, 2, 128, 32
#: Launches of a graph, and calls that are timed at a time: fewer than a stream's queue holds.
LAUNCHES, CALLS, REPEATS = 64, 200, 9


@dataclass(frozen=True)
class TorchDevice:
    """What a results file says of the GPU, without PyCUDA."""

    name: str
    driver_release: str

    @classmethod
    def current(cls) -> TorchDevice:
        """PyTorch's."""
        release = Path("/sys/module/nvidia/version")
        text = (
            release.read_text(encoding="ascii").strip() if release.is_file() else f"CUDA {torch.version.cuda}"
        )
        return cls(torch.cuda.get_device_name(), text)


def specs(gpu: str) -> dict[str, str]:
    """Every library's spec, by its name."""
    head = f"vqcc: 1\ngpu: {gpu}\n"
    linear = f"op: {{kind: linear, m: {{min: 1, max: {max(ROWS)}}}, n: {N}, k: {K}}}\n"
    attention = (
        f"op: {{kind: attention_decode, q_heads: {Q_HEADS}, kv_heads: {KV_HEADS}, head_dim: {HEAD_DIM}, "
        f"batch: {BATCH}, context: 4096, page_size: {PAGE_TOKENS}, window: {WINDOW}}}\n"
    )
    return {
        **{
            f"torch-{preset}": f"{head}name: torch-{preset}\nalgorithm: {preset}\n{linear}"
            for preset in PRESETS
        },
        "torch-attention": f"{head}name: torch-attention\nalgorithm: cq-2\n{attention}",
    }


def build(name: str, options: argparse.Namespace, out: Path) -> Path:
    """Compile a library, or take it from the cache; its bundle."""
    spec = parse_spec(specs(options.gpu)[name].encode(), name)
    write_library(build_library(spec, toolchain=find("nvrtc"), cache=cache_of(options)), out / name)
    return out / name


def same(wanted: Tensor, found: Tensor) -> bool:
    """Whether two results are equal in every bit."""
    return torch.equal(wanted.view(torch.int16), found.view(torch.int16))


def captured(call: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
    """A graph of one call, and where its replays put their result."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def in_a_thread(call: Callable[[], Tensor]) -> Tensor:
    """The result of a call that a new thread makes, whose first use of CUDA it is."""
    found: list[Tensor] = []

    def run() -> None:
        found.append(call())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    torch.cuda.synchronize()
    return found[0]


def on_two_streams(layers: tuple[Any, Any], x: Tensor) -> list[Tensor]:
    """Results of launches beside each other, of layers with workspaces of their own."""
    streams = [torch.cuda.Stream() for _ in layers]
    torch.cuda.synchronize()
    found = []
    for _ in range(LAUNCHES):
        for layer, stream in zip(layers, streams, strict=True):
            with torch.cuda.stream(stream):
                found.append(layer(x))
    torch.cuda.synchronize()
    return found


def microseconds(call: Callable[[], object]) -> float:
    """What a call costs its thread: the least mean of some repeats, the GPU's work not waited for."""
    best = float("inf")
    for _ in range(REPEATS):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(CALLS):
            call()
        best = min(best, (time.perf_counter() - start) / CALLS)
    torch.cuda.synchronize()
    return round(best * 1e6, 2)


def graph_microseconds(call: Callable[[], Tensor]) -> float:
    """GPU time of a launch within a graph of many."""

    def many() -> Tensor:
        for _ in range(LAUNCHES - 1):
            call()
        return call()

    graph, _ = captured(many)
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    times = []
    for _ in range(REPEATS):
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3 / LAUNCHES)
    return round(sorted(times)[REPEATS // 2], 2)


def linear_rows(bundle: Path) -> Iterator[dict[str, Any]]:
    """Rows of a linear library, one for each m."""
    described = load_weight_library(bundle)
    tensor = described.algorithm.random_tensor(np.random.default_rng(0), "w", N, K)
    packed = bundle.with_suffix(".safetensors")
    save_packed(packed, described, [(tensor, described.pack(tensor))])
    decoded = tuple(described.algorithm.decode(tensor, magnitudes=each) for each in (False, True))
    library: Any = vqcc.torch.load(bundle)
    bias = torch.randn(N, generator=torch.Generator().manual_seed(1)).half().cuda()
    layer = vqcc.torch.Linear(library, library.weight(packed), bias)
    other = vqcc.torch.Linear(library, library.weight(packed).own_workspace(), bias)
    dense = torch.nn.Linear(K, N, dtype=torch.float16, device="cuda")
    compiled = torch.compile(layer, fullgraph=True, dynamic=True)
    # Of the functions that graphs of PyTorch's own are made of, one for each shape.
    graphed = torch.compile(layer, fullgraph=True, mode="reduce-overhead", dynamic=False)
    for m in ROWS:
        xs = [
            torch.randn(m, K, generator=torch.Generator().manual_seed(seed)).half().cuda()
            for seed in range(3)
        ]
        wanted = [layer(x) for x in xs]
        static = xs[0].clone()
        graph, result = captured(lambda static=static: layer(static))
        equal = {"compiled": True, "cudagraph_trees": True, "graph": True}
        for x, y in zip(xs * 2, wanted * 2, strict=True):
            static.copy_(x)
            graph.replay()
            equal["graph"] &= same(y, result)
            # An eager launch between replays shares their workspace.
            equal["graph"] &= same(y, layer(x))
            equal["compiled"] &= same(y, compiled(x))
            torch.compiler.cudagraph_mark_step_begin()
            equal["cudagraph_trees"] &= same(y, graphed(x).clone())
        equal["thread"] = same(wanted[0], in_a_thread(lambda x=xs[0]: layer(x)))
        equal["streams"] = all(same(wanted[0], y) for y in on_two_streams((layer, other), xs[0]))
        equal["strided"] = same(wanted[1], layer(torch.cat([xs[1], xs[1]], dim=1)[:, :K]))
        inputs = {"x": xs[0].cpu().numpy(), "bias": bias.cpu().numpy()}
        exact, magnitude = described.op.reference(*decoded, inputs)
        gpu = next(iter(described.builds.values()))
        launches, _ = library._runtime.loaded(0)
        kernel = gpu.kernels[launches.select("float16", m)]
        roundings = described.op.longest_sum(kernel.tile, described.algorithm)
        found = compare(wanted[0].cpu().numpy(), exact, magnitude, roundings, "float16")
        x = xs[0]
        yield {
            "op": "linear",
            "algorithm": bundle.name.removeprefix("torch-"),
            "n": N,
            "k": K,
            "m": m,
            "error": float(found.relative_error),
            "within_bound": bool(found.passed),
            "equal": equal,
            "call_us": microseconds(lambda x=x: layer(x)),
            "compiled_call_us": microseconds(lambda x=x: compiled(x)),
            "dense_call_us": microseconds(lambda x=x: dense(x)),
            "graph_us": graph_microseconds(lambda x=x: layer(x)),
            "workspace_bytes": library.workspace_bytes(),
        }


@dataclass(frozen=True)
class Tokens:
    """Queries, keys and values of all positions of a test, on the GPU."""

    queries: Tensor
    keys: Tensor
    values: Tensor

    @classmethod
    def draw(cls) -> Tokens:
        """Random ones, [sequences, tokens, heads, channels]."""
        generator = torch.Generator().manual_seed(0)
        shapes = [(BATCH, PREFILLED + STEPS, heads, HEAD_DIM) for heads in (Q_HEADS, KV_HEADS, KV_HEADS)]
        return cls(*(torch.randn(*shape, generator=generator).half().cuda() for shape in shapes))

    def at(self, position: int) -> list[Tensor]:
        """Those of one position."""
        return [each[:, position : position + 1] for each in (self.queries, self.keys, self.values)]


class Decoding:
    """A cache with its first tokens, and a layer that decodes further ones into it by `step`."""

    def __init__(self, library: Any, books: Any, tokens: Tokens, step: Callable[..., Tensor]) -> None:
        pages = -(-(PREFILLED + STEPS) // PAGE_TOKENS)
        self.cache = library.cache(batch=BATCH, pages=BATCH * pages)
        order = torch.randperm(BATCH * pages, generator=torch.Generator().manual_seed(2))
        self.table = order.reshape(BATCH, pages).int().cuda()
        self.lengths = torch.full((BATCH,), PREFILLED, dtype=torch.int32, device="cuda")
        self.tokens, self.step = tokens, step
        first = slice(0, PREFILLED)
        library.append(
            self.cache,
            books,
            tokens.keys[:, first],
            tokens.values[:, first],
            self.lengths,
            page_table=self.table,
        )

    def run(self) -> list[Tensor]:
        """Outputs of all steps."""
        outputs = []
        for position in range(PREFILLED, PREFILLED + STEPS):
            self.lengths += 1
            outputs.append(self.step(*self.tokens.at(position), self.cache, self.lengths, self.table).clone())
        self.cache.check(self.lengths, self.table)
        return outputs

    def run_captured(self) -> list[Tensor]:
        """The same by replays of one graph, whose step counts the lengths up itself."""
        new = [each.clone() for each in self.tokens.at(PREFILLED)]

        def body() -> Tensor:
            self.lengths.add_(1)
            return self.step(*new, self.cache, self.lengths, self.table)

        graph, result = captured(body)
        outputs = []
        for position in range(PREFILLED, PREFILLED + STEPS):
            for static, own in zip(new, self.tokens.at(position), strict=True):
                static.copy_(own)
            graph.replay()
            outputs.append(result.clone())
        return outputs

    def equals(self, other: Decoding) -> bool:
        """Whether pages and windows are the same."""
        buffers = zip(self.cache.buffers(), other.cache.buffers(), strict=True)
        return all(torch.equal(own.view(torch.uint8), theirs.view(torch.uint8)) for own, theirs in buffers)


def attention_row(bundle: Path) -> dict[str, Any]:
    """The row of the attention library."""
    described = load_cache_library(bundle)
    sides = random_sides(described, np.random.default_rng(0))
    packed = bundle.with_suffix(".safetensors")
    save_packed_books(packed, described, "layer", *sides, described.pack(*sides))
    library: Any = vqcc.torch.load(bundle)
    books = library.books(packed)
    layer = vqcc.torch.Attention(library, books)
    tokens = Tokens.draw()
    runs = {
        name: Decoding(library, books, tokens, step)
        for name, step in (
            ("eager", layer),
            ("compiled", torch.compile(layer, fullgraph=True)),
            ("graph", layer),
        )
    }
    outputs = {name: run.run_captured() if name == "graph" else run.run() for name, run in runs.items()}
    equal = {
        name: runs["eager"].equals(runs[name])
        and all(same(own, other) for own, other in zip(outputs["eager"], outputs[name], strict=True))
        for name in ("compiled", "graph")
    }
    found = against_float64(described, sides, tokens, outputs["eager"][-1])
    run = runs["eager"]
    new = tokens.at(PREFILLED)
    operands = (run.cache, books, run.lengths)
    return {
        "op": "attention_decode",
        "algorithm": "cq-2",
        "batch": BATCH,
        "q_heads": Q_HEADS,
        "kv_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "context": PREFILLED + STEPS,
        "error": float(found.relative_error),
        "within_bound": bool(found.passed),
        "equal": equal,
        "call_us": microseconds(lambda: library.attend(new[0], *operands, page_table=run.table)),
        "append_call_us": microseconds(
            lambda: library.append(*operands[:2], *new[1:], run.lengths, page_table=run.table)
        ),
        "workspace_bytes": library.workspace_bytes(),
    }


def against_float64(
    described: Any, sides: tuple[CacheTensor, CacheTensor], tokens: Tokens, outputs: Tensor
) -> Any:
    """The last step's outputs against the reference, whose cache is filled on the CPU."""
    counts = [PREFILLED + STEPS] * BATCH
    empty = draw_cache(
        np.random.default_rng(0), described.layout, WINDOW, np.float16, sides, [0] * BATCH, max(counts)
    )
    cache = empty.appended(sides, (tokens.keys.cpu().numpy(), tokens.values.cpu().numpy()), counts)
    keys, values = (
        [cache.decoded(side, sequence, keys=side is sides[0]) for sequence in range(BATCH)] for side in sides
    )
    queries = tokens.queries[:, -1:].cpu().numpy()
    exact = attend(queries, keys, values, scale=HEAD_DIM**-0.5)
    kernel = next(iter(described.builds.values())).kernels[0]
    return compare_outputs(outputs.cpu().numpy(), exact, described, kernel, counts[0])


def is_right(row: dict[str, Any]) -> bool:
    """Whether a row has no difference."""
    return bool(row["within_bound"] and all(row["equal"].values()))


def main() -> None:
    """Run the checks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-compile", action="store_true", help="into --cache; needs no GPU")
    options = add_common(parser, output=Path("torch-op.json")).parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundles = {each: build(each, options, Path(name)) for each in specs(options.gpu)}
        if options.only_compile:
            return
        # Shapes, types and layers of a program that checks them all in one process.
        torch._dynamo.config.recompile_limit = 64
        rows: list[dict[str, Any]] = []
        with torch.no_grad():
            for each, bundle in bundles.items():
                found = [attention_row(bundle)] if each == "torch-attention" else linear_rows(bundle)
                for row in found:
                    rows.append(row)
                    print(row, flush=True)
        device: Any = TorchDevice.current()
        save_document(document_of(rows, device, "torch_op", "", options), options)
    if not all(map(is_right, rows)):
        sys.exit(4)


if __name__ == "__main__":
    main()
