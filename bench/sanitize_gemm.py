"""Kernels of gemm under compute-sanitizer's four tools: levels, dataflows, and every kind of a warpgroup's tile.

    python bench/sanitize_gemm.py --gpu h200 -o bench/results/h200/gemm-sanitizer.json

Builds small libraries, ragged, with cut panels of rows of x, then runs `vqcc validate --backend cuda` over all of them
once under each tool. A tool that is missing, or that reports anything, fails the run.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gemv_levels import add_common, cache_of
from sanitizing import (
    build_all,
    build_tiled,
    exit_unless_clean,
    find_sanitizer,
    meta_of,
    run_tools,
    write_report,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.levels import Dataflow

SHAPE, TILED_SHAPE = (300, 1096), (512, 2056)
#: With so many rows of x each block has several tiles of outputs: warps that help bring other books, or, of `dense`,
#: say several times which tile comes.
LONG_SHAPE, LONG_ROWS = (512, 4104), 700
LONG_DENSE_SHAPE, LONG_DENSE_ROWS = (2048, 1096), 6400
GROUPS = (
    "{family: kmeans, vector_size: 4, entries: 64, residuals: 2, scales: {group: 8}, codebook_dtype: int8}"
)
BFLOAT16 = (
    "{family: kmeans, vector_size: 8, entries: 256, residuals: 2, codebook_dtype: bfloat16, scales: row}"
)
#: Algorithms with their type and shape: tables, tiles, computed entries, stages multiplied apart, a long table.
TRIED = (
    ("aqlm-2x8", "float16", SHAPE),
    ("gptvq-2", "float16", TILED_SHAPE),
    ("quip-4", "float16", SHAPE),
    (BFLOAT16, "bfloat16", SHAPE),
    ("aqlm-3", "float16", SHAPE),
    ("vq-2-8-1", "float16", SHAPE),
)


@dataclass(frozen=True)
class Case:
    """A library: an algorithm as a spec writes it, a level, the weight's shape and bounds on m.

    Of one `dataflow` and a kernel whose tile has these constants, whatever the planner would take, if they are given.
    """

    algorithm: str
    dtype: str
    shape: tuple[int, int]
    level: str = "best"
    m: tuple[int, ...] = (32, 100)
    dataflow: Dataflow | None = None
    tile: Mapping[str, int] = field(default_factory=dict)

    def spec(self, name: str, gpu: str) -> bytes:
        """The spec to compile."""
        n, k = self.shape
        return (
            f"vqcc: 1\nname: {name}\nalgorithm: {self.algorithm}\nop: {{kind: gemm, m: {list(self.m)}, n: {n}, k: {k}, "
            f"dtype: {self.dtype}}}\ngpu: {gpu}\nlevel: {self.level}\n"
        ).encode()


def all_cases() -> list[Case]:
    """Levels, dataflows, and tiles of a warpgroup by rows of x, warpgroups and stages of a round.

    So few tiles of outputs are shared by many blocks, but for two cases.
    """
    return [
        *(Case(*each, level) for each in TRIED[:3] for level in ("gc", "sc", "o2", "o3", "o4", "best")),
        Case(GROUPS, "float16", SHAPE, "sc"),
        *(Case(*each, m=(70,), dataflow="fragment") for each in TRIED[:3]),
        *(
            Case(*each, m=(100,), dataflow="warpgroup", tile={"kBatch": rows, "kWarpgroups": groups})
            for each in TRIED
            for rows, groups in ((32, 2), (64, 1), (128, 2))
        ),
        *(
            Case(*each, m=(64,), dataflow="warpgroup", tile={"kRoundStages": stages})
            for each in TRIED[:3]
            for stages in (1, 2, 4)
        ),
        Case(
            "gptvq-2",
            "float16",
            LONG_SHAPE,
            m=(LONG_ROWS,),
            dataflow="warpgroup",
            tile={"kBatch": 32, "kWarpgroups": 2},
        ),
        *(Case(*each, m=(300,), dataflow="dense") for each in TRIED),
        Case(GROUPS, "float16", SHAPE, m=(300,), dataflow="dense"),
        Case("aqlm-2x8", "float16", LONG_DENSE_SHAPE, m=(LONG_DENSE_ROWS,), dataflow="dense"),
    ]


def main() -> None:
    """Run the sanitizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only-compile", action="store_true", help="into --cache; needs no GPU")
    options = add_common(parser, output=Path("gemm-sanitizer.json")).parse_args()
    build_case = partial(build_tiled, cache=cache_of(options))
    with tempfile.TemporaryDirectory() as directory:
        built = build_all(all_cases(), Path(directory), options.gpu, build_case)
        if options.only_compile:
            return
        sanitizer = find_sanitizer()
        results = run_tools(sanitizer, built)
    command = f"python bench/sanitize_gemm.py --gpu {options.gpu} -o {options.output.name}"
    report = write_report(options.output, meta_of(sanitizer, command, options.commit), built, results)
    exit_unless_clean(report, "there are cases without a library")


if __name__ == "__main__":
    main()
