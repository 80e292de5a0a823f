"""The driver's own answers about occupancy, measured on a GPU, against ours; and the program that measures them."""

from __future__ import annotations

import importlib.util
import json
from enum import IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vqcc import gpus
from vqcc.codegen.toolchain import find
from vqcc.gpus.occupancy import blocks_per_sm, carveout_percent

ROOT = Path(__file__).parent.parent.parent
MEASURED = ROOT / "tests" / "data" / "occupancy-h200.json"
H200 = gpus.load("h200")


@pytest.fixture(scope="module")
def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bench_occupancy", ROOT / "bench" / "occupancy.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(
    not MEASURED.is_file(),
    reason="tests/data/occupancy-h200.json is not measured yet: bench/occupancy.py makes it",
)
def test_every_answer_is_that_of_the_driver(program: ModuleType) -> None:
    found = json.loads(MEASURED.read_text())
    points = found["points"]
    assert "H200" in found["meta"]["gpu"]
    assert len({tuple(point[:3]) for point in points}) == len(points) >= 500
    assert len({point[0] for point in points}) >= 8
    assert {point[3] for point in points} > {1, 2, 3, 4, 8}
    assert program.differences(H200, found) == []


class Error(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1


class Driver:
    """Answers as cuda-bindings does, from our own rules; `wrong_at` threads it adds a block, `refused_at` it errs.

    At `carved_at` threads it has a block less where the carve-out is not the largest.
    """

    def __init__(self, wrong_at: int = 0, refused_at: int = 0, carved_at: int = 0) -> None:
        self.wrong_at, self.refused_at, self.carved_at = wrong_at, refused_at, carved_at
        names = (
            "NUM_REGS",
            "SHARED_SIZE_BYTES",
            "MAX_DYNAMIC_SHARED_SIZE_BYTES",
            "PREFERRED_SHARED_MEMORY_CARVEOUT",
        )
        attributes = {f"CU_FUNC_ATTRIBUTE_{name}": SimpleNamespace(name=name) for name in names}
        self.CUfunction_attribute = SimpleNamespace(**attributes)
        self.set: dict[tuple[str, str], int] = {}

    def cuModuleLoadData(self, image: bytes) -> tuple[Any, ...]:
        return (Error.CUDA_SUCCESS, "module") if image == b"cubin" else (Error.CUDA_ERROR_INVALID_VALUE, None)

    def cuModuleGetFunction(self, module: str, name: bytes) -> tuple[Any, ...]:
        assert module == "module"
        return (Error.CUDA_SUCCESS, name.decode())

    def cuFuncGetAttribute(self, attribute: Any, function: str) -> tuple[Any, ...]:
        registers = int(function.removeprefix("hold_")) + 6
        return (Error.CUDA_SUCCESS, registers if attribute.name == "NUM_REGS" else 0)

    def cuFuncSetAttribute(self, function: str, attribute: Any, value: int) -> tuple[Any, ...]:
        self.set[function, attribute.name] = value
        return (Error.CUDA_SUCCESS,)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(
        self, function: str, threads: int, dynamic: int
    ) -> tuple[Any, ...]:
        assert dynamic <= self.set[function, "MAX_DYNAMIC_SHARED_SIZE_BYTES"]
        carveout = self.set[function, "PREFERRED_SHARED_MEMORY_CARVEOUT"]
        if threads == self.refused_at:
            return (Error.CUDA_ERROR_INVALID_VALUE, 0)
        ours = blocks_per_sm(H200, threads, int(function.removeprefix("hold_")) + 6, dynamic)
        assert carveout in {100, carveout_percent(H200, ours)}
        less = threads == self.carved_at and carveout < 100 and ours.blocks > 0
        return (Error.CUDA_SUCCESS, ours.blocks + (threads == self.wrong_at) - less)


def test_the_program_asks_about_enough_points(program: ModuleType) -> None:
    found = program.measure(Driver(), b"cubin", H200)
    assert len(found["points"]) >= 2000
    assert found["refused"] == []
    assert program.differences(H200, found) == []
    blocks = [point[3] for point in found["points"]]
    assert set(blocks) > {0, 1, 2, 3, 4, 5, 8, 16}


def test_the_program_finds_a_wrong_answer(program: ModuleType) -> None:
    wrong = program.differences(H200, program.measure(Driver(wrong_at=160), b"cubin", H200))
    assert {row[2] for row, _ in wrong} == {160}
    assert all(row[3] == ours + 1 for row, ours in wrong)


def test_the_program_finds_a_carveout_that_holds_too_few(program: ModuleType) -> None:
    found = program.measure(Driver(carved_at=256), b"cubin", H200)
    assert {row[2] for row in found["carved"]} == {256}
    assert program.differences(H200, found)
    assert {row[2] for row, _ in program.differences(H200, found)} == {256}
    assert program.measure(Driver(), b"cubin", H200)["carved"] == []


def test_what_the_driver_refuses_should_not_fit(program: ModuleType) -> None:
    found = program.measure(Driver(refused_at=128), b"cubin", H200)
    assert {row[3] for row in found["refused"]} == {"CUDA_ERROR_INVALID_VALUE"}
    assert all(ours > 0 for _, ours in program.differences(H200, found))
    assert program.differences(H200, found)


def test_a_failing_call_ends_the_program(program: ModuleType) -> None:
    with pytest.raises(SystemExit, match="cuModuleLoadData failed: CUDA_ERROR_INVALID_VALUE"):
        program.measure(Driver(), b"not a cubin", H200)


def test_the_file_has_a_row_a_line(program: ModuleType) -> None:
    found = {
        "points": [[8, 0, 32, 32], [8, 0, 64, 32]],
        "refused": [[8, 0, 2048, "CUDA_ERROR_INVALID_VALUE"]],
    }
    written = program.text({"gpu": "GPU"}, found)
    assert json.loads(written) == {"meta": {"gpu": "GPU"}, **found}
    assert "[8, 0, 64, 32]\n" in written


def test_its_kernels_need_as_many_registers_as_they_hold(program: ModuleType) -> None:
    compiled = find("nvrtc").compile(
        program.source(), target=H200.target, want_ptx=False, file_name="occupancy.cu"
    )
    for values in program.VALUES:
        resources = compiled.resources[f"hold_{values}"]
        assert values < resources.registers <= 255
        assert (resources.stack_bytes, resources.spill_store_bytes, resources.static_shared_bytes) == (
            0,
            0,
            0,
        )
