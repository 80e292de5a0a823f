"""Predicted against compiled resources of every preset: a Markdown table for docs/performance.md. Needs no GPU.

python bench/resources.py --gpu h200 --level o2
"""

from __future__ import annotations

import argparse

from gemv_baseline import PRESETS

from vqcc.building import build_library
from vqcc.codegen.toolchain import find
from vqcc.levels import LEVELS
from vqcc.spec.load import parse_spec


def main() -> None:
    """Compile the gate projection of Llama-7B for each preset and compare plan and cubin."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--level", default="o2", choices=LEVELS)
    options = parser.parse_args()
    heads = (
        "preset", "m", "base registers", "slack registers", "slack shared", "entries shared", "compiled registers",
        "shared bytes", "blocks predicted", "blocks compiled",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for preset in PRESETS:
        text = (
            f"vqcc: 1\nname: resources\nalgorithm: {preset}\nop: {{kind: gemv, m: [1, 16], n: 11008, k: 4096}}\n"
            f"gpu: {options.gpu}\nlevel: {options.level}\n"
        )
        built = build_library(parse_spec(text.encode(), preset), toolchain=find("nvrtc"), cache=None)
        build = built.gpus[0]
        for problem, plan in zip(build.problems, build.plans, strict=True):
            assert plan.slack is not None
            assert plan.placement is not None
            assert plan.launch is not None
            assert plan.resources is not None
            base = next(d for d in plan.decisions if d.name == "slack").inputs["base_registers"]
            cells = (
                preset, problem.variant.sizes["m"], base, plan.slack.registers, plan.slack.shared_bytes,
                f"{plan.placement.n_shared} of {problem.algorithm.table_entries}", plan.resources.registers,
                plan.launch.dynamic_shared_bytes, plan.slack.blocks_per_sm, plan.launch.blocks_per_sm,
            )  # fmt: skip
            print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
