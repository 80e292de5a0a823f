"""How fast `vqcc profile` reads codes on this machine, and in how much memory.

    python bench/profile_speed.py [--megabytes 512] [-o FILE.json]

Per kind of codes a file of that size is made, of one weight whose codes are about as skewed as real ones, and read
from the page cache by processes of their own. In 10^9 bytes of codes per second of one core: `counting` only, and
`profile`, all of the work (header, checks, counts, parts, SHA-256); then `profile` per second of the clock on two
cores, where the hash has its own. Best of five runs; memory is the peak of the process beyond its imports.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from vqcc.algorithms import presets
from vqcc.tensors.container import save
from vqcc.tensors.vq_tensor import VQTensor

CASES = {
    "uint8, one table": "vq-4-8-1",
    "uint8, a table per 256 x 256": "gptvq-2",
    "uint16, 4,096 entries": "aqlm-3",
    "uint16, 65,536 entries": "aqlm-1x16",
    "uint16, e8p": "quip-4",
}
RUNS = 5
COLUMNS = 8192

CHILD = """
import json, os, re, sys, time
from pathlib import Path
path, what, cores = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
import numpy, vqcc.api, vqcc.hotness, vqcc.hotness.histogram, safetensors.numpy, vqcc.algorithms.e8p
from vqcc.tensors.container import load_all
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
def resident(key):
    return int(re.search(key + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
before = resident("VmRSS")
clock = time.process_time if cores == 1 else time.perf_counter
start = clock()
if what == "counting":
    (tensor,) = load_all(path, check_codes=False)
    start = clock()
    vqcc.hotness.count_codes(tensor)
else:
    vqcc.api.profile(path, path.with_suffix(".json"))
print(json.dumps({"seconds": clock() - start, "mebibytes": resident("VmHWM") - before}))
"""


def make(path: Path, preset: str, megabytes: int) -> int:
    """Write a weight of about `megabytes` of codes; return their bytes."""
    algorithm = presets.resolve(preset)
    row_bytes = (
        algorithm.residuals * (COLUMNS // algorithm.vector_size) * np.dtype(algorithm.codes_dtype).itemsize
    )
    n = (megabytes << 20) // row_bytes // 256 * 256
    rng = np.random.default_rng(0)
    small = algorithm.random_tensor(rng, "w", 256, COLUMNS)
    # Of 256 entries the hottest is looked up by 1.4 % of the codes, the hottest 8 by 7 %.
    block = (rng.random((1 << 22,)) ** 1.3 * algorithm.entries).astype(algorithm.codes_dtype)
    shape = (algorithm.residuals, n, COLUMNS // algorithm.vector_size)
    codes = np.resize(block, shape)
    parts = {part.name: part for part in algorithm.parts(n, COLUMNS)}
    arrays = {name: np.ones(part.shape, part.dtypes[0]) for name, part in parts.items() if name != "codes"}
    save(path, [VQTensor("w", algorithm, (n, COLUMNS), small.dtype, codes, **arrays)])
    return codes.nbytes


def measure(path: Path, what: str, cores: int) -> tuple[float, float]:
    """Seconds of the fastest run, MiB of the largest."""
    runs = []
    for _ in range(RUNS):
        command = [sys.executable, "-c", CHILD, str(path), what, str(cores)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    return min(run["seconds"] for run in runs), max(run["mebibytes"] for run in runs)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows = []
    print(f"{'GB/s of codes':30} {'counting':>10} {'profile':>10} {'2 cores':>10} {'MiB':>6}")
    for label, preset in CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "codes.safetensors"
            size = make(path, preset, options.megabytes)
            counting, _ = measure(path, "counting", 1)
            one, memory = measure(path, "profile", 1)
            two, _ = measure(path, "profile", 2)
        speeds = {
            name: round(size / time / 1e9, 2)
            for name, time in (
                ("counting_one_core", counting),
                ("profile_one_core", one),
                ("profile_two_cores", two),
            )
        }
        rows.append({"codes": label, "preset": preset, "bytes": size, **speeds, "peak_mib": round(memory, 1)})
        print(
            f"{label:30}" + "".join(f" {speed:10.2f}" for speed in speeds.values()) + f" {memory:6.0f}",
            flush=True,
        )
    if options.output is not None:
        meta = {
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "cores": os.cpu_count(),
            "python": sys.version.split()[0],
            "numpy": np.__version__,
            "command": f"python bench/profile_speed.py --megabytes {options.megabytes}",
        }
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps({"meta": meta, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
