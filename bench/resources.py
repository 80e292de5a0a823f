"""Predicted against compiled resources of every preset and level that caches by slack. Needs no GPU.

    python bench/resources.py -o bench/results/resources.json [--gpu h200]

The base kernel, compiled with an empty cache, says how many blocks an SM should have; the kernel with its cache how
many it has. `python bench/tables.py bench/results/resources.json` makes the tables of docs/performance.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemv_baseline import PRESETS
from gemv_levels import entries_of

from vqcc.building import build_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from vqcc.plan import Plan
    from vqcc.problem import Problem

#: Compiled by default: ours, and the paper's. A GPU takes a quarter of an hour of one core.
GPUS = ("h200", "rtx4090")
LEVELS = ("o1", "o2", "o3", "o4")
#: The gate projection of Llama-7B, and a shape of 65B whose rows have the most scope tiles.
SHAPES = ((11008, 4096), (8192, 22016))
COMPILERS = 2

Case = tuple[str, str, str, tuple[int, int]]


def compile_case(case: Case) -> list[dict[str, Any]] | str:
    """Rows of one library's kernels; where a level cannot be, why."""
    gpu, preset, level, (n, k) = case
    text = (
        f"vqcc: 1\nname: resources\nalgorithm: {preset}\nop: {{kind: gemv, m: [1, 16], n: {n}, k: {k}}}\n"
        f"gpu: {gpu}\nlevel: {level}\n"
    )
    try:
        built = build_library(parse_spec(text.encode(), preset), toolchain=find("nvrtc"), cache=None)
    except VqccError as error:
        return str(error)
    head = {"gpu": gpu, "algorithm": preset, "level": level, "n": n, "k": k}
    pairs = zip(built.gpus[0].problems, built.gpus[0].plans, strict=True)
    return [{**head, **describe(problem, plan)} for problem, plan in pairs]


def describe(problem: Problem, plan: Plan) -> dict[str, Any]:
    """What was predicted for a kernel, and what it needs as compiled."""
    assert plan.slack is not None
    assert plan.placement is not None
    assert plan.launch is not None
    assert plan.resources is not None
    noted = {decision.name: decision for decision in plan.decisions}
    return {
        "m": problem.variant.sizes["m"],
        "base_registers": noted["slack"].inputs["base_registers"],
        "slack_registers": plan.slack.registers,
        "slack_shared_bytes": plan.slack.shared_bytes,
        "table_entries": problem.algorithm.table_entries,
        **entries_of(plan.placement),
        "registers": plan.resources.registers,
        "stack_bytes": plan.resources.stack_bytes,
        "spill_bytes": plan.resources.spill_store_bytes + plan.resources.spill_load_bytes,
        "shared_bytes": plan.launch.dynamic_shared_bytes + plan.resources.static_shared_bytes,
        "threads": plan.launch.threads,
        "predicted_blocks": plan.slack.blocks_per_sm,
        "compiled_blocks": plan.launch.blocks_per_sm,
        "replans": noted["occupancy"].inputs["replans"],
    }


def main() -> None:
    """Compile every case and write the rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", action="append", help=f"default: {' and '.join(GPUS)}")
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    names = options.gpu or list(GPUS)
    cases: list[Case] = list(product(names, options.preset or PRESETS, LEVELS, SHAPES))
    rows: list[dict[str, Any]] = []
    left_out = []
    with ThreadPoolExecutor(COMPILERS) as pool:
        for case, found in zip(cases, pool.map(compile_case, cases), strict=True):
            print(*case, found if isinstance(found, str) else "", flush=True)
            if isinstance(found, str):
                left_out.append([*case[:3], *case[3], found])
            else:
                rows += found
    chosen = "".join(f" --gpu {name}" for name in options.gpu or ())
    meta = {
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "toolchain": find("nvrtc").identity,
        "python": sys.version.split()[0],
        "command": f"python bench/resources.py{chosen} -o {options.output.name}",
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    lines = ",\n".join(map(json.dumps, rows))
    head = json.dumps({"meta": meta, "left_out": left_out})
    options.output.write_text(f'{head[:-1]},\n"rows": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
