"""Every kernel of every preset and level under compute-sanitizer's four tools.

    python bench/sanitize.py --gpu h200 -o bench/results/h200/gemv-sanitizer.json

Builds libraries with whole and ragged shapes, both types, then runs `vqcc validate --backend cuda` over all of
them once under each tool. A tool that is missing, or that reports anything, fails the run. The file lists
every library.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gemv_baseline import PRESETS
from sanitizing import build_all, exit_unless_clean, find_sanitizer, meta_of, run_tools, write_report

from vqcc.building import build_library, problems_of
from vqcc.codegen.toolchain import find
from vqcc.flow import WEIGHTS
from vqcc.tuning.candidates import candidates_of
from vqcc.tuning.session import build_candidate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.building import Built
    from vqcc.levels import Dataflow
    from vqcc.spec.model import Spec

#: Rows and columns: whole segments, and a shape that leaves every tail ragged.
SHAPES = ((1024, 4096), (333, 1096))
#: Levels as a spec writes them; o2 also with entries in registers, shared and global memory at once.
LEVELS_AND_CACHES = (
    "gc",
    "sc",
    "o1\ncache: {shared: 16}",
    "o2\ncache: {registers: 2, shared: 16}",
    "o3",
    "o4",
    "best",
)
#: Families beside the presets: odd vectors, group scales, int8 books, tiles that the edges cut.
OTHERS = (
    "{family: kmeans, vector_size: 4, entries: 64, residuals: 3, scope: {rows: 100, cols: 200}, scales: {group: 8}, "
    "codebook_dtype: int8}",
    "{family: kmeans, vector_size: 2, entries: 8192, residuals: 1, scope: {rows: 64, cols: 96}, scales: tensor, "
    "codebook_dtype: bfloat16}",
)


#: What each dataflow past the paper's is tried with, its type and rows of x: every kind of table, operand and book.
PAST_THE_PAPER: Mapping[Dataflow, tuple[tuple[str, str, int], ...]] = {
    "score": (
        ("aqlm-2x8", "float16", 1),
        ("aqlm-2x8", "float16", 2),
        ("aqlm-2x8", "float16", 4),
        ("vq-4-8-1", "float16", 3),
        ("vq-2-8-1", "float16", 1),
        (
            "{family: kmeans, vector_size: 16, entries: 256, residuals: 3, codebook_dtype: bfloat16}",
            "bfloat16",
            2,
        ),
        ("aqlm-3", "float16", 1),
        (
            "{family: kmeans, vector_size: 4, entries: 4096, residuals: 2, codebook_dtype: bfloat16}",
            "bfloat16",
            1,
        ),
    ),
    "fragment": (
        ("aqlm-2x8", "float16", 4),
        ("aqlm-2x8", "float16", 16),
        ("aqlm-3", "float16", 2),
        ("gptvq-2", "float16", 1),
        ("gptvq-4", "float16", 16),
        ("quip-2", "bfloat16", 4),
        ("quip-4", "float16", 8),
        ("vq-2-8-1", "float16", 1),
    ),
    "bucket": (
        ("aqlm-1x16", "float16", 1),
        ("aqlm-1x16", "float16", 2),
        (
            "{family: kmeans, vector_size: 8, entries: 16384, residuals: 2, codebook_dtype: bfloat16}",
            "bfloat16",
            3,
        ),
    ),
}
#: Columns of every vector size.
PAST_SHAPES = ((1024, 4096), (333, 1104))
#: Candidates of a dataflow that are tried until one does not spill.
CANDIDATES = 12


@dataclass(frozen=True)
class Case:
    """A library: an algorithm as a spec writes it, a level with what follows it there, and the weight's shape.

    Of one `dataflow`, whatever the planner would take, if that is given.
    """

    algorithm: str
    level: str
    cache: str
    n: int
    k: int
    m: tuple[int, ...] = (1, 16)
    dtypes: tuple[str, ...] = ("float16", "bfloat16")
    dataflow: Dataflow | None = None

    def spec(self, name: str, gpu: str) -> bytes:
        """The spec to compile."""
        return (
            f"vqcc: 1\nname: {name}\nalgorithm: {self.algorithm}\nop: {{kind: gemv, m: {list(self.m)}, n: {self.n}, "
            f"k: {self.k}, dtype: [{', '.join(self.dtypes)}]}}\ngpu: {gpu}\nlevel: {self.level}\n{self.cache}\n"
        ).encode()


def all_cases(levels: list[str] | None = None) -> list[Case]:
    """Every algorithm, level (or only those given) and shape, those that no GPU can hold among them."""
    return [
        Case(algorithm, *level.partition("\n")[::2], n, k)
        for algorithm in (*PRESETS, *OTHERS)
        for level in LEVELS_AND_CACHES
        if levels is None or level.partition("\n")[0] in levels
        for n, k in SHAPES
    ]


def cases_past_the_paper() -> list[Case]:
    """Libraries of one kernel each, of every dataflow past the paper's, whatever the planner would take."""
    return [
        Case(algorithm, "best", "", n, k, (m,), (dtype,), dataflow)
        for dataflow, tried in PAST_THE_PAPER.items()
        for algorithm, dtype, m in tried
        for n, k in PAST_SHAPES
    ]


def main() -> None:
    """Run the sanitizer."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument(
        "--dataflows", action="store_true", help="each dataflow past the paper's instead of the levels"
    )
    parser.add_argument("--level", action="append", help="of the levels only this one; may be repeated")
    parser.add_argument("--commit")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    sanitizer = find_sanitizer()
    with tempfile.TemporaryDirectory() as directory:
        cases = cases_past_the_paper() if options.dataflows else all_cases(options.level)
        built = build_all(cases, Path(directory), options.gpu, build_case)
        results = run_tools(sanitizer, built)
    part = (
        " --dataflows" if options.dataflows else "".join(f" --level {level}" for level in options.level or ())
    )
    command = f"python bench/sanitize.py --gpu {options.gpu}{part} -o {options.output.name}"
    meta = meta_of(sanitizer, command, options.commit)
    report = write_report(options.output, meta, built, results)
    # Of the levels, some cannot be had with every algorithm.
    exit_unless_clean(report, "a dataflow has kernels that do not compile" if options.dataflows else None)


def build_case(case: Case, spec: Spec) -> Built | str:
    """The library of a case; of its dataflow, the most promising candidate that does not spill."""
    if case.dataflow is None:
        return build_library(spec, toolchain=find("nvrtc"), cache=None)
    (problem,) = problems_of(spec, spec.gpu[0])
    for candidate in candidates_of(WEIGHTS, problem, case.dataflow, CANDIDATES):
        built = build_candidate(spec, problem, candidate, find("nvrtc"), None)
        if not isinstance(built, str):
            return built
    return f"no candidate of {case.dataflow} compiles"


if __name__ == "__main__":
    main()
