"""Libraries under compute-sanitizer's four tools: what bench/sanitize.py and bench/sanitize_attention.py share."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.runtime.bench import describe_run
from vqcc.runtime.device import open_device
from vqcc.spec.load import parse_spec
from vqcc.subjects import subject_of
from vqcc.tuning.candidates import candidates_of
from vqcc.tuning.session import build_candidate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.levels import Dataflow
    from vqcc.spec.model import Spec

TOOLS = ("racecheck", "memcheck", "initcheck", "synccheck")
#: Processes at a time, each with one thread for NumPy, and libraries of each: validation is bound by the CPU.
PROCESSES, SHARE = 14, 4
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
#: Candidates of a dataflow among which a tile is looked for: all of them.
MOST_CANDIDATES = 1000


class Case(Protocol):
    """A dataclass that says what library to make; its fields stand in the report."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def spec(self, name: str, gpu: str) -> bytes:
        """The spec to compile."""
        ...


AnyCase = TypeVar("AnyCase", bound=Case)


class TiledCase(Case, Protocol):
    """One that may ask for a `dataflow` and a kernel whose tile has some constants, whatever the planner would take."""

    dataflow: Dataflow | None
    tile: Mapping[str, int]


def library_name(number: int) -> str:
    """The name of a case's library, and of its folder."""
    return f"sanitize-{number}"


def find_sanitizer() -> str:
    """Where compute-sanitizer is; ends the program if it is not installed."""
    sanitizer = shutil.which("compute-sanitizer")
    if sanitizer is None:
        sys.exit("compute-sanitizer is not installed")
    return sanitizer


def build_tiled(case: TiledCase, spec: Spec, cache: CompileCache | None = None) -> Built | str:
    """The library of a case; of its dataflow, the most promising candidate with its tile that does not spill."""
    if case.dataflow is None:
        return build_library(spec, toolchain=find("nvrtc"), cache=cache)
    subject = subject_of(spec)
    (problem,) = subject.problems_of(spec, spec.gpu[0])
    candidates: tuple[Any, ...] = candidates_of(
        subject.flow, problem, case.dataflow, MOST_CANDIDATES, tiles=MOST_CANDIDATES
    )
    for candidate in candidates:
        tile = dict(candidate.pick.tile)
        if all(tile.get(name) == value for name, value in case.tile.items()):
            built = build_candidate(spec, problem, candidate, find("nvrtc"), cache)
            if not isinstance(built, str):
                return built
    return f"no candidate of {case.dataflow} with {dict(case.tile)} compiles"


def build_all(
    cases: Sequence[AnyCase], directory: Path, gpu: str, build_case: Callable[[AnyCase, Spec], Built | str]
) -> list[tuple[AnyCase, Path | str]]:
    """Have `build_case` compile every case: where its library lies, or why there is none."""

    def build(number: int) -> Path | str:
        name = library_name(number)
        try:
            built = build_case(cases[number], parse_spec(cases[number].spec(name, gpu), name))
        except VqccError as error:
            built = str(error)
        if isinstance(built, str):
            print(f"{cases[number]}: {built}", flush=True)
            return built
        write_library(built, directory / built.name)
        return directory / built.name

    with ThreadPoolExecutor(max_workers=12) as pool:
        return list(zip(cases, pool.map(build, range(len(cases))), strict=True))


def run_tools(sanitizer: str, built: Iterable[tuple[Case, Path | str]]) -> dict[str, dict[str, object]]:
    """Validate every library under every tool, a few in each process, and what each tool found: clean if all are."""
    paths = [path for _, path in built if isinstance(path, Path)]
    shares = [paths[first : first + SHARE] for first in range(0, len(paths), SHARE)]
    with ThreadPoolExecutor(PROCESSES) as pool:
        jobs = {
            tool: [pool.submit(run_process, sanitizer, tool, share) for share in shares] for tool in TOOLS
        }
        return {tool: _summed_up([job.result() for job in own]) for tool, own in jobs.items()}


def _summed_up(found: Sequence[tuple[bool, list[str], int]]) -> dict[str, object]:
    return {
        "clean": all(clean for clean, _, _ in found),
        "summary": sorted({line for _, summary, _ in found for line in summary}),
        "status": max(status for _, _, status in found),
    }


def run_process(sanitizer: str, tool: str, paths: Sequence[Path]) -> tuple[bool, list[str], int]:
    """Validate libraries under one tool: whether nothing was reported, its summaries, and the exit status."""
    validate = [sys.executable, "-m", "vqcc", "validate", *map(str, paths), "--backend", "cuda"]
    options = ["--tool", tool, "--error-exitcode", "9", "--kernel-regex", "kns=sanitize"]
    begun = time.monotonic()
    found = subprocess.run(  # a tool that crashes has a status of its own, and prints no summary
        [sanitizer, *options, *validate],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **ONE_THREAD},
    )
    clean, summary = verdict_of(found)
    names = ", ".join(path.name for path in paths)
    print(
        f"{tool}: {names}: {'clean' if clean else 'NOT CLEAN'}, {time.monotonic() - begun:.0f} s", flush=True
    )
    if not clean:
        print((found.stdout + found.stderr)[-4000:], flush=True)
    return clean, summary, found.returncode


def verdict_of(done: subprocess.CompletedProcess[str]) -> tuple[bool, list[str]]:
    """Whether a run under a tool went well and nothing was reported, and the tool's summaries."""
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", done.stdout + done.stderr)
    clean = (
        done.returncode == 0
        and bool(summary)
        and all(re.search(r": 0 (errors|hazards)", line) for line in summary)
    )
    return clean, summary


def meta_of(sanitizer: str, command: str, commit: str | None) -> dict[str, Any]:
    """What a run of `command` was made with, the sanitizer's version included."""
    version = subprocess.run([sanitizer, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+\.\d+\.\d+", version)
    with open_device() as device:
        meta = describe_run(device, find("nvrtc").identity, command, commit)
    return {**meta, "sanitizer": found.group() if found else version}


def covered(built: Iterable[tuple[Case, Path | str]]) -> dict[str, list[dict[str, Any]]]:
    """What the report says of each case: `libraries` ran under the tools, `left_out` could not be compiled."""
    found = list(built)
    return {
        "libraries": [asdict(case) for case, path in found if isinstance(path, Path)],
        "left_out": [{**asdict(case), "reason": reason} for case, reason in found if isinstance(reason, str)],
    }


def write_report(
    output: Path,
    meta: dict[str, Any],
    built: Sequence[tuple[Case, Path | str]],
    tools: dict[str, dict[str, object]],
) -> dict[str, Any]:
    """The report, which is written to `output`, and printed with the number of libraries instead of each."""
    report = {"meta": meta, **covered(built), "tools": tools}
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({"meta": meta, "libraries": len(report["libraries"]), "tools": tools}, indent=1))
    return report


def exit_unless_clean(report: dict[str, Any], left_out: str | None) -> None:
    """End the program with status 4 if a tool reported anything.

    Before that, with the words `left_out` if a case was left out; None: cases may be.
    """
    if left_out is not None and report["left_out"]:
        sys.exit(left_out)
    if not all(result["clean"] for result in report["tools"].values()):
        sys.exit(4)
