"""Launches of linear libraries against what the C header does with the same arguments, field by field."""

from __future__ import annotations

import ctypes
import random
from typing import TYPE_CHECKING

import pytest
from libraries import build_fake, with_workspace
from torch_shim import TYPES, Shim

from vqcc.building import write_library
from vqcc.library import load_weight_library
from vqcc.torch.kernels import LoadedKernels, find_gpu
from vqcc.torch.linear_launch import LinearArguments, LinearLaunches

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.assembling import Built
    from vqcc.library import Library

#: A CUstream, in the upper half of the address space.
STREAM = 0x8000_0000_0000_1234
INT8 = {
    "family": "kmeans",
    "vector_size": 4,
    "entries": 256,
    "residuals": 2,
    "scope": {"rows": 32, "cols": 128},
    "scales": {"group": 64},
    "codebook_dtype": "int8",
}


class HeaderArguments(ctypes.Structure):
    """The header's args."""

    _fields_ = (
        *((name, ctypes.c_uint64) for name in LinearArguments._fields[:8]),
        ("x_stride", ctypes.c_int64),
        ("y_stride", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("m", "type", "overlap", "reserved")),
    )

    @classmethod
    def of(cls, args: LinearArguments) -> HeaderArguments:
        fields = args._asdict()
        return cls(**{**fields, "type": TYPES[fields.pop("dtype")]})


def built(name: str) -> Built:
    """Two GPUs and two types with workspaces on one or both, int8 codebooks, and grids that follow panels of rows."""
    if name == "alpha":
        made = build_fake(
            name=name, m=[4, 1], dtype=["float16", "bfloat16"], gpu=["h200", "rtx4090"], n=72, k=264
        )
        return with_workspace(made, [0, 512, 0, 0], [256, 1 << 33, 0, 4])
    if name == "beta":
        return with_workspace(build_fake(INT8, name=name, m=[3, 16, 8], n=70, k=300), [0, 4096, 8])
    return build_fake("aqlm-2x8", kind="gemm", name=name, m=[32, 300], n=72, k=264)


