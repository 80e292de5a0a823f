"""Every level of attention on this machine's GPU: CQ-2 and CQ-4 over MHA and GQA caches, beside fp16 attention.

    python bench/attention_levels.py --gpu h200 -o bench/results/h200/attention-levels.json

    python bench/attention_levels.py --gpu h200 --make DIR, then, on the GPU, ... --libraries DIR -o FILE

Compiles a library for each problem and level, here or beforehand, checks its outputs against float64 on the GPU, times
it beside cuDNN's and flash attention of PyTorch in fp16, and writes the rows, those of kernels that append a token
among them. The file's `empty_us` is the time of an empty kernel in the same run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemv_levels import add_common, document_of, restricted_to, save_document

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.levels import LEVELS
from vqcc.library import load_cache_library
from vqcc.runtime.cache_bench import AttentionBaselines, bench_cache_library
from vqcc.runtime.device import open_device
from vqcc.runtime.timing import REPLAYS, summarize
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.runtime.device import Device

PRESETS = ("cq-2", "cq-4", "kv-4-8-1")
HEADS = ((32, 32), (32, 8))
#: Batch and context.
PROBLEMS = (*((batch, context) for batch in (1, 8, 16, 32) for context in (1024, 4096, 32768)), (1, 196608))
#: One codebook for all groups: of these only best.
BEST_ONLY = ("kv-4-8-1",)
COMPILERS = 15
EMPTY = 'extern "C" __global__ void empty() {}\n'
EMPTY_LAUNCHES = 128


@dataclass(frozen=True)
class Case:
    """A library of one kernel that attends: an algorithm, heads of queries and of the cache, and a launch."""

    preset: str
    heads: tuple[int, int]
    batch: int
    context: int
    level: str
    rope: str = "none"

    @property
    def name(self) -> str:
        """What the library is called."""
        q_heads, kv_heads = self.heads
        return f"{self.preset}-{q_heads}-{kv_heads}-b{self.batch}-c{self.context}-{self.level}-{self.rope}"

    def spec(self, gpu: str) -> bytes:
        """The spec to compile."""
        q_heads, kv_heads = self.heads
        return (
            f"vqcc: 1\nname: bench-{self.name}\nalgorithm: {self.preset}\nop: {{kind: attention_decode, "
            f"q_heads: {q_heads}, kv_heads: {kv_heads}, head_dim: 128, batch: {self.batch}, context: {self.context}, "
            f"rope: {self.rope}}}\ngpu: {gpu}\nlevel: {self.level}\n"
        ).encode()


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--level", action="append", choices=LEVELS)
    parser.add_argument("--rope", action="append", choices=("none", "half"))
    parser.add_argument("--problem", action="append", metavar="BxT", help="only these batches and contexts")
    parser.add_argument("--heads", action="append", metavar="QxKV", help="only these heads")
    parser.add_argument(
        "--make", type=Path, metavar="DIR", help="compile into this folder, and measure nothing"
    )
    parser.add_argument("--libraries", type=Path, metavar="DIR", help="libraries that --make has compiled")
    parser.add_argument("--jobs", type=int, default=COMPILERS, help="processes that compile")
    options = add_common(parser, output=Path("attention-levels.json")).parse_args()
    cases = list(cases_of(options))
    if options.make is not None:
        with ProcessPoolExecutor(options.jobs) as compilers:
            list(compilers.map(partial(make, gpu=options.gpu, out=options.make), cases))
        return
    rows = []
    with tempfile.TemporaryDirectory() as directory, open_device() as device:
        empty = time_empty(device, options.gpu)
        print(f"an empty kernel: {empty:.2f} us", flush=True)
        arguments = restricted_to(options, "preset", "level", "rope", "problem", "heads")
        for row in measure(cases, options, Path(directory), device):
            rows.append(row)
            show(row)
            # The whole file after every row: an interruption loses none.
            document = document_of(rows, device, "attention_levels", arguments, options)
            document["meta"]["empty_us"] = round(empty, 3)
            save_document(document, options)
    if not all(row["within_bound"] for row in rows):
        sys.exit(4)


def cases_of(options: argparse.Namespace) -> Iterator[Case]:
    """Every level of every problem; keys rotated after decoding of best alone."""
    for batch, context in PROBLEMS:
        if options.problem and f"{batch}x{context}" not in options.problem:
            continue
        for heads in HEADS:
            if options.heads and f"{heads[0]}x{heads[1]}" not in options.heads:
                continue
            for preset in options.preset or PRESETS:
                for rope in options.rope or ("none", "half"):
                    levels = ("best",) if preset in BEST_ONLY or rope != "none" else LEVELS
                    yield from (
                        Case(preset, heads, batch, context, level, rope)
                        for level in options.level or levels
                        if level in levels
                    )


def measure(
    cases: list[Case], options: argparse.Namespace, out: Path, device: Device
) -> Iterator[dict[str, Any]]:
    """Rows of all cases, in their order; kernels that append are timed at level best."""
    baselines = AttentionBaselines(device.l2_bytes)
    for case, path in libraries_of(cases, options, out):
        measured = bench_cache_library(load_cache_library(path), device, baselines)
        yield next(measured)  # of the kernel that attends; others are timed as they are asked for
        if case.level == "best" and case.rope == "none":
            yield from measured


def libraries_of(cases: list[Case], options: argparse.Namespace, out: Path) -> Iterator[tuple[Case, Path]]:
    """Where each case's library lies: made before, or compiled into `out` while others are timed."""
    if options.libraries is not None:
        for case in cases:
            path = options.libraries / f"bench-{case.name}"
            if path.is_dir():
                yield case, path
            else:
                print(f"{case.name}: {path} is not there", flush=True)
        return
    # Processes of their own: planning is Python, and a device is open in this one.
    with ProcessPoolExecutor(options.jobs, get_context("spawn")) as compilers:
        jobs: list[tuple[Case, Future[str | None]]] = [
            (case, compilers.submit(make, case, options.gpu, out)) for case in cases
        ]
        for case, job in jobs:
            name = job.result()
            if name is not None:
                yield case, out / name


