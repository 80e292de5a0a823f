"""Launches that may start while those before them end, beside launches that may not, on this machine's GPU.

    python bench/overlap.py --gpu h200 -o bench/results/h200/gemv-overlap.json

Level best at m = 1, a library for each preset and shape. As `vqcc bench` and `vqcc bench --overlap` do, each is
checked against float64 and timed both ways on the same weights, one after the other, cuBLAS in the same run.
"""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gemv_best import PRESETS as KNOWN
from gemv_levels import Group, add_common, restricted_to, save_results, shapes_of
from light import as_loaded
from random_shapes import build

from vqcc.runtime.bench import Baselines, bench_library, random_weights
from vqcc.runtime.device import open_device

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.library import Library
    from vqcc.runtime.bench import Weights
    from vqcc.runtime.device import Device

PRESETS = ("aqlm-2x8", "vq-4-8-1", "gptvq-2", "quip-2")
SHAPES = ((4096, 4096), (11008, 4096), (8192, 8192))
#: Weights made at a time.
PACKERS = 3


def main() -> None:
    """Run the benchmark; exit code 4 if a kernel is outside its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=KNOWN)
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes, listed or not")
    options = add_common(parser).parse_args()
    groups = [(preset, shape) for shape in shapes_of(options, SHAPES) for preset in options.preset or PRESETS]
    rows = []
    with ThreadPoolExecutor(PACKERS) as packers, open_device() as device:
        baselines = Baselines(device.l2_bytes)
        for library, weights in packers.map(lambda group: prepare(group, options.gpu), groups):
            for row in both_ways(library, weights, device, baselines):
                rows.append(row)
                show(row)
        save_results(rows, device, "overlap", restricted_to(options, "preset", "shape"), options)
    if not all(row["within_bound"] for row in rows):
        sys.exit(4)


def prepare(group: Group, gpu: str) -> tuple[Library, Weights]:
    """The library of a group, and weights for it."""
    library = as_loaded(build(*group, 1, gpu))
    return library, random_weights(library)


def both_ways(
    library: Library, weights: Weights, device: Device, baselines: Baselines
) -> Iterator[dict[str, Any]]:
    """Rows of a library whose launches do not overlap, then of the same one where they may."""
    for overlap in (False, True):
        yield from bench_library(library, device, baselines, weights=weights, overlap=overlap)


def show(row: dict[str, Any]) -> None:
    """One line per row, as it comes."""
    way = "overlapping" if row.get("overlap") else "alone"
    print(
        f"{row['algorithm']:10} {row['n']:6}x{row['k']:<6} {way:11} {row['us']:8.2f} us "
        f"({row['us_min']:.2f} to {row['us_max']:.2f})  error {row['error']:.1e} "
        f"{'ok' if row['within_bound'] else 'OUTSIDE ITS BOUND'}",
        flush=True,
    )


if __name__ == "__main__":
    main()