class Both:
    """A library whose kernels are loaded by the header and by Python, through one stand-in for libcuda."""

    def __init__(self, name: str, directory: Path) -> None:
        write_library(built(name), directory / name)
        self.library: Library = load_weight_library(directory / name)
        self.shim = Shim(self.library, directory)
        self.launches = [LinearLaunches(self.library, gpu) for gpu in self.library.gpus]

    def load(self, number: int) -> LoadedKernels:
        """Load the kernels of GPU `number` both ways, which must allow them the same."""
        build = self.library.builds[self.library.gpus[number]]
        kernels = build.kernels
        assert self.shim.status("header_load", number) == "OK"
        allowed = self.shim.attributes()
        loaded = LoadedKernels(self.shim.driver, 1, b"cubin", kernels, can_overlap=build.can_overlap)
        assert self.shim.attributes() == allowed
        self.shim.set_parameters(kernels[0].arguments)
        return loaded

    def sound(self, rng: random.Random) -> LinearArguments:
        """Arguments that are accepted, if there is a kernel of the type."""
        op, launches = self.library.op, self.launches[0]
        addresses = (256 * rng.randrange(1, 1 << 40) for _ in range(8))
        k = -(-op.k // launches.x_alignment) * launches.x_alignment
        return LinearArguments(
            *addresses,
            m=rng.randint(1, launches.max_m),
            x_stride=k + rng.choice([0, launches.x_alignment]),
            y_stride=op.n + rng.randrange(3),
            dtype=rng.choice(["float16", "bfloat16"]),
            overlap=rng.random() < 0.5,
        )

    def wrong(self, rng: random.Random, args: LinearArguments) -> LinearArguments:
        """The same with something else in one place, which may be wrong."""
        name = rng.choice(args._fields[:-1])
        value = getattr(args, name)
        if name == "dtype":
            return args._replace(dtype=rng.choice(["float16", "bfloat16"]))
        if name in {"m", "x_stride", "y_stride"}:
            return args._replace(**{name: value + rng.choice([-value, -value - 1, 1, -1, 400])})
        return args._replace(
            **{name: rng.choice([0, value + 1, value + 2, value + 4, value + 8, value + 16])}
        )


@pytest.fixture(scope="module", params=["alpha", "beta", "delta"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(request.param, tmp_path_factory.mktemp(request.param))


def test_statuses_and_launches_are_the_headers(both: Both) -> None:
    rng = random.Random(0)
    seen, overlapped = set(), set()
    for number, launches in enumerate(both.launches):
        loaded = both.load(number)
        for _ in range(1500):
            args = both.sound(rng)
            for _ in range(rng.choice([0, 0, 1, 1, 2])):
                args = both.wrong(rng, args)
            theirs = HeaderArguments.of(args)
            wanted = both.shim.status("header_launch", ctypes.byref(theirs), ctypes.c_void_p(STREAM))
            launched = both.shim.taken()
            assert launches.launch(loaded, args, STREAM) == wanted, args
            assert both.shim.taken() == launched, args
            assert (launched is None) == (wanted != "OK")
            if launched is not None:
                overlapped.add((number, bool(launched[4])))
            needed = both.shim.library.header_workspace_bytes
            needed.restype = ctypes.c_int64
            assert launches.workspace_bytes(args.dtype, args.m) == needed(ctypes.byref(theirs))
            seen.add(wanted)
    assert {"OK", "ERROR_NULL_POINTER", "ERROR_SIZE", "ERROR_STRIDE", "ERROR_MISALIGNED"} <= seen
    # The second GPU is too old, as the header knows of it.
    assert overlapped == {(0, False), (0, True), (1, False)} - {(len(both.launches), False)}
    assert ("ERROR_TYPE" in seen) == (len(both.library.op.dtype) == 1)


def test_gpus_are_found_as_the_header_finds_them(both: Both) -> None:
    found = set()
    for device in [
        (9, 0, 132),
        (9, 0, 131),
        (9, 0, 200),
        (8, 9, 128),
        (8, 9, 144),
        (8, 9, 100),
        (8, 6, 84),
        (10, 0, 148),
    ]:
        both.shim.set_device(*device)
        gpus = [(build.runs_on[0], build.sm_count) for build in both.library.builds.values()]
        wanted = both.shim.library.header_find_gpu()
        assert find_gpu(gpus, device) == (None if wanted < 0 else wanted)
        found.add(wanted)
    assert len(found) == len(both.library.gpus) + 1


def test_of_gpus_of_one_capability_the_largest_that_fits() -> None:
    gpus = [("sm_90", 114), ("sm_90", 132), ("sm_80", 108)]
    assert [find_gpu(gpus, (9, 0, count)) for count in (113, 114, 131, 132, 144)] == [None, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "function", ["cuModuleLoadData", "cuModuleGetFunction", "cuFuncLoad", "cuFuncSetAttribute"]
)
def test_nothing_stays_loaded_if_loading_fails(both: Both, function: str) -> None:
    kernels = both.library.builds[both.library.gpus[0]].kernels
    held = both.shim.modules
    both.shim.fail(function)
    try:
        with pytest.raises(RuntimeError, match=f"{function} failed"):
            LoadedKernels(both.shim.driver, 1, b"cubin", kernels)
    finally:
        both.shim.fail("")
    assert both.shim.modules == held


def test_a_launch_that_the_driver_refuses_says_why(both: Both) -> None:
    loaded, args = both.load(0), both.sound(random.Random(1))._replace(overlap=False, dtype="float16")
    both.shim.fail("cuLaunchKernel", 701)
    try:
        with pytest.raises(RuntimeError, match="cuLaunchKernel failed: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"):
            both.launches[0].launch(loaded, args, STREAM)
        both.shim.fail("cuLaunchKernel", 999)
        with pytest.raises(RuntimeError, match="cuLaunchKernel failed with CUresult 999"):
            both.launches[0].launch(loaded, args, STREAM)
    finally:
        both.shim.fail("")


def test_a_thread_without_a_context_gets_the_one_that_kernels_are_in(both: Both) -> None:
    loaded, args = both.load(0), both.sound(random.Random(1))._replace(dtype="float16")
    both.shim.set_context(0)
    assert both.launches[0].launch(loaded, args, STREAM) == "OK"
    assert both.shim.context == 1
    assert both.shim.taken() is not None


def test_the_primary_context_is_taken_where_there_is_none(both: Both) -> None:
    both.shim.set_context(0)
    assert both.shim.driver.current_context(2) == 42
    assert both.shim.context == 42
    both.shim.set_context(1)
    assert both.shim.driver.current_context(2) == 1
