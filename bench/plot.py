"""Plots of a results file, as `vqcc bench --plot` draws them: no GPU needed.

python bench/plot.py levels bench/results/h200/gemv-levels.json -o docs/images/gemv-levels.svg
python bench/plot.py roofline --m 1 bench/results/h200/gemv-best.json -o docs/images/gemv-roofline.svg
python bench/plot.py curves bench/results/h200/gemv-curves.json -o docs/images/gemv-curves.svg

Curves, microseconds over m, are drawn of gemv-curves.json only.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from curve_plot import save_curves

from vqcc import gpus
from vqcc.report.bench_plots import BENCH_PLOTS, save_bench_plot


def main() -> None:
    """Draw one plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=(*BENCH_PLOTS, "curves"))
    parser.add_argument("results", type=Path)
    parser.add_argument("--m", type=int, action="append", help="only kernels of this m; repeatable")
    parser.add_argument("--gpu", default="h200", choices=gpus.names())
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    gpu = gpus.load(options.gpu)
    roofs = (float(gpu.dram_bytes_per_second.value), float(gpu.tensor_flops_fp16.value))
    rows = [row for row in results["rows"] if options.m is None or row["m"] in options.m]
    title = f"gemv on {results['meta']['gpu']}"
    if options.kind == "curves":
        save_curves(options.output, rows, title)
    else:
        save_bench_plot(options.kind, options.output, rows, roofs, title)


if __name__ == "__main__":
    main()
