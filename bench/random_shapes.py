"""Level best on shapes that nobody tuned for, beside cuBLAS fp16 in the same run.

    python bench/random_shapes.py --gpu h200 -o bench/results/h200/gemv-random.json

Rows and columns are drawn evenly from 1,000 to 30,000, columns a multiple of the vector size. A library for each m.
Results are checked by other programs (bench/light.py).
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gemv_levels import add_common, head
from light import Weights, time_built

from vqcc.building import build_library
from vqcc.codegen.toolchain import find
from vqcc.runtime.bench import Baselines, describe_run
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from vqcc.building import Built

PRESETS = ("aqlm-2x8", "gptvq-2", "quip-4")
BATCHES = (1, 4, 16)
SHAPES, LEAST, MOST, UNIT = 104, 1000, 30000, 8
COMPILERS = 15


def main() -> None:
    """Run the benchmark."""
    options = add_common(argparse.ArgumentParser(description=__doc__)).parse_args()
    rng = np.random.default_rng(2026)
    shapes = [
        (int(rng.integers(LEAST, MOST + 1)), UNIT * int(rng.integers(LEAST // UNIT, MOST // UNIT + 1)))
        for _ in range(SHAPES)
    ]
    work = [(preset, shape, m) for shape in shapes for preset in PRESETS for m in BATCHES]
    rows = []
    with ProcessPoolExecutor(COMPILERS, get_context("spawn")) as compilers:
        built = [compilers.submit(build, preset, shape, m, options.gpu) for preset, shape, m in work]
        with open_device() as device:
            baselines = Baselines(device.l2_bytes)
            for number, ((preset, shape, m), library) in enumerate(zip(work, built, strict=True)):
                if m == BATCHES[0]:  # of all m at once: most read the same
                    weights = Weights(device)
                rows.append(row_of(preset, shape, m, library.result(), weights, baselines))
                if number % 50 == 0:
                    print(f"{number}/{len(work)} {rows[-1]}", flush=True)
            command = f"python bench/random_shapes.py --gpu {options.gpu} -o {options.output.name}"
            meta = describe_run(device, find("nvrtc").identity, command, options.commit or head())
    Path(options.output).write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")


def build(preset: str, shape: tuple[int, int], m: int | list[int], gpu: str) -> Built:
    """A library of one kernel, or of one for each m."""
    n, k = shape
    text = (
        f"vqcc: 1\nname: drawn\nalgorithm: {preset}\nop: {{kind: gemv, m: {m}, n: {n}, k: {k}}}\ngpu: {gpu}\n"
    )
    return build_library(parse_spec(text.encode(), preset), toolchain=find("nvrtc"), cache=None)


def row_of(
    preset: str, shape: tuple[int, int], m: int, built: Built, weights: Weights, baselines: Baselines
) -> dict[str, Any]:
    """One row of the results file."""
    n, k = shape
    (plan,) = built.gpus[0].plans
    baseline = baselines.cublas(n, k, m, "float16")
    return {
        "op": "gemv",
        "algorithm": preset,
        "level": "best",
        "dtype": "float16",
        "n": n,
        "k": k,
        "m": m,
        "dataflow": plan.strategy.dataflow,
        "predicted_us": plan.predicted_us,
        "us": round(time_built(built, weights)[0], 3),
        **({} if baseline is None else {"baseline": "cublas_fp16", "baseline_us": round(baseline.us, 3)}),
    }


if __name__ == "__main__":
    main()
