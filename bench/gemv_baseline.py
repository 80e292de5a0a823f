"""Levels gc and sc of gemv on this machine's GPU: every preset at Llama-7B's shapes, m 1 and 16.

    python bench/gemv_baseline.py --gpu h200 -o bench/results/h200/gemv-baseline.json

Compiles, checks each kernel against float64 on the GPU, times it beside cuBLAS, and writes the rows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.library import load_library
from vqcc.runtime.bench import Baselines, bench_library, describe_run
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec

PRESETS = (
    "aqlm-2x8",
    "aqlm-1x16",
    "aqlm-3",
    "gptvq-2",
    "gptvq-4",
    "quip-2",
    "quip-4",
    "vq-4-8-1",
    "vq-2-8-1",
)
SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))


def compile_one(case: tuple[str, str, tuple[int, int], str], out: Path) -> Path | None:
    """Compile one library; None where the level cannot hold the preset's codebooks."""
    preset, level, (n, k), gpu = case
    name = f"{preset}-{level}-{n}-{k}"
    text = (
        f"vqcc: 1\nname: bench-{name}\nalgorithm: {preset}\n"
        f"op: {{kind: gemv, m: [1, 16], n: {n}, k: {k}}}\ngpu: {gpu}\nlevel: {level}\n"
    )
    try:
        built = build_library(parse_spec(text.encode(), name), toolchain=find("nvrtc"), cache=None)
    except VqccError as error:
        print(f"{name}: {error}")
        return None
    write_library(built, out / built.name)
    return out / built.name


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--commit")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    cases = [
        (preset, level, shape, options.gpu)
        for preset in options.preset or PRESETS
        for shape in SHAPES
        for level in ("gc", "sc")
    ]
    rows = []
    with tempfile.TemporaryDirectory() as directory, open_device() as device:
        with ThreadPoolExecutor(max_workers=12) as pool:
            paths = [
                path for path in pool.map(lambda case: compile_one(case, Path(directory)), cases) if path
            ]
        baselines = Baselines(device.l2_bytes)
        for path in paths:
            library = load_library(path)
            for row in bench_library(library, device, baselines):
                rows.append(row)
                ratio = row["baseline_us"] / row["us"] if "baseline_us" in row else float("nan")
                print(
                    f"{row['algorithm']:10} {row['level']} {row['n']:6}x{row['k']:<6} m={row['m']:<3} "
                    f"{row['us']:8.1f} us  {ratio:5.2f} x cuBLAS  error {row['error']:.1e} "
                    f"{'ok' if row['within_bound'] else 'OUTSIDE ITS BOUND'}",
                    flush=True,
                )
        commit = (
            options.commit
            or subprocess.run(
                ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
            ).stdout.strip()
        )
        command = f"python bench/gemv_baseline.py --gpu {options.gpu} -o {options.output.name}"
        meta = describe_run(device, find("nvrtc").identity, command, commit or None)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")
    if not all(row["within_bound"] for row in rows):
        sys.exit(4)


if __name__ == "__main__":
    main()
