"""Predicted against measured time of every candidate the planner weighs, on this machine's GPU.

    python bench/candidates.py --gpu h200 -o bench/results/h200/gemv-candidates.json

For each problem, the most promising candidates of each dataflow that it can have are compiled and timed. The planner's
choice is the one of least predicted time that does not spill. Results are checked by other programs (bench/light.py).
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any

from gemv_best import PRESETS
from gemv_levels import add_common, save_results
from light import COMPILERS, Weights, spec_of, time_built

from vqcc.building import problems_of
from vqcc.codegen.toolchain import find
from vqcc.flow import WEIGHTS
from vqcc.passes.choice import describe
from vqcc.runtime.device import open_device
from vqcc.tuning.candidates import candidates_of, possible_dataflows
from vqcc.tuning.session import build_candidate

if TYPE_CHECKING:
    from vqcc.building import Built
    from vqcc.tuning.candidates import Candidate

#: Llama-7B's and 65B's layers, and some that nobody tuned for.
SHAPES = (
    (4096, 4096),
    (11008, 4096),
    (4096, 11008),
    (8192, 8192),
    (1536, 6144),
    (5120, 13824),
    (12288, 3072),
)
BATCHES = (1, 4, 16)
#: Candidates of each dataflow.
MOST = 3


def main() -> None:
    """Run the benchmark."""
    options = add_common(argparse.ArgumentParser(description=__doc__)).parse_args()
    problems = [(preset, shape, m) for preset in PRESETS for shape in SHAPES for m in BATCHES]
    rows = []
    # Processes of their own: ranking is Python, and a device is open in this one.
    with ProcessPoolExecutor(COMPILERS, get_context("spawn")) as compilers:
        made = [compilers.submit(make, options.gpu, *problem) for problem in problems]
        with open_device() as device:
            for number, (problem, job) in enumerate(zip(problems, made, strict=True)):
                weights = Weights(device)
                for candidate, built in job.result():
                    rows.append(row_of(problem, candidate, built, time_built(built, weights)[0]))
                if number % 10 == 0:
                    print(f"{number}/{len(problems)} {rows[-1]}", flush=True)
            save_results(rows, device, "candidates", "", options)


def make(gpu: str, preset: str, shape: tuple[int, int], m: int) -> list[tuple[Candidate, Built]]:
    """The candidates of a problem that do not spill, compiled."""
    spec = spec_of(preset, shape, m, gpu)
    (problem,) = problems_of(spec, spec.gpu[0])
    found = []
    for dataflow in possible_dataflows(WEIGHTS, [problem]):
        for candidate in candidates_of(WEIGHTS, problem, dataflow, MOST):
            built = build_candidate(spec, problem, candidate, find("nvrtc"), None)
            if not isinstance(built, str):
                found.append((candidate, built))
    return found


def row_of(
    problem: tuple[str, tuple[int, int], int], candidate: Candidate, built: Built, us: float
) -> dict[str, Any]:
    """What the results file says of a candidate: its predicted time before it was compiled, and after."""
    (plan,) = built.gpus[0].plans
    preset, (n, k), m = problem
    return {
        "op": "gemv",
        "algorithm": preset,
        "n": n,
        "k": k,
        "m": m,
        "dataflow": plan.strategy.dataflow,
        "strategy": describe(plan.strategy),
        "tile": dict(candidate.pick.tile),
        "estimated_us": candidate.predicted_us,
        "predicted_us": plan.predicted_us,
        "us": round(us, 3),
    }


if __name__ == "__main__":
    main()
