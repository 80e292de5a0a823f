"""Every kind of kernel of attention, and those that append, under compute-sanitizer's four tools.

    python bench/sanitize_attention.py --gpu h200 -o bench/results/h200/attention-sanitizer.json

Builds small libraries of every level, with whole heads and with ragged windows, pages and rotated keys, and of every
dataflow and kind of tile past the paper's, whatever the planner would take; then runs `vqcc validate --backend cuda`
over all of them once under each tool. A tool that is missing, or that reports anything, fails the run.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sanitizing import (
    build_all,
    build_tiled,
    exit_unless_clean,
    find_sanitizer,
    library_name,
    meta_of,
    run_tools,
    write_report,
)

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.levels import Dataflow

PLAIN = "q_heads: 4, kv_heads: 4, head_dim: 128, batch: [1, 3], context: 700"
RAGGED = (
    "q_heads: 8, kv_heads: 2, head_dim: 64, batch: 3, context: 500, page_size: 64, window: 40, query_tokens: 2, "
    "sliding_window: 300, softcap: true, dtype: [float16, bfloat16]"
)
ROTATED = "q_heads: 4, kv_heads: 2, head_dim: 128, batch: 2, context: 400, window: 32, rope: half"
#: Algorithms that score tables take, residual stages of fewer bits, and different ones of keys and values.
ALGORITHMS = ("cq-2", "kv-4-6-2", "{key: cq-4, value: kv-8-8-1}")
SHARED = "q_heads: 8, kv_heads: 2, head_dim: 128, batch: 3, context: 900"
#: A window.
WINDOWED = f"{SHARED}, page_size: 64, window: 40"
OWN = "q_heads: 2, kv_heads: 2, head_dim: 128, batch: 3, context: 900"


@dataclass(frozen=True)
class Case:
    """A library: an algorithm and an op as a spec writes them, and a level.

    Of one `dataflow` and a kernel whose tile has these constants, whatever the planner would take, if they are given.
    """

    algorithm: str
    op: str
    level: str = "best"
    dataflow: Dataflow | None = None
    tile: Mapping[str, int] = field(default_factory=dict)

    def spec(self, name: str, gpu: str) -> bytes:
        """The spec to compile."""
        return (
            f"vqcc: 1\nname: {name}\nalgorithm: {self.algorithm}\nop: {{kind: attention_decode, {self.op}}}\n"
            f"gpu: {gpu}\nlevel: {self.level}\n"
        ).encode()


def all_cases() -> list[Case]:
    """Every level with every algorithm and op, and every kind of kernel past the paper's."""
    levels = [
        Case(algorithm, op, level)
        for level in LEVELS
        for algorithm in ALGORITHMS
        for op in (PLAIN, RAGGED, ROTATED)
    ]
    past = [
        *(
            Case(algorithm, op, dataflow="score", tile={"kStages": stages, "kTablesRegion": region})
            for algorithm, op in (("cq-2", OWN), ("cq-2", SHARED), ("cq-4", OWN), ("kv-4-8-1", SHARED))
            for stages, region in ((1, 1), (0, 1), (1, 0))
        ),
        Case("cq-4", SHARED, dataflow="score", tile={"kStages": 0, "kTablesRegion": 0}),
        *(
            Case("cq-2", op, dataflow="score", tile={"kClusterBlocks": cluster})
            for op in (OWN, SHARED)
            for cluster in (2, 4, 8)
        ),
        *(
            Case(algorithm, SHARED, dataflow="fragment", tile={"kStages": stages})
            for algorithm in ("cq-2", "cq-4")
            for stages in (1, 0)
        ),
        *(
            Case(algorithm, f"{WINDOWED}, rope: {rope}", dataflow="fragment")
            for algorithm in ("cq-2", "cq-4")
            for rope in ("none", "half", "interleaved")
        ),
        Case("cq-2", WINDOWED, dataflow="score", tile={"kStages": 1}),
        Case("cq-2", WINDOWED, dataflow="score", tile={"kClusterBlocks": 4}),
        Case("cq-2", f"{WINDOWED}, rope: half", dataflow="decode"),
    ]
    return levels + past


def main() -> None:
    """Run the sanitizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--commit")
    parser.add_argument("--make", type=Path, metavar="DIR", help="compile into this folder, and run nothing")
    parser.add_argument("--libraries", type=Path, metavar="DIR", help="libraries that --make has compiled")
    parser.add_argument("-o", "--output", type=Path, default=Path("attention-sanitizer.json"))
    options = parser.parse_args()
    if options.make is not None:
        build_all(all_cases(), options.make, options.gpu, build_tiled)
        return
    sanitizer = find_sanitizer()
    with tempfile.TemporaryDirectory() as directory:
        built = (
            build_all(all_cases(), Path(directory), options.gpu, build_tiled)
            if options.libraries is None
            else made_before(all_cases(), options.libraries)
        )
        results = run_tools(sanitizer, built)
    command = f"python bench/sanitize_attention.py --gpu {options.gpu} -o {options.output.name}"
    meta = meta_of(sanitizer, command, options.commit)
    report = write_report(options.output, meta, built, results)
    exit_unless_clean(report, "there are cases without a library")


def made_before(cases: list[Case], directory: Path) -> list[tuple[Case, Path | str]]:
    """The libraries that are there."""
    paths = [directory / library_name(number) for number in range(len(cases))]
    return [
        (case, path if path.is_dir() else "it was not made") for case, path in zip(cases, paths, strict=True)
    ]


if __name__ == "__main__":
    main()
