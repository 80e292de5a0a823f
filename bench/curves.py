"""Level best at every m from 1 to 16, beside cuBLAS fp16 in the same run: linear layers of Llama-7B and 65B.

    python bench/curves.py --gpu h200 -o bench/results/h200/gemv-curves.json

Of each preset and shape, a library for each m (rows of kind own), and one library for m 1, 4, 8 and 16 whose kernels
read the same packed codes, launched at every m (kind shared): what an engine ships. Results are checked by other
programs (bench/light.py).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from gemv_best import PRESETS as KNOWN
from gemv_levels import SHAPES, Group, add_common, restricted_to, save_results, shapes_of
from light import COMPILERS, Weights, as_loaded, build, row_head, time_rows

from vqcc.runtime.bench import Baselines
from vqcc.runtime.device import open_device

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from concurrent.futures import Future

    from vqcc.building import Built
    from vqcc.library import Library

PRESETS = ("aqlm-2x8", "gptvq-2", "quip-4", "vq-4-8-1")
BATCHES = tuple(range(1, 17))
#: What the shared library has a kernel for.
SHARED = (1, 4, 8, 16)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=KNOWN)
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes, listed or not")
    parser.add_argument("--m", action="append", type=int, choices=BATCHES, metavar="M", help="only these m")
    options = add_common(parser).parse_args()
    batches = sorted(set(options.m or BATCHES))
    groups = [(preset, shape) for shape in shapes_of(options, SHAPES) for preset in options.preset or PRESETS]
    rows = []
    with ProcessPoolExecutor(COMPILERS, get_context("spawn")) as compilers:
        built = {group: submit(compilers, group, batches, options.gpu) for group in groups}
        with open_device() as device:
            baselines = Baselines(device.l2_bytes)
            for number, group in enumerate(groups):
                weights = Weights(device)
                for kind, m, made, library in libraries_of(built.pop(group), batches):
                    rows.append(row_of(group, kind, m, made, library, weights, baselines))
                print(f"{number + 1}/{len(groups)} {rows[-1]}", flush=True)
            save_results(rows, device, "curves", restricted_to(options, "preset", "shape", "m"), options)


def submit(
    compilers: ProcessPoolExecutor, group: Group, batches: Sequence[int], gpu: str
) -> list[Future[Built]]:
    """The libraries of a group, each m's own and then the shared one, to be compiled."""
    kernels = [*([m] for m in batches), list(SHARED)]
    return [compilers.submit(build, *group, bounds, gpu) for bounds in kernels]


def libraries_of(
    jobs: Sequence[Future[Built]], batches: Sequence[int]
) -> Iterator[tuple[str, int, Built, Library]]:
    """What is timed of a group: kind, m, and the library that a launch of m rows is of."""
    *own, last = jobs
    for m, job in zip(batches, own, strict=True):
        yield "own", m, job.result(), as_loaded(job.result())
    shared = as_loaded(last.result())
    for m in batches:
        yield "shared", m, last.result(), shared


def row_of(
    group: Group, kind: str, m: int, built: Built, library: Library, weights: Weights, baselines: Baselines
) -> dict[str, Any]:
    """One row of the results file: a launch of m rows of x, by the kernel of the least bound that covers them."""
    preset, shape = group
    (gpu,) = built.gpus
    bounds = [problem.variant.sizes["m"] for problem in gpu.problems]
    number = covering(bounds, m)
    plan = gpu.plans[number]
    kernel = library.builds[gpu.gpu.name].kernels[number]
    launched = time_rows(library, kernel, m, weights)
    baseline = baselines.cublas(*shape, m, "float16")
    return {
        **row_head(preset, shape, m),
        "kind": kind,
        "bound": bounds[number],
        "dataflow": plan.strategy.dataflow,
        "predicted_us": plan.predicted_us,
        "us": round(launched.us, 3),
        **({} if baseline is None else {"baseline": "cublas_fp16", "baseline_us": round(baseline.us, 3)}),
        "floor_us": round(1e6 * launched.moved_bytes / gpu.gpu.dram_bytes_per_second.value, 3),
    }


def covering(bounds: Sequence[int], m: int) -> int:
    """Which of a library's kernels a launch of m rows takes: that of the least bound that covers them."""
    return min((bound, number) for number, bound in enumerate(bounds) if bound >= m)[1]


if __name__ == "__main__":
    main()
