"""Level best on shapes that nobody tuned for, beside cuBLAS fp16 in the same run.

    python bench/random_shapes.py --gpu h200 -o bench/results/h200/gemv-random.json

Rows and columns are drawn evenly from 1,000 to 30,000, columns a multiple of the vector size. A library for each m.
Results are checked by other programs (bench/light.py). Some of the shapes at a time, in runs one after another:

    python bench/random_shapes.py --gpu h200 --shapes 0:52 -o first.json
    python bench/random_shapes.py --gpu h200 --shapes 52:104 --extend first.json -o bench/results/h200/gemv-random.json
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from gemv_levels import add_common, document_of, save_document
from light import COMPILERS, Weights, build, row_head, time_built

from vqcc.runtime.bench import Baselines
from vqcc.runtime.device import open_device

if TYPE_CHECKING:
    from vqcc.building import Built

PRESETS = ("aqlm-2x8", "gptvq-2", "quip-4")
BATCHES = (1, 4, 16)
SHAPES, LEAST, MOST, UNIT = 104, 1000, 30000, 8


def main() -> None:
    """Run the benchmark."""
    parser = add_common(argparse.ArgumentParser(description=__doc__))
    parser.add_argument(
        "--shapes", metavar="FIRST:END", default=f"0:{SHAPES}", help="of the shapes only these"
    )
    parser.add_argument("--extend", type=Path, metavar="FILE", help="put the rows of this run behind FILE's")
    options = parser.parse_args()
    shapes = drawn_shapes()[slice(*map(int, options.shapes.split(":")))]
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
            extend = f" --extend {options.extend.name}" if options.extend else ""
            arguments = f" --shapes {options.shapes}{extend}"
            document = document_of(rows, device, "random_shapes", arguments, options)
    if options.extend:
        document = extended(json.loads(options.extend.read_text()), document)
    save_document(document, options)


def drawn_shapes() -> list[tuple[int, int]]:
    """Rows and columns, the same ones every time."""
    rng = np.random.default_rng(2026)
    return [
        (int(rng.integers(LEAST, MOST + 1)), UNIT * int(rng.integers(LEAST // UNIT, MOST // UNIT + 1)))
        for _ in range(SHAPES)
    ]


def extended(earlier: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """The rows of both runs, which must be of one commit, GPU, driver and toolkit; the command is that of both."""
    runs = (earlier["meta"], later["meta"])
    differ = [key for key in runs[1] if key not in {"command", "date"} and runs[0].get(key) != runs[1][key]]
    if differ:
        raise SystemExit(f"the runs differ in {', '.join(differ)}")
    command = " && ".join(run["command"] for run in runs)
    return {"meta": {**runs[1], "command": command}, "rows": earlier["rows"] + later["rows"]}


def row_of(
    preset: str, shape: tuple[int, int], m: int, built: Built, weights: Weights, baselines: Baselines
) -> dict[str, Any]:
    """One row of the results file."""
    (plan,) = built.gpus[0].plans
    baseline = baselines.cublas(*shape, m, "float16")
    return {
        **row_head(preset, shape, m),
        "dataflow": plan.strategy.dataflow,
        "predicted_us": plan.predicted_us,
        "us": round(time_built(built, weights)[0], 3),
        **({} if baseline is None else {"baseline": "cublas_fp16", "baseline_us": round(baseline.us, 3)}),
    }


if __name__ == "__main__":
    main()
