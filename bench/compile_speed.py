"""How long the command line takes on this machine: start-up, compiles cold and unchanged, whole models, emulation.

    python bench/compile_speed.py -o bench/results/compile-speed.json     # ten minutes of a quiet machine
    python bench/compile_speed.py --show bench/results/compile-speed.json # what the pages have of it

Wall time of whole processes, median of several; the compile cache is a fresh one, so that nothing of earlier
runs helps.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markdown import table_head, table_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    Row = dict[str, Any]

ROOT = Path(__file__).parent.parent
SPECS = ("demo-gemv", "llama-7b-gate-quip-4", "llama-7b-gate-aqlm-3", "llama-7b-gate-gptvq-2")
MODELS = (ROOT / "specs" / "llama-3-8b.yaml",)
GPU, JOBS = "h200", 2
COLD, ELSEWHERE, UNCHANGED = "cold", "kernels cached, bundle new", "unchanged"
RUNS, MODEL_RUNS = 5, 3


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def row_of(what: str, times: Sequence[float], **more: object) -> Row:
    """A row of the results."""
    return {
        "what": what,
        "seconds": round(statistics.median(times), 3),
        "max": round(max(times), 3),
        **more,
    }


def vqcc_command() -> list[str]:
    """The vqcc that is measured."""
    return [shutil.which("vqcc") or str(Path(sys.executable).parent / "vqcc")]


def libraries(vqcc: list[str]) -> Iterator[Row]:
    """Each ready spec of one library."""
    for name in SPECS:
        cold, warm, other = [], [], []
        for _ in range(RUNS):
            with tempfile.TemporaryDirectory() as directory:
                common = [*vqcc, "compile", f"specs/{name}.yaml", "--cache-dir", f"{directory}/cache"]
                cold.append(seconds([*common, "-o", f"{directory}/out"]))
                warm.append(seconds([*common, "-o", f"{directory}/out"]))
                other.append(seconds([*common, "-o", f"{directory}/elsewhere"]))
        yield row_of(f"compile {name}, {COLD}", cold)
        yield row_of(f"compile {name}, {UNCHANGED}", warm)
        yield row_of(f"compile {name}, {ELSEWHERE}", other)


def model(vqcc: list[str], spec: Path, runs: int = MODEL_RUNS) -> Iterator[Row]:
    """A whole model, with how many of its sources were compiled and found; these must be the same in every run."""
    times: dict[str, list[float]] = {COLD: [], ELSEWHERE: [], UNCHANGED: []}
    counts: dict[str, set[tuple[int, int, int]]] = {what: set() for what in times}
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as directory:
            for what, out in ((COLD, "out"), (ELSEWHERE, "elsewhere"), (UNCHANGED, "elsewhere")):
                options = ["--gpu", GPU, "-j", str(JOBS), "--cache-dir", f"{directory}/cache", "--json"]
                command = [*vqcc, "compile", str(spec), *options, "-o", f"{directory}/{out}"]
                start = time.perf_counter()
                done = subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
                times[what].append(time.perf_counter() - start)
                took = json.loads(done.stdout)["libraries"][0]["took"]
                counts[what].add((took["libraries"], took["compiled"], took["found"]))
    for what, found in counts.items():
        ((count, compiled, cached),) = found
        more = {"model": spec.stem, "state": what, "gpu": GPU, "jobs": JOBS}
        more |= {"libraries": count, "compiled": compiled, "found": cached}
        yield row_of(f"compile {spec.stem}, {what}", times[what], **more)


def measured() -> Iterator[Row]:
    """All rows, as they are measured."""
    vqcc = vqcc_command()
    yield row_of("vqcc --help", [seconds([*vqcc, "--help"]) for _ in range(9)])
    yield from libraries(vqcc)
    for spec in MODELS:
        yield from model(vqcc, spec)
    with tempfile.TemporaryDirectory() as directory:
        seconds([*vqcc, "compile", "specs/demo-gemv.yaml", "-o", directory])
        validate = [*vqcc, "validate", f"{directory}/demo-gemv"]
        seconds(validate)
        times = [seconds(validate) for _ in range(3)]
        yield row_of("validate demo-gemv on the emulator, built before", times)


def line(row: Row) -> str:
    """A row as docs/performance.md has it."""
    return f"{row['what']:60} {row['seconds']:6.3f} s  (at most {row['max']:.3f})"


def model_table(rows: Sequence[Row]) -> Iterator[str]:
    """The rows of whole models as docs/models.md has them."""
    yield from table_head(
        ["model", "compiled", "seconds", "at most", "sources compiled", "found in the cache"]
    )
    for row in rows:
        if "model" in row:
            times = [f"{row['seconds']:.2f}", f"{row['max']:.2f}"]
            yield table_line([row["model"], row["state"], *times, row["compiled"], row["found"]])


def model_summary(rows: Sequence[Row], name: str) -> str:
    """What `vqcc compile` says at the end of a cold compile, as docs/models.md shows it."""
    (row,) = (row for row in rows if row.get("model") == name and row["state"] == COLD)
    counts = f"{row['compiled']} sources compiled, {row['found']} found in the cache"
    return f"  {row['libraries']} libraries in {row['seconds']:.1f} s: {counts}"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--show", type=Path, help="a results file, of which is printed what the pages have")
    options = parser.parse_args()
    if options.show is not None:
        rows = json.loads(options.show.read_text())["rows"]
        summaries = [model_summary(rows, spec.stem) for spec in MODELS]
        print("\n".join([*map(line, rows), "", *model_table(rows), "", *summaries]))
        return
    rows = []
    for row in measured():
        rows.append(row)
        print(line(row), flush=True)
    if options.output is not None:
        meta = {
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "command": "python bench/compile_speed.py",
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
