"""Every level of gemv on this machine's GPU: the paper's weight algorithms at Llama-7B's and 65B's shapes, m 1 and 16.

    python bench/gemv_levels.py --gpu h200 -o bench/results/h200/gemv-levels.json
    python bench/gemv_levels.py --gpu h200 --codes zipf -o bench/results/h200/gemv-hot.json

Compiles a library for each m, checks each kernel against float64 on the GPU, times it beside cuBLAS, and writes the
rows. Levels that cannot hold a preset's codebooks are left out, and named. With `--codes zipf` codes are skewed and
specs have their profile, so that entries are hot and o2 caches some in registers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from zipf import save_zipf_profile, zipf_tensor

from vqcc.algorithms.presets import resolve
from vqcc.building import build_library, write_library
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.levels import LEVELS
from vqcc.library import load_library
from vqcc.runtime.bench import Baselines, bench_library, describe_run, shared_weights
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from vqcc.library import Library
    from vqcc.plan import Placement, Plan
    from vqcc.runtime.bench import Weights
    from vqcc.runtime.device import Device

PRESETS = ("quip-4", "aqlm-3", "gptvq-2", "aqlm-2x8")
SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008), (8192, 8192), (22016, 8192), (8192, 22016))
BATCHES = (1, 16)
#: Libraries compiled at a time, and weights made at a time: the latter take gigabytes.
COMPILERS, PACKERS = 14, 3
#: The most that `--cache` keeps.
CACHE_BYTES = 2**32

Group = tuple[str, tuple[int, int]]


@dataclass(frozen=True)
class Codes:
    """What codes the weights have: `uniform`, or `zipf` with a profile of them in `directory`."""

    name: str
    directory: Path

    def prepare(self, group: Group) -> str:
        """Make what a group's specs name; returns the line of a spec that names it."""
        if self.name == "uniform":
            return ""
        preset, (n, k) = group
        path = self.directory / f"{preset}-{n}-{k}.hotness.json"
        save_zipf_profile(path, resolve(preset), n, k)
        return f"profile: {json.dumps(str(path))}\n"

    def weights(self, libraries: Sequence[Library]) -> dict[str, Weights]:
        """Weights that the libraries of a group share, by layout."""
        algorithm, shape = libraries[0].algorithm, libraries[0].op.weight_shape
        if self.name == "uniform":
            return shared_weights(
                libraries, algorithm.random_tensor(np.random.default_rng(0), "random", *shape)
            )
        return shared_weights(libraries, zipf_tensor(algorithm, *shape))


def compile_one(
    group: Group, level: str, m: int, gpu: str, out: Path, profile: Future[str]
) -> tuple[Path, dict[str, Any]] | None:
    """Compile one library; its directory and what the plan says of its kernel. None where a level cannot be."""
    preset, (n, k) = group
    name = f"{preset}-{level}-{n}-{k}-m{m}"
    text = (
        f"vqcc: 1\nname: bench-{name}\nalgorithm: {preset}\n"
        f"op: {{kind: gemv, m: {m}, n: {n}, k: {k}}}\ngpu: {gpu}\nlevel: {level}\n{profile.result()}"
    )
    try:
        built = build_library(parse_spec(text.encode(), name), toolchain=find("nvrtc"), cache=None)
    except VqccError as error:
        print(f"{name}: {error}", flush=True)
        return None
    write_library(built, out / built.name)
    return out / built.name, planned(*built.gpus[0].plans)


def planned(plan: Plan) -> dict[str, Any]:
    """What a row says of a kernel's plan."""
    assert plan.placement is not None
    return {
        "predicted_us": plan.predicted_us or 0.0,
        "dataflow": plan.strategy.dataflow,
        **entries_of(plan.placement),
    }


def entries_of(placement: Placement) -> dict[str, int]:
    """Entries of a table that a kernel keeps in registers, of the table that has most there, and in shared memory."""
    in_registers = max(placement.n_registers)
    return {"register_entries": in_registers, "shared_entries": max(0, placement.n_shared - in_registers)}


def measure(
    groups: list[Group], kernels: list[tuple[str, int]], gpu: str, out: Path, device: Any, codes: Codes
) -> Iterator[dict[str, Any]]:
    """Rows of all `kernels`, levels and m, of each group, which share their weights."""
    baselines = Baselines(device.l2_bytes)
    with ThreadPoolExecutor(COMPILERS) as compilers, ThreadPoolExecutor(PACKERS) as packers:
        profiles = {group: packers.submit(codes.prepare, group) for group in groups}
        built = {
            group: [
                compilers.submit(compile_one, group, *each, gpu, out, profiles[group]) for each in kernels
            ]
            for group in groups
        }

        def prepare(group: Group) -> tuple[list[tuple[Library, dict[str, Any]]], dict[str, Weights]]:
            made = [(load_library(done[0]), done[1]) for job in built[group] if (done := job.result())]
            return made, codes.weights([library for library, _ in made])

        waiting = {group: packers.submit(prepare, group) for group in groups[:PACKERS]}
        for index, group in enumerate(groups):
            made, weights = waiting.pop(group).result()
            if index + PACKERS < len(groups):
                following = groups[index + PACKERS]
                waiting[following] = packers.submit(prepare, following)
            for library, plan in made:
                for row in bench_library(library, device, baselines, weights=weights[library.layout_id]):
                    yield {**row, **plan, "codes": codes.name}


