"""What the CUDA driver says of occupancy: blocks per SM by registers, shared memory and threads.

    python bench/occupancy.py --gpu h200 --commit "$(git rev-parse HEAD)" -o tests/data/occupancy-h200.json

Compiles kernels that need many numbers of registers and asks cuOccupancyMaxActiveBlocksPerMultiprocessor about
each, with the largest carve-out of shared memory and with the one that libraries ask for: the answers should be the
same. tests/gpus/test_occupancy_golden.py holds vqcc.gpus.occupancy against the file. Exits with 4 if they differ.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc import gpus
from vqcc.codegen.toolchain import find
from vqcc.gpus.occupancy import blocks_per_sm, carveout_percent

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu

#: Values that a kernel keeps in registers at a time; six more address them, so that some kernels just fill a multiple
#: of 8 registers and others just pass it.
VALUES = (1, 10, 26, 27, 34, 42, 58, 59, 74, 90, 122, 123, 162, 163, 218, 240)
#: Threads of a block: whole warps, numbers of warps that sub-partitions share unevenly, and cut warps.
THREADS = (32, 64, 128, 160, 256, 288, 512, 768, 1000, 1024)

_KERNEL = """
extern "C" __global__ void hold_{values}(float* data, int turns) {{
  float held[{values}];
#pragma unroll
  for (int i = 0; i < {values}; ++i) held[i] = data[threadIdx.x + i * 1024];
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {{
#pragma unroll
    for (int i = 0; i < {values}; ++i) held[i] = held[i] * held[(i + 1) % {values}] + 1.0f;
  }}
#pragma unroll
  for (int i = 0; i < {values}; ++i) data[threadIdx.x + i * 1024] = held[i];
}}
"""


def source() -> str:
    """One kernel per number of values."""
    return "".join(_KERNEL.format(values=values) for values in VALUES)


def shared_sizes(gpu: Gpu) -> tuple[int, ...]:
    """Bytes of dynamic shared memory to ask about: where a number of blocks just fits an SM, and one byte more."""
    per_sm, most = gpu.shared_bytes_per_sm.integer, gpu.shared_bytes_per_block.integer
    unit, reserved = gpu.shared_allocation_unit.integer, gpu.shared_bytes_reserved.integer
    sizes = {0, 1, gpu.shared_bytes_per_block_default.integer, most}
    for blocks in (1, 2, 3, 4, 6, 8, 16, 32):
        edge = per_sm // blocks // unit * unit - reserved
        sizes |= {edge, edge + 1}
    return tuple(sorted(size for size in sizes if 0 <= size <= most))


def measure(driver: Any, cubin: bytes, gpu: Gpu) -> dict[str, list[list[Any]]]:
    """Ask about every kernel of the cubin in the current context.

    Returns `points` [registers, shared bytes, threads, blocks], and `refused`, those that the driver would not
    answer, with its error in place of the blocks, both with the largest carve-out; `carved` are the answers that the
    carve-out of `vqcc.gpus.occupancy` changes. Shared bytes are static and dynamic.
    """
    attribute = driver.CUfunction_attribute
    found: dict[str, list[list[Any]]] = {"points": [], "refused": [], "carved": []}
    module = check(driver.cuModuleLoadData(cubin), "cuModuleLoadData")
    for values in VALUES:
        function = check(driver.cuModuleGetFunction(module, f"hold_{values}".encode()), "cuModuleGetFunction")
        registers = _attribute(driver, function, attribute.CU_FUNC_ATTRIBUTE_NUM_REGS)
        static = _attribute(driver, function, attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES)
        limit = gpu.shared_bytes_per_block.integer - static
        opt_in = attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        check(driver.cuFuncSetAttribute(function, opt_in, limit), f"cuFuncSetAttribute {opt_in.name}")
        for shared in shared_sizes(gpu):
            for threads in THREADS:
                dynamic = min(shared, limit)
                kind, last = ask(driver, function, threads, dynamic, 100)
                point = [registers, dynamic + static, threads]
                found[kind].append([*point, last])
                carveout = carveout_percent(gpu, blocks_per_sm(gpu, threads, registers, dynamic + static))
                if (carved := ask(driver, function, threads, dynamic, carveout)) != (kind, last):
                    found["carved"].append([*point, carved[1]])
    return {kind: sorted(map(list, {tuple(row) for row in rows})) for kind, rows in found.items()}


def ask(driver: Any, function: Any, threads: int, dynamic: int, carveout: int) -> tuple[str, int | str]:
    """Blocks with a carve-out in percent: ("points", blocks), or ("refused", the driver's error)."""
    name = driver.CUfunction_attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT
    check(driver.cuFuncSetAttribute(function, name, carveout), f"cuFuncSetAttribute {name.name}")
    error, *answer = driver.cuOccupancyMaxActiveBlocksPerMultiprocessor(function, threads, dynamic)
    return ("points", int(answer[0])) if int(error) == 0 else ("refused", error.name)


def differences(gpu: Gpu, found: dict[str, list[list[Any]]]) -> list[tuple[list[Any], int]]:
    """Rows on which vqcc.gpus.occupancy says otherwise, each with its answer; refused ones should have no blocks."""
    rows = [(row, row[3]) for row in found["points"]] + [(row, 0) for row in found["refused"]]
    rows += [(row, row[3] if isinstance(row[3], int) else 0) for row in found.get("carved", [])]
    return [
        (row, ours)
        for row, theirs in rows
        if (ours := blocks_per_sm(gpu, row[2], row[0], row[1]).blocks) != theirs
    ]


def check(result: tuple[Any, ...], doing: str) -> Any:
    """The value of a cuda-bindings call, whose first element is its error."""
    error, *values = result
    if int(error) != 0:
        sys.exit(f"{doing} failed: {getattr(error, 'name', error)}")
    return values[0] if values else None


def text(meta: dict[str, Any], found: dict[str, list[list[Any]]]) -> str:
    """The results file: a row a line."""
    parts = [f'"meta": {json.dumps(meta)}']
    parts += [f'"{kind}": [\n{_rows(rows)}\n]' for kind, rows in found.items()]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def _rows(rows: list[list[Any]]) -> str:
    return ",\n".join(json.dumps(row) for row in rows)


def _attribute(driver: Any, function: Any, attribute: Any) -> int:
    return int(check(driver.cuFuncGetAttribute(attribute, function), f"cuFuncGetAttribute {attribute.name}"))


def _open(driver: Any, gpu: Gpu) -> str:
    """Make the first GPU current and return its name; it must be of the described one's architecture."""
    check(driver.cuInit(0), "cuInit")
    device = check(driver.cuDeviceGet(0), "cuDeviceGet")
    attribute = driver.CUdevice_attribute
    capability = ".".join(
        str(check(driver.cuDeviceGetAttribute(part, device), "cuDeviceGetAttribute"))
        for part in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    if capability != gpu.compute_capability:
        sys.exit(f"this GPU has compute capability {capability}, {gpu.name} has {gpu.compute_capability}")
    context = check(driver.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")
    check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    name = check(driver.cuDeviceGetName(128, device), "cuDeviceGetName")
    return (name.decode() if isinstance(name, bytes) else str(name)).strip("\0 ")


def _driver_release(driver: Any) -> str:
    version = Path("/sys/module/nvidia/version")
    if version.is_file():
        return version.read_text(encoding="ascii").strip()
    number = int(check(driver.cuDriverGetVersion(), "cuDriverGetVersion"))
    return f"CUDA {number // 1000}.{number % 1000 // 10}"


def _head() -> str | None:
    try:
        run = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    except OSError:
        return None
    return run.stdout.strip() or None


def main() -> None:
    """Measure, write the file, and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--commit")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    gpu, toolchain = gpus.load(options.gpu), find("nvrtc")
    compiled = toolchain.compile(source(), target=gpu.target, want_ptx=False, file_name="occupancy.cu")

    os.environ.setdefault(
        "CUDA_MODULE_LOADING", "EAGER"
    )  # attributes of a function not yet loaded may be refused
    from cuda.bindings import driver

    name = _open(driver, gpu)
    found = measure(driver, compiled.cubin, gpu)
    meta = {
        "commit": options.commit or _head(),
        "gpu": name,
        "driver": _driver_release(driver),
        "cuda": toolchain.identity,
        "python": platform.python_version(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "command": f"python bench/occupancy.py --gpu {options.gpu} -o {options.output.name}",
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text(meta, found), encoding="utf-8")
    wrong = differences(gpu, found)
    print(f"{len(found['points'])} points, {len(found['refused'])} refused, {len(wrong)} differ")
    for row, ours in wrong[:20]:
        print(f"registers, shared, threads, driver: {row}; vqcc: {ours}")
    if wrong:
        sys.exit(4)


if __name__ == "__main__":
    main()
