"""examples/engine under compute-sanitizer's four tools: its own kernels, and those of the model's libraries.

    python bench/sanitize_engine.py --gpu h200 -o bench/results/h200/engine-sanitizer.json

Runs a decoding and a prefill of a layer, step by step and as a graph, checked, once under each tool. A tool that is
missing, or that reports anything, fails the run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_build import build_engine
from gemv_levels import add_common, cache_of
from sanitizing import TOOLS, exit_unless_clean, find_sanitizer, meta_of, verdict_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from engine_build import BuiltEngine

SPECS = ("llama-3-8b-2bit", "llama-3-70b-2bit-unrotated")
#: What is run: sequences past their windows in several blocks, a prefill across tiles of the engine's attention.
KINDS = {
    "decode": ("--batch", "2", "--context", "300"),
    "prefill": ("--batch", "1", "--prefill", "130"),
}
#: Longer than any run has taken.
LIMIT_SECONDS = 1800


@dataclass(frozen=True)
class Run:
    """One run of the program under a tool; `clean` is None until it is known, or where it took too long."""

    tool: str
    spec: str
    kind: str
    clean: bool | None = None
    summary: tuple[str, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        """What is run once."""
        return self.tool, self.spec, self.kind


def main() -> None:
    """Run the sanitizer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--limit", type=float, default=LIMIT_SECONDS, help="seconds that a run may take")
    options = add_common(parser, output=Path("engine-sanitizer.json")).parse_args()
    sanitizer = find_sanitizer()
    limited = "" if options.limit == LIMIT_SECONDS else f" --limit {options.limit:g}"
    command = f"python bench/sanitize_engine.py --gpu {options.gpu}{limited} -o {options.output.name}"
    meta = meta_of(sanitizer, command, options.commit)
    with tempfile.TemporaryDirectory() as scratch:
        directory = (Path(scratch) if options.cache is None else options.cache) / "engines"
        engines = {spec: build_engine(spec, options.gpu, directory, cache_of(options)) for spec in SPECS}
        runs = [Run(tool, spec, kind) for tool in TOOLS for spec in SPECS for kind in KINDS]
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(len(runs)) as pool:
            jobs = [
                pool.submit(
                    run_under, sanitizer, run, engines[run.spec], options.limit, options.output.parent
                )
                for run in runs
            ]
            for job in as_completed(jobs):
                # The whole file after every run: an interruption loses none.
                done = job.result()
                runs = [done if each.key == done.key else each for each in runs]
                report = {"meta": meta, "runs": [asdict(run) for run in runs], "tools": tools_of(runs)}
                options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report["tools"], indent=1))
    exit_unless_clean(report, None)


def tools_of(runs: Sequence[Run]) -> dict[str, dict[str, Any]]:
    """Of each tool whether all its runs are clean, and its summaries."""
    return {
        tool: {
            "clean": all(run.clean for run in runs if run.tool == tool),
            "summary": sorted({line for run in runs if run.tool == tool for line in run.summary}),
        }
        for tool in TOOLS
    }


def run_under(sanitizer: str, run: Run, engine: BuiltEngine, limit: float, logs: Path) -> Run:
    """The run with what became of it: clean if its tool reported nothing and all was right; else there is a log."""
    options = ["--layers", "1", "--no-timing", "--check", "--books", engine.books]
    command = [sanitizer, "--tool", run.tool, "--error-exitcode", "9", engine.program]
    begun = time.monotonic()
    try:
        done = subprocess.run(
            [*command, *options, *KINDS[run.kind]],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        print(f"{run.key}: not done in {limit:.0f} s", flush=True)
        return run
    clean, summary = verdict_of(done)
    took = f"{time.monotonic() - begun:.0f} s"
    print(f"{run.key}: {'clean' if clean else 'NOT CLEAN'}, {took}", flush=True)
    if not clean:
        (logs / f"{'-'.join(run.key)}.txt").write_text(done.stdout + done.stderr)
    return replace(run, clean=clean, summary=tuple(summary))


if __name__ == "__main__":
    main()