def show(row: dict[str, Any]) -> None:
    """One line per row, as it comes."""
    ratio = row["baseline_us"] / row["us"] if "baseline_us" in row else float("nan")
    print(
        f"{row['algorithm']:10} {row['level']:4} {row['dataflow']:6} {row['n']:6}x{row['k']:<6} m={row['m']:<3} "
        f"{row['us']:8.2f} us "
        f"(predicted {row['predicted_us']:6.1f})  {ratio:5.2f} x cuBLAS  {row['register_entries']:2} in registers  "
        f"error {row['error']:.1e} {'ok' if row['within_bound'] else 'OUTSIDE ITS BOUND'}",
        flush=True,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes")
    parser.add_argument("--level", action="append", choices=LEVELS)
    parser.add_argument("--codes", choices=("uniform", "zipf"), default="uniform")
    options = add_common(parser).parse_args()
    shapes = [shape for shape in SHAPES if not options.shape or f"{shape[0]}x{shape[1]}" in options.shape]
    groups = [(preset, shape) for shape in shapes for preset in options.preset or PRESETS]
    kernels = [(level, m) for level in options.level or LEVELS for m in BATCHES]
    kind = "" if options.codes == "uniform" else f" --codes {options.codes}"
    arguments = restricted_to(options, "preset", "shape", "level") + kind
    run("gemv_levels", arguments, groups, kernels, options, codes=options.codes)


def add_common(parser: argparse.ArgumentParser, *, output: Path | None = None) -> argparse.ArgumentParser:
    """Options of all programs that measure; where to write must be said if there is no `output`."""
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--commit", help="where the tree is no checkout")
    parser.add_argument("--cache", type=Path, metavar="DIR", help="compiled kernels are kept and found there")
    parser.add_argument("-o", "--output", type=Path, required=output is None, default=output)
    return parser


def cache_of(options: argparse.Namespace) -> CompileCache | None:
    """Where compiled kernels are kept, if `--cache` says so."""
    return None if options.cache is None else CompileCache(options.cache, CACHE_BYTES)


def run(
    program: str,
    arguments: str,
    groups: list[Group],
    kernels: list[tuple[str, int]],
    options: argparse.Namespace,
    *,
    codes: str = "uniform",
) -> None:
    """Measure, show, and write the results file; exit code 4 if a kernel is outside its bound."""
    rows = []
    with tempfile.TemporaryDirectory() as directory, open_device() as device:
        out = Path(directory)
        for row in measure(groups, kernels, options.gpu, out, device, Codes(codes, out)):
            rows.append(row)
            show(row)
        save_results(rows, device, program, arguments, options)
    if not all(row["within_bound"] for row in rows):
        sys.exit(4)


def save_results(
    rows: list[dict[str, Any]], device: Device, program: str, arguments: str, options: argparse.Namespace
) -> None:
    """Write the results file: the rows, and what was measured where by which command."""
    save_document(document_of(rows, device, program, arguments, options), options)


def document_of(
    rows: list[dict[str, Any]], device: Device, program: str, arguments: str, options: argparse.Namespace
) -> dict[str, Any]:
    """What a results file says."""
    command = f"python bench/{program}.py --gpu {options.gpu}{arguments} -o {options.output.name}"
    meta = describe_run(device, find("nvrtc").identity, command, options.commit or head())
    return {"meta": meta, "rows": rows}


def save_document(document: dict[str, Any], options: argparse.Namespace) -> None:
    """Write a results file."""
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(document, indent=1) + "\n")


def restricted_to(options: argparse.Namespace, *names: str) -> str:
    """Options that a run was restricted by, as its command line has them."""
    return "".join(f" --{name} {value}" for name in names for value in getattr(options, name) or ())


def shapes_of(options: argparse.Namespace, usual: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Shapes that `--shape NxK` names, listed or not; the usual ones without it."""
    named = [shape.split("x") for shape in options.shape or ()]
    return [(int(n), int(k)) for n, k in named] or list(usual)


def head() -> str | None:
    """The commit of the checkout, if this is one."""
    git = ["git", "rev-parse", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or None


if __name__ == "__main__":
    main()
