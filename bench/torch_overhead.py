"""What a launch costs PyTorch's thread, without a GPU: libcuda is a stand-in whose functions do nothing.

    python bench/torch_overhead.py

Prints microseconds that a thread works for a call: of the operator that a layer calls, dispatch included, of its parts,
and of the same operator if it were made by `torch.library.custom_op`. Tensors lie on the CPU, so PyTorch's allocation
of the output is the CPU's; on a GPU `bench/torch_op.py` measures the whole.
"""

from __future__ import annotations

import ctypes
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

import vqcc.torch
from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.spec.load import parse_spec
from vqcc.torch import attention_op, linear_op
from vqcc.torch.attention_op import AppendCall, AttendCall
from vqcc.torch.driver import Driver
from vqcc.torch.operators import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Callable

CALLS, REPEATS = 2000, 15
NOTHING = (
    "cuModuleUnload", "cuFuncLoad", "cuFuncSetAttribute", "cuCtxSetCurrent", "cuLaunchKernel", "cuLaunchKernelEx",
)  # fmt: skip
FINDING = (
    "int cuCtxGetDevice(int* device) { *device = 0; return 0; }\n"
    "int cuDeviceGetAttribute(int* value, int attribute, int device)"
    "{ *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 132; return device; }\n"
)
LINEAR = "op: {kind: gemv, m: [1, 4], n: 72, k: 264}\nalgorithm: aqlm-2x8\n"
ATTENTION = (
    "op: {kind: attention_decode, q_heads: 4, kv_heads: 2, head_dim: 64, batch: 2, context: 256, page_size: 32}\n"
    "algorithm: cq-2\n"
)


def stand_in(directory: Path) -> Driver:
    """A libcuda that does nothing."""
    source = directory / "nothing.c"
    handles = ("cuModuleLoadData", "cuModuleGetFunction", "cuCtxGetCurrent")
    source.write_text(
        "".join(f"int {name}() {{ return 0; }}\n" for name in NOTHING)
        + "".join(f"int {name}(void** handle) {{ *handle = (void*)16; return 0; }}\n" for name in handles)
        + FINDING
    )
    subprocess.run(
        ["cc", "-w", "-O2", "-shared", "-fPIC", source, "-o", directory / "nothing.so"], check=True
    )
    return Driver(ctypes.CDLL(str(directory / "nothing.so")))


def load(name: str, op: str, directory: Path, driver: Driver) -> Any:
    """A library, loaded as on an H200."""
    text = f"vqcc: 1\nname: {name}\ngpu: h200\nlevel: gc\n{op}"
    built = build_library(parse_spec(text.encode(), name), toolchain=find("nvrtc"), cache=None)
    write_library(built, directory / name)
    library: Any = vqcc.torch.load(directory / name)
    runtime = library._runtime
    runtime._loaded[0] = runtime.load_with(driver, 0)
    return library


def microseconds(call: Callable[[], object]) -> float:
    """Of one call, the thread's own time: the least of some repeats, for other programs disturb."""
    found = []
    for _ in range(REPEATS):
        start = time.thread_time()
        for _ in range(CALLS):
            call()
        found.append((time.thread_time() - start) / CALLS * 1e6)
    return min(found)


def add_operators() -> Any:
    """The linear operator as it is on CUDA, for tensors of the CPU, by both interfaces of PyTorch."""
    schema = str(torch.ops.vqcc.linear.default._schema).removeprefix("vqcc::linear")

    def launch(
        x: Any, codes: Any, books: Any, stage: Any, scales: Any, bias: Any, room: Any, library: str
    ) -> Any:
        packed = linear_op.Packed(codes, books, stage, scales, room)
        return linear_op.launch_linear(linear_op.registered(library), x, packed, bias, 0)

    OPERATORS.define("timed" + schema, tags=(torch.Tag.pt2_compliant_tag,))
    OPERATORS.impl("timed", launch, "CPU")
    OPERATORS.impl("timed", torch.library.fallthrough_kernel, "Autograd")
    torch.library.custom_op("vqcc::decorated", launch, mutates_args=(), schema=schema)
    return torch.ops.vqcc.timed.default, torch.ops.vqcc.decorated.default


def linear_rows(library: Any) -> dict[str, float]:
    """Calls of a linear library."""
    weight = vqcc.torch.Weight.empty(library)
    x = torch.zeros(1, 264, dtype=torch.float16)
    timed, decorated = add_operators()
    operands = (x, weight.codes, weight.books, None, weight.scales, None, None, library._identity)
    packed = linear_op.Packed(*operands[1:5], None)
    layer = vqcc.torch.Linear(library, weight)
    linear_op_of_library = vqcc.torch.linear_library.linear
    rows = {
        "linear, in the operator": microseconds(
            lambda: linear_op.launch_linear(library._runtime, x, packed, None, 0)
        ),
        "linear, of that PyTorch's empty output": microseconds(lambda: x.new_empty((1, 72))),
        "linear, the operator": microseconds(lambda: timed(*operands)),
        "linear, the operator by custom_op": microseconds(lambda: decorated(*operands)),
    }
    vqcc.torch.linear_library.linear = timed
    rows["linear, vqcc.torch.Linear"] = microseconds(lambda: layer(x))
    vqcc.torch.linear_library.linear = linear_op_of_library
    dense = torch.nn.Linear(1, 1, bias=False)
    one = torch.zeros(1, 1)
    rows["for comparison, torch.nn.Linear of one element on the CPU"] = microseconds(lambda: dense(one))
    return rows


def attention_rows(library: Any) -> dict[str, float]:
    """Calls of an attention library."""
    books, cache = vqcc.torch.Books.empty(library), library.cache(batch=2, pages=4, device="cpu")
    queries, new = (torch.zeros(2, 1, heads, 64, dtype=torch.float16) for heads in (4, 2))
    lengths, table = torch.zeros(2, dtype=torch.int32), torch.zeros(2, 4, dtype=torch.int32)
    room = torch.zeros(library.workspace_bytes() + 512, dtype=torch.uint8)
    room = room[-room.data_ptr() % 256 :]
    where = (lengths, table)
    attending = (*books.operands()[0], *cache.operands(), *where, room, 0.125, 0.0, library._identity)
    appending = (
        books.append_key_books,
        books.append_value_books,
        *cache.operands(),
        *where,
        None,
        library._identity,
    )
    return {
        "attend, in the operator": microseconds(lambda: AttendCall.of(False, queries, *attending).launch(0)),
        "append, in the operator": microseconds(lambda: AppendCall.of(new, new, *appending).launch(0)),
    }


def main() -> None:
    """Measure and print."""
    for module in (linear_op, attention_op):
        module.current_stream = lambda device: device  # type: ignore[attr-defined]
        module.on_device = lambda device, launch, *rest: launch(*rest)  # type: ignore[attr-defined]  # noqa: ARG005
    with tempfile.TemporaryDirectory() as name, torch.inference_mode():
        directory = Path(name)
        driver = stand_in(directory)
        rows = linear_rows(load("timed-linear", LINEAR, directory, driver))
        rows |= attention_rows(load("timed-attention", ATTENTION, directory, driver))
    for what, value in rows.items():
        print(f"{value:7.2f} us  {what}")


if __name__ == "__main__":
    main()
