"""Every detector finds its planted bug, names the line, and passes the correct twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from emulator.bugs import BUGS, SOURCE, Bug
from emulator.multiply_bugs import (
    MULTIPLY_BUGS,
    MULTIPLY_SOURCE,
    PLAIN_MULTIPLY_BUGS,
    PLAIN_MULTIPLY_SOURCE,
)
from emulator.stage_bugs import STAGE_BUGS, STAGE_SOURCE

from vqcc.diagnostics import ExitCode
from vqcc.emulator import Buffer, BugKind, EmulationError, LaunchReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.emulator import Emulated


@pytest.fixture(scope="module")
def kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(SOURCE)


@pytest.fixture(scope="module")
def stage_kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(STAGE_SOURCE)


@pytest.fixture(scope="module")
def multiply_kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(MULTIPLY_SOURCE)


@pytest.fixture(scope="module")
def plain_multiply_kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(PLAIN_MULTIPLY_SOURCE)


@pytest.fixture(scope="module")
def exact_kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(
        SOURCE + 'extern "C" __global__ void group(int) { vqcc_emulator::group_barrier(1, blockDim.x); }'
    )


def run(
    kernels: Emulated,
    name: str,
    blocks: int = 1,
    threads: int = 64,
    shared_bytes: int = 1024,
    **options: bool,
) -> LaunchReport:
    buffers = [
        Buffer("in", np.arange(1, 65, dtype=np.float32), "input"),
        Buffer("out", np.zeros(64, np.float32), "output"),
        Buffer("counted", np.zeros(64, np.uint32), "inout"),
    ]
    return kernels.launch(
        name,
        (blocks, 1, 1),
        (threads, 1, 1),
        shared_bytes,
        [*buffers, 64],
        step_limit=1_000_000,
        **options,
    )


def line_marked(source: str, bug: Bug) -> int:
    """The line of the composed source that the bug's marker stands on."""
    after = source.index(f"{bug.name}_wrong(")
    return source.count("\n", 0, source.index("//!", after)) + 1


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.parametrize("count", [False, True], ids=["checking", "counting"])
def test_planted_bug_is_found_and_its_twin_passes(kernels: Emulated, bug: Bug, count: bool) -> None:
    check_bug(kernels, SOURCE, bug, count)


@pytest.mark.parametrize("bug", STAGE_BUGS, ids=lambda bug: bug.name)
@pytest.mark.parametrize("count", [False, True], ids=["checking", "counting"])
def test_planted_bug_of_stages_is_found_and_its_twin_passes(
    stage_kernels: Emulated, bug: Bug, count: bool
) -> None:
    check_bug(stage_kernels, STAGE_SOURCE, bug, count)


@pytest.mark.parametrize("bug", MULTIPLY_BUGS, ids=lambda bug: bug.name)
@pytest.mark.parametrize("count", [False, True], ids=["checking", "counting"])
def test_planted_bug_of_multiplies_is_found_and_its_twin_passes(
    multiply_kernels: Emulated, bug: Bug, count: bool
) -> None:
    check_bug(multiply_kernels, MULTIPLY_SOURCE, bug, count, threads=128, shared_bytes=16384)


@pytest.mark.parametrize("bug", PLAIN_MULTIPLY_BUGS, ids=lambda bug: bug.name)
def test_multiplies_without_barriers_of_stages(plain_multiply_kernels: Emulated, bug: Bug) -> None:
    check_bug(
        plain_multiply_kernels, PLAIN_MULTIPLY_SOURCE, bug, count=False, threads=128, shared_bytes=16384
    )


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_order_that_barriers_of_stages_need_finds_the_same(exact_kernels: Emulated, bug: Bug) -> None:
    """In a module with such barriers all readers of a place are told apart: that changes nothing for others."""
    check_bug(exact_kernels, SOURCE, bug, count=False)


def check_bug(
    kernels: Emulated, source: str, bug: Bug, count: bool, threads: int = 64, shared_bytes: int = 1024
) -> None:
    with pytest.raises(EmulationError) as caught:
        run(kernels, f"{bug.name}_wrong", bug.blocks, threads, shared_bytes, count=count)
    finding = caught.value.finding
    assert finding.kind is bug.kind, finding.message
    for part in bug.names:
        assert part in finding.message
    if bug.located:
        location = finding.location
        assert location is not None
        assert (location.file, location.line) == ("kernel.cu", line_marked(source, bug)), finding.message
    run(kernels, f"{bug.name}_right", bug.blocks, threads, shared_bytes, count=count)


def test_every_kind_of_bug_is_planted() -> None:
    assert {bug.kind for bug in (*BUGS, *STAGE_BUGS, *MULTIPLY_BUGS)} == set(BugKind) - {BugKind.FAULT}


def test_finding_has_structured_fields(kernels: Emulated) -> None:
    with pytest.raises(EmulationError) as caught:
        run(kernels, "global_read_past_end_wrong")
    error = caught.value
    finding = error.finding
    assert error.exit_code is ExitCode.MISMATCH
    assert [diagnostic.code for diagnostic in error.diagnostics] == ["VQ0830"]
    assert (finding.kernel, finding.block, finding.thread) == ("global_read_past_end_wrong", (0, 0, 0), 63)
    assert (finding.buffer, finding.offset, finding.access_bytes) == ("in", 256, 4)


def test_race_names_both_accesses(kernels: Emulated) -> None:
    with pytest.raises(EmulationError) as caught:
        run(kernels, "partial_barriers_that_do_not_chain_wrong")
    finding = caught.value.finding
    assert (finding.thread, finding.other_thread) == (3, 0)
    assert finding.other_frames[0].line == finding.frames[0].line - 3


def test_launches_after_an_error_are_not_affected(kernels: Emulated) -> None:
    for bug in BUGS:
        with pytest.raises(EmulationError):
            run(kernels, f"{bug.name}_wrong", bug.blocks)
        report = run(kernels, "global_read_past_end_right")
        assert report.first_unwritten("out") is None


def test_places_without_addr2line_are_functions(kernels: Emulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqcc.emulator.locations.shutil.which", lambda name: None)
    with pytest.raises(EmulationError) as caught:
        run(kernels, "global_read_past_end_wrong")
    location = caught.value.finding.location
    assert location is not None
    assert location.line == 0
    assert str(location).startswith("global_read_past_end_wrong+0x")


@pytest.mark.full
def test_endless_loop_without_any_access_is_ended(emulate: Callable[[str], Emulated]) -> None:
    kernels = emulate("""
extern "C" __global__ void spin(unsigned n) { while (n != 0) n |= 1; }
""")
    with pytest.raises(EmulationError) as caught:
        kernels.launch("spin", (1, 1, 1), (32, 1, 1), 0, [np.uint32(1)])
    assert caught.value.finding.kind is BugKind.STEP_LIMIT
    kernels.launch("spin", (1, 1, 1), (32, 1, 1), 0, [np.uint32(0)])
