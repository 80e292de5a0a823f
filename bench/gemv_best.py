"""Level best of gemv on this machine's GPU: linear layers of today's models, a library for each m.

    python bench/gemv_best.py --gpu h200 -o bench/results/h200/gemv-best.json

Compiles, checks each kernel against float64 on the GPU, times it beside cuBLAS, and writes the rows.
"""

from __future__ import annotations

import argparse

from gemv_levels import Group, add_common, restricted_to, run, shapes_of

PRESETS = (
    "aqlm-2x8",
    "vq-4-8-1",
    "vq-2-8-1",
    "aqlm-3",
    "gptvq-2",
    "gptvq-4",
    "quip-2",
    "quip-4",
    "aqlm-1x16",
)
SHAPES = ((28672, 8192), (8192, 28672), (4096, 4096), (11008, 4096), (4096, 11008), (8192, 8192))
BATCHES = (1, 2, 4, 8, 16)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", choices=PRESETS)
    parser.add_argument("--shape", action="append", metavar="NxK", help="only these shapes, listed or not")
    parser.add_argument("--m", action="append", type=int, metavar="M", help="only these m, listed or not")
    options = add_common(parser).parse_args()
    shapes = shapes_of(options, SHAPES)
    groups: list[Group] = [(preset, shape) for shape in shapes for preset in options.preset or PRESETS]
    arguments = restricted_to(options, "preset", "shape", "m")
    run("gemv_best", arguments, groups, [("best", m) for m in options.m or BATCHES], options)


if __name__ == "__main__":
    main()
