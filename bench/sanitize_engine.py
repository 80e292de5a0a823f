"""examples/engine under compute-sanitizer's four tools: its own kernels, and those of the model's libraries.

    python bench/sanitize_engine.py --gpu h200 -o bench/results/h200/engine-sanitizer.json

Runs a decoding and a prefill of a layer, checked, once under each tool. A tool that is missing, or that reports
anything, fails the run.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_build import build_engine
from engine_layer import CHECKS
from gemv_levels import add_common, cache_of
from sanitizing import TOOLS, exit_unless_clean, find_sanitizer, meta_of

if TYPE_CHECKING:
    from engine_build import BuiltEngine

SPECS = ("llama-3-8b-2bit", "llama-3-70b-2bit-unrotated")


def main() -> None:
    """Run the sanitizer."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options = add_common(parser, output=Path("engine-sanitizer.json")).parse_args()
    sanitizer = find_sanitizer()
    with tempfile.TemporaryDirectory() as scratch:
        directory = (Path(scratch) if options.cache is None else options.cache) / "engines"
        engines = [build_engine(spec, options.gpu, directory, cache_of(options)) for spec in SPECS]
        runs = [(tool, engine, kind) for tool in TOOLS for engine in engines for kind in CHECKS]
        with ThreadPoolExecutor(len(runs)) as pool:
            found = list(pool.map(lambda run: run_under(sanitizer, *run), runs))
    tools: dict[str, dict[str, Any]] = {
        tool: {
            "clean": all(clean for (own, _, _), (clean, _) in zip(runs, found, strict=True) if own == tool),
            "summary": sorted(
                {
                    line
                    for (own, _, _), (_, lines) in zip(runs, found, strict=True)
                    if own == tool
                    for line in lines
                }
            ),
        }
        for tool in TOOLS
    }
    command = f"python bench/sanitize_engine.py --gpu {options.gpu} -o {options.output.name}"
    report = {
        "meta": meta_of(sanitizer, command, options.commit),
        "runs": [{"spec": spec, "options": list(words)} for spec in SPECS for words in CHECKS.values()],
        "tools": tools,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(tools, indent=1))
    exit_unless_clean(report, None)


def run_under(sanitizer: str, tool: str, engine: BuiltEngine, kind: str) -> tuple[bool, list[str]]:
    """Whether a tool reported nothing of a run, which was right, and its summaries."""
    options = ["--layers", "1", "--repeats", "1", "--check", "--books", engine.books]
    command = [sanitizer, "--tool", tool, "--error-exitcode", "9", engine.program, *options, *CHECKS[kind]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", text)
    clean = (
        done.returncode == 0
        and bool(summary)
        and all(re.search(r": 0 (errors|hazards)", line) for line in summary)
    )
    print(f"{tool}: {engine.name}, {kind}: {'clean' if clean else 'NOT CLEAN'}", flush=True)
    if not clean:
        print(text[-3000:], flush=True)
    return clean, summary


if __name__ == "__main__":
    main()
