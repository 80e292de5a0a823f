"""How long the command line takes on this machine: start-up, cold compile, unchanged recompile, emulation.

    python bench/compile_speed.py [-o FILE.json]

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

ROOT = Path(__file__).parent.parent
SPECS = ("demo-gemv", "llama-7b-gate-quip-4", "llama-7b-gate-aqlm-3", "llama-7b-gate-gptvq-2")


def seconds(command: list[str]) -> float:
    """Wall time of one run."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return time.perf_counter() - start


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    vqcc = shutil.which("vqcc") or str(Path(sys.executable).parent / "vqcc")
    rows = []

    def note(what: str, times: list[float]) -> None:
        rows.append(
            {"what": what, "seconds": round(statistics.median(times), 3), "max": round(max(times), 3)}
        )
        print(f"{what:60} {statistics.median(times):6.3f} s  (at most {max(times):.3f})")

    note("vqcc --help", [seconds([vqcc, "--help"]) for _ in range(9)])
    for name in SPECS:
        cold, warm, other = [], [], []
        for _ in range(5):
            with tempfile.TemporaryDirectory() as directory:
                common = [vqcc, "compile", f"specs/{name}.yaml", "--cache-dir", f"{directory}/cache"]
                cold.append(seconds([*common, "-o", f"{directory}/out"]))
                warm.append(seconds([*common, "-o", f"{directory}/out"]))
                other.append(seconds([*common, "-o", f"{directory}/elsewhere"]))
        note(f"compile {name}, cold", cold)
        note(f"compile {name}, unchanged", warm)
        note(f"compile {name}, kernels cached, bundle new", other)
    with tempfile.TemporaryDirectory() as directory:
        seconds([vqcc, "compile", "specs/demo-gemv.yaml", "-o", directory])
        validate = [vqcc, "validate", f"{directory}/demo-gemv"]
        seconds(validate)
        note("validate demo-gemv on the emulator, built before", [seconds(validate) for _ in range(3)])
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
