"""The breakdown of levels as a figure, as the paper's Fig. 14 has it: latency against gc, mean over shapes.

python bench/plot_levels.py bench/results/h200/gemv-levels.json -o docs/images/gemv-levels.svg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt

from vqcc.levels import LEVELS


def main() -> None:
    """Draw one panel per m, one group of bars per algorithm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    results = json.loads(options.results.read_text())
    rows = results["rows"]
    batches = sorted({row["m"] for row in rows})
    mpl.rcParams["svg.hashsalt"] = "vqcc"
    figure, panels = plt.subplots(len(batches), 1, figsize=(8, 3 * len(batches)), sharex=True)
    for panel, m in zip(panels, batches, strict=True):
        _draw(panel, [row for row in rows if row["m"] == m])
        panel.set_title(f"m = {m}", loc="left")
    panels[0].legend(ncols=len(LEVELS) + 1, fontsize="small", loc="upper right")
    figure.suptitle(f"GeMV latency relative to level gc, {results['meta']['gpu']}, mean over six shapes")
    figure.tight_layout()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.output, metadata={"Date": None})


def _draw(panel: Any, rows: list[dict[str, Any]]) -> None:
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    names = [*LEVELS, "cuBLAS fp16"]
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        heights = [_relative(rows, algorithm, name) for algorithm in algorithms]
        places = [group + (index - len(names) / 2) * width for group in range(len(algorithms))]
        panel.bar(places, heights, width, label=name)
    panel.set_xticks(range(len(algorithms)), algorithms)
    panel.axhline(1, color="black", linewidth=0.5)
    panel.set_ylabel("latency / gc")
    panel.set_ylim(0, 2.5)


def _relative(rows: list[dict[str, Any]], algorithm: str, name: str) -> float:
    """Mean over shapes of the latency against gc; NaN where a level does not exist."""
    own = [row for row in rows if row["algorithm"] == algorithm]
    base = {(row["n"], row["k"]): row for row in own if row["level"] == "gc"}
    if name == "cuBLAS fp16":
        ratios = [row["baseline_us"] / row["us"] for row in base.values()]
    else:
        ratios = [row["us"] / base[row["n"], row["k"]]["us"] for row in own if row["level"] == name]
    return fmean(ratios) if ratios else float("nan")


if __name__ == "__main__":
    main()
