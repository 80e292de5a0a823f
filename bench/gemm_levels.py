"""Levels of gemm on this machine's GPU, beside cuBLAS: weight algorithms at shapes of models, m from 32 to 4096.

    python bench/gemm_levels.py --gpu h200 -o bench/results/h200/gemm-levels.json

Every preset and level is checked against float64 on the GPU first, at a ragged shape and several m; then kernels of the
large shapes are timed over random codes, and samples of rows of what they make are held against float64 (sampled.py).
`within_bound` of a row is what both checks said.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemv_levels import add_common, cache_of, document_of, planned, restricted_to, save_document, shapes_of
from light import Weights, as_loaded, time_rows

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.levels import LEVELS
from vqcc.library import load_library
from vqcc.runtime.backend import CudaBackend
from vqcc.runtime.bench import Baselines
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec
from vqcc.verify.harness import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.runtime.device import Device

PRESETS = ("gptvq-2", "aqlm-2x8", "quip-4", "aqlm-3", "vq-2-8-1")
SHAPES = (
    (28672, 8192),
    (8192, 28672),
    (4096, 4096),
    (11008, 4096),
    (4096, 11008),
    (8192, 8192),
    (22016, 8192),
    (8192, 22016),
)
ROWS = (32, 64, 128, 256, 1024, 4096)
#: Shape and bounds of the check: cut panels, ragged rows, several column tiles.
CHECK_SHAPE, CHECK_ROWS = (600, 2056), (32, 70, 300)
COMPILERS = 14


@dataclass(frozen=True)
class Case:
    """A library of one kernel for each of `m`."""

    preset: str
    level: str
    shape: tuple[int, int]
    m: tuple[int, ...]

    def text(self, gpu: str) -> bytes:
        """The spec."""
        n, k = self.shape
        return (
            f"vqcc: 1\nname: timed\nalgorithm: {self.preset}\nop: {{kind: gemm, m: {list(self.m)}, n: {n}, k: {k}}}\n"
            f"gpu: {gpu}\nlevel: {self.level}\n"
        ).encode()

    def build(self, gpu: str, cache: CompileCache | None = None) -> Built | str:
        """The library, or why there is none."""
        try:
            return build_library(
                parse_spec(self.text(gpu), self.preset), toolchain=find("nvrtc"), cache=cache
            )
        except VqccError as error:
            return str(error)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--level", action="append", choices=LEVELS)
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes")
    parser.add_argument("--m", action="append", type=int, help="only these rows of x")
    parser.add_argument("--only-compile", action="store_true", help="into --cache; needs no GPU")
    options = add_common(parser, output=Path("gemm-levels.json")).parse_args()
    kinds = [(preset, level) for preset in options.preset or PRESETS for level in options.level or LEVELS]
    shapes, rows_of_x = shapes_of(options, SHAPES), options.m or ROWS
    rows: list[dict[str, Any]] = []
    arguments = restricted_to(options, "preset", "level", "shape", "m")
    checks = [Case(*kind, CHECK_SHAPE, CHECK_ROWS) for kind in kinds]
    cases = [Case(*kind, shape, (m,)) for shape in shapes for kind in kinds for m in rows_of_x]
    if options.only_compile:
        compile_all([*checks, *cases], options)
        return
    with open_device() as device, ThreadPoolExecutor(COMPILERS) as compilers:
        cache = cache_of(options)
        checked = [compilers.submit(case.build, options.gpu, cache) for case in checks]
        timed = [(case, compilers.submit(case.build, options.gpu, cache)) for case in cases]
        right = {kind: check(kind, job.result(), device) for kind, job in zip(kinds, checked, strict=True)}
        baselines = Baselines(device.l2_bytes)
        weights, weights_are_of = Weights(device), None
        for case, job in timed:
            within = right[case.preset, case.level]
            if weights_are_of != (case.preset, case.shape):
                weights, weights_are_of = Weights(device), (case.preset, case.shape)
            for row in () if within is None else measure(case, job.result(), weights, baselines):
                rows.append({**row, "within_bound": within and row["within_bound"]})
                show(rows[-1])
                save_document(document_of(rows, device, "gemm_levels", arguments, options), options)
    if not all(within is not False for within in right.values()) or not all(
        row["within_bound"] for row in rows
    ):
        sys.exit(4)


def compile_all(cases: list[Case], options: argparse.Namespace) -> None:
    """Compile every case into the cache."""
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as compilers:
        jobs = [compilers.submit(compile_case, case, options) for case in cases]
        for number, job in enumerate(jobs, 1):
            print(f"{number} of {len(jobs)}: {job.result()}", flush=True)


def compile_case(case: Case, options: argparse.Namespace) -> str:
    """Compile a case into the cache, and say which."""
    built = case.build(options.gpu, cache_of(options))
    return f"{case.preset} {case.level} {case.shape} m={case.m}" + (
        f": {built}" if isinstance(built, str) else ""
    )


def check(kind: tuple[str, str], built: Built | str, device: Device) -> bool | None:
    """Whether all launches of a preset and level are within their bounds of float64; None if there is no such library.

    Nothing is timed of what is not checked.
    """
    if isinstance(built, str):
        print(f"{' '.join(kind)}, left out: {built}", flush=True)
        return None
    with tempfile.TemporaryDirectory() as directory:
        write_library(built, Path(directory) / "checked")
        results = list(validate(load_library(Path(directory) / "checked"), CudaBackend(device)))
    wrong = [result for result in results if not result.comparison.passed]
    for result in wrong:
        print(f"{' '.join(kind)}, {result.sizes}: {result.comparison}", flush=True)
    return not wrong


def measure(
    case: Case, built: Built | str, weights: Weights, baselines: Baselines
) -> Iterator[dict[str, Any]]:
    """The row of a case, or none if there is no library."""
    if isinstance(built, str):
        return
    library = as_loaded(built)
    ((build,), (m,)) = library.builds.values(), case.m
    (kernel,) = build.kernels
    launched = time_rows(library, kernel, m, weights, checked=True)
    n, k = case.shape
    row: dict[str, Any] = {
        "op": "gemm",
        "algorithm": case.preset,
        "level": case.level,
        "dtype": kernel.variant.dtype,
        "n": n,
        "k": k,
        "m": m,
        "us": round(launched.us, 3),
        "us_min": round(launched.us_min, 3),
        "us_max": round(launched.us_max, 3),
        "within_bound": launched.within_bound,
    }
    baseline = baselines.cublas(n, k, m, kernel.variant.dtype)
    if baseline is not None:
        row |= {"baseline": "cublas_fp16", "baseline_us": round(baseline.us, 3)}
    yield row | {
        "floor_us": round(1e6 * launched.moved_bytes / build.dram_bytes_per_second, 3),
        **planned(*built.gpus[0].plans),
        "grid": kernel.launch.grid,
        "panel_rows": kernel.launch.panel_rows,
        "threads": kernel.launch.threads,
        "registers": kernel.registers,
    }


def show(row: dict[str, Any]) -> None:
    """One line per row, as it comes."""
    ratio = row["baseline_us"] / row["us"] if "baseline_us" in row else float("nan")
    print(
        f"{row['algorithm']:9} {row['level']:4} {row['dataflow']:9} {row['n']:6}x{row['k']:<6} m={row['m']:<5} "
        f"{row['us']:9.2f} us (predicted {row['predicted_us']:8.1f})  {ratio:5.2f} x cuBLAS  "
        f"{'ok' if row['within_bound'] else 'OUTSIDE ITS BOUND'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
