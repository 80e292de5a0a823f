"""Markdown tables from a results file, for docs/performance.md.

python bench/tables.py bench/results/h200/gemv-baseline.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print one table per m: microseconds, and the ratio to cuBLAS in the same run."""
    rows = json.loads(Path(sys.argv[1]).read_text())["rows"]
    cells = {(r["algorithm"], r["level"], (r["n"], r["k"]), r["m"]): r for r in rows}
    algorithms = list(dict.fromkeys(r["algorithm"] for r in rows))
    shapes = list(dict.fromkeys((r["n"], r["k"]) for r in rows))
    for m in sorted({r["m"] for r in rows}):
        heads = [f"{level} {n} x {k}" for level in ("gc", "sc") for n, k in shapes]
        print(f"\n| m = {m} | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
        for algorithm in algorithms:
            line = [
                _cell(cells.get((algorithm, level, shape, m))) for level in ("gc", "sc") for shape in shapes
            ]
            print(f"| {algorithm} | {' | '.join(line)} |")
        base = [cells[algorithms[0], "gc", shape, m]["baseline_us"] for shape in shapes]
        print(f"| cuBLAS fp16 | {' | '.join(f'{us:.1f}' for us in base * 2)} |")


def _cell(row: dict[str, float] | None) -> str:
    if row is None:
        return "-"
    return f"{row['us']:.1f} ({row['baseline_us'] / row['us']:.2f})"


if __name__ == "__main__":
    main()