def make(case: Case, gpu: str, out: Path) -> str | None:
    """Compile one library; its name, or None where the level cannot be."""
    try:
        built = build_library(parse_spec(case.spec(gpu), case.name), toolchain=find("nvrtc"), cache=None)
    except VqccError as error:
        print(f"{case.name}: {error}", flush=True)
        return None
    write_library(built, out / built.name)
    return built.name


def time_empty(device: Device, gpu: str) -> float:
    """Microseconds of a launch of a kernel that does nothing, timed as others are."""
    from vqcc import gpus

    compiled = find("nvrtc").compile(
        EMPTY, target=gpus.load(gpu).target, want_ptx=False, file_name="empty.cu"
    )
    function = device.load(compiled.cubin).function("empty", 0, 0)

    def enqueue() -> None:
        for _ in range(EMPTY_LAUNCHES):
            device.launch(function, [], 1, 32, 0)

    enqueue()
    device.synchronize()
    graph = device.record_graph(enqueue)
    device.time_replays(graph, REPLAYS)
    return summarize(device.time_replays(graph, REPLAYS), EMPTY_LAUNCHES).us


def show(row: dict[str, Any]) -> None:
    """One line per row, as it comes."""
    head = f"{row['algorithm']:9} {row['batch']:2} x {row['q_heads']}/{row['kv_heads']} x {row['context']:<6}"
    if row["op"] == "kv_append":
        print(f"{head} appends a token: {row['us']:.2f} us", flush=True)
        return
    ratio = row["baseline_us"] / row["us"] if "baseline_us" in row else float("nan")
    print(
        f"{head} {row['level']:4} rope {row['rope']:5} {row['dataflow']:8} {row['us']:9.2f} us  "
        f"{ratio:5.2f} x {row.get('baseline')}  floor {row['floor_us']:.1f} us  "
        f"error {row['error']:.1e} {'ok' if row['within_bound'] else 'OUTSIDE ITS BOUND'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
