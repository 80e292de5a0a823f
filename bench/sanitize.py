"""Every kernel of every preset and level under compute-sanitizer's four tools.

    python bench/sanitize.py --gpu h200 -o bench/results/h200/gemv-sanitizer.json

Builds libraries with whole and ragged shapes, both types, then runs `vqcc validate --backend cuda` over all of
them once under each tool. A tool that is missing, or that reports anything, fails the run. The file lists
every library.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gemv_baseline import PRESETS

from vqcc.building import build_library, problems_of, write_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.flow import WEIGHTS
from vqcc.runtime.bench import describe_run
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec
from vqcc.tuning.candidates import candidates_of
from vqcc.tuning.session import build_candidate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.building import Built
    from vqcc.levels import Dataflow
    from vqcc.spec.model import Spec

TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")
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
#: Processes of a tool: validation is bound by the CPU.
PROCESSES = 3


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
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        sys.exit("compute-sanitizer is not installed")
    with tempfile.TemporaryDirectory() as directory:
        cases = cases_past_the_paper() if options.dataflows else all_cases(options.level)
        built = build_all(cases, Path(directory), options.gpu)
        paths = [path for path in built.values() if isinstance(path, Path)]
        with ThreadPoolExecutor(len(TOOLS)) as pool:
            results = dict(
                zip(TOOLS, pool.map(lambda tool: run_tool(sanitizer, tool, paths), TOOLS), strict=True)
            )
    part = (
        " --dataflows" if options.dataflows else "".join(f" --level {level}" for level in options.level or ())
    )
    command = f"python bench/sanitize.py --gpu {options.gpu}{part} -o {options.output.name}"
    meta = meta_of(sanitizer, command, options.commit)
    report = {"meta": meta, **covered(built), "tools": results}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({"meta": meta, "libraries": len(paths), "tools": results}, indent=1))
    if options.dataflows and report["left_out"]:
        sys.exit("a dataflow has kernels that do not compile")
    if not all(result["clean"] for result in results.values()):
        sys.exit(4)


def meta_of(sanitizer: str, command: str, commit: str | None) -> dict[str, Any]:
    """What a run of `command` was made with, the sanitizer's version included."""
    version = subprocess.run([sanitizer, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", version)
    with open_device() as device:
        meta = describe_run(device, find("nvrtc").identity, command, commit)
    return {**meta, "sanitizer": found.group() if found else version}


def build_all(cases: list[Case], directory: Path, gpu: str) -> dict[Case, Path | str]:
    """Compile every case: where its library lies, or why the GPU cannot hold it."""

    def build(number: int) -> Path | str:
        name = f"sanitize-{number}"
        try:
            spec = parse_spec(cases[number].spec(name, gpu), name)
            built = build_case(cases[number], spec)
        except VqccError as error:
            print(f"{cases[number]}: {error}", flush=True)
            return str(error)
        if isinstance(built, str):
            return built
        write_library(built, directory / built.name)
        return directory / built.name

    with ThreadPoolExecutor(max_workers=12) as pool:
        return dict(zip(cases, pool.map(build, range(len(cases))), strict=True))


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


def covered(built: dict[Case, Path | str]) -> dict[str, list[dict[str, Any]]]:
    """What the report says of each case: `libraries` ran under the tools, `left_out` could not be compiled."""
    return {
        "libraries": [asdict(case) for case, found in built.items() if isinstance(found, Path)],
        "left_out": [
            {**asdict(case), "reason": found} for case, found in built.items() if isinstance(found, str)
        ],
    }


def run_tool(sanitizer: str, tool: str, paths: list[Path]) -> dict[str, object]:
    """Validate every library under one tool, in several processes: clean if all are."""
    shares = [paths[i::PROCESSES] for i in range(min(PROCESSES, len(paths)))]
    with ThreadPoolExecutor(PROCESSES) as pool:
        found = list(pool.map(lambda share: run_process(sanitizer, tool, share), shares))
    return {
        "clean": all(clean for clean, _, _ in found),
        "summary": sorted({line for _, summary, _ in found for line in summary}),
        "status": max(status for _, _, status in found),
    }


def run_process(sanitizer: str, tool: str, paths: list[Path]) -> tuple[bool, list[str], int]:
    """Validate libraries under one tool: whether nothing was reported, its summaries, and the exit status."""
    validate = [sys.executable, "-m", "vqcc", "validate", *map(str, paths), "--backend", "cuda"]
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-regex", "kns=sanitize"]
    found = subprocess.run(  # a tool that crashes has a status of its own, and prints no summary
        [sanitizer, *options, *validate], capture_output=True, text=True, check=False
    )
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", found.stdout + found.stderr)
    clean = (
        found.returncode == 0
        and bool(summary)
        and all(re.search(r": 0 (errors|hazards)", s) for s in summary)
    )
    if not clean:
        print((found.stdout + found.stderr)[-4000:], flush=True)
    return clean, summary, found.returncode


if __name__ == "__main__":
    main()
