"""Tiles of a dataflow of gemm on this machine's GPU: predicted and measured times, beside cuBLAS.

    python bench/gemm_candidates.py --gpu h200 --dataflow warpgroup --shape 28672x8192 --m 64 -o gemm-candidates.json

Tiles with the constants that `--tile NAME=VALUE` names, or all that the planner weighs. Samples of rows of what each
makes are held against float64 (sampled.py), unless `--unchecked` is given.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemm_levels import COMPILERS, PRESETS, ROWS, Case
from gemv_levels import add_common, save_results, shapes_of
from light import Weights, as_loaded, time_rows

from vqcc.codegen.toolchain import find
from vqcc.runtime.bench import Baselines
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec
from vqcc.subjects import subject_of
from vqcc.tuning.candidates import candidates_of
from vqcc.tuning.session import build_candidate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from light import Launched

    from vqcc.building import Built
    from vqcc.runtime.device import Device

SHAPES = ((28672, 8192), (8192, 28672))
#: More than any problem has.
MOST = 10000


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--dataflow", default="warpgroup")
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes")
    parser.add_argument("--m", action="append", type=int, help="only these rows of x")
    parser.add_argument("--tile", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--most", type=int, default=MOST, help="of the most promising candidates of a problem"
    )
    parser.add_argument("--unchecked", action="store_true")
    options = add_common(parser, output=Path("gemm-candidates.json")).parse_args()
    wanted: dict[str, set[str]] = {}
    for each in options.tile:
        name, _, value = each.partition("=")
        wanted.setdefault(name, set()).update(value.split(","))
    problems = [
        (preset, shape, m)
        for shape in shapes_of(options, SHAPES)
        for m in options.m or ROWS
        for preset in options.preset or PRESETS
    ]
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(COMPILERS, get_context("spawn")) as compilers:
        made = [compilers.submit(make, options, wanted, *problem) for problem in problems]
        with open_device() as device:
            baselines = Baselines(device.l2_bytes)
            for (preset, (n, k), m), job in zip(problems, made, strict=True):
                for tile, built in job.result():
                    launched = measure(built, m, device, checked=not options.unchecked)
                    baseline = baselines.cublas(n, k, m, "float16")
                    ratio = baseline.us / launched.us if baseline is not None else float("nan")
                    row = {
                        "algorithm": preset,
                        "n": n,
                        "k": k,
                        "m": m,
                        "us": round(launched.us, 2),
                        "ratio": round(ratio, 3),
                        "predicted_us": built.gpus[0].plans[0].predicted_us,
                        "within_bound": launched.within_bound,
                    }
                    rows.append({**row, "dataflow": options.dataflow, "tile": tile})
                    print(*row.values(), *(f"{name[1:]}={value}" for name, value in tile.items()), flush=True)
            save_results(rows, device, "gemm_candidates", "", options)


def make(
    options: argparse.Namespace, wanted: Mapping[str, set[str]], preset: str, shape: tuple[int, int], m: int
) -> list[tuple[dict[str, int], Built]]:
    """Tiles of a problem and their libraries, of those that compile."""
    found = ((tile, build()) for tile, build in candidates(options, preset, shape, m, wanted)[: options.most])
    return [(tile, built) for tile, built in found if not isinstance(built, str)]


def candidates(
    options: argparse.Namespace, preset: str, shape: tuple[int, int], m: int, wanted: Mapping[str, set[str]]
) -> list[tuple[dict[str, int], Any]]:
    """Tiles of a problem with the constants that are wanted, and what compiles each."""
    spec = parse_spec(Case(preset, "best", shape, (m,)).text(options.gpu), preset)
    subject = subject_of(spec)
    (problem,) = subject.problems_of(spec, spec.gpu[0])
    found = []
    for candidate in candidates_of(subject.flow, problem, options.dataflow, MOST, tiles=MOST):
        tile = dict(candidate.pick.tile)
        if all(str(tile.get(name)) in values for name, values in wanted.items()):

            def build(own: Any = candidate) -> Any:
                built = build_candidate(spec, problem, own, find("nvrtc"), None)
                if isinstance(built, str):
                    print(preset, shape, m, dict(own.pick.tile), built, flush=True)
                return built

            found.append((tile, build))
    return found


def measure(built: Built, m: int, device: Device, *, checked: bool) -> Launched:
    """A launch, and whether samples of its results are within their bounds, if they are to be checked."""
    library = as_loaded(built)
    (build,) = library.builds.values()
    (kernel,) = build.kernels
    return time_rows(library, kernel, m, Weights(device), checked=checked)


if __name__ == "__main__":
    main()
