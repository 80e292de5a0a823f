"""Every detector finds its planted bug, names the line, and passes the correct twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from emulator.bugs import BUGS, SOURCE, Bug

from vqcc.diagnostics import ExitCode
from vqcc.emulator import Buffer, BugKind, EmulationError, LaunchReport

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.emulator import Emulated


@pytest.fixture(scope="module")
def kernels(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(SOURCE)


def run(kernels: Emulated, name: str, blocks: int = 1, **options: bool) -> LaunchReport:
    buffers = [
        Buffer("in", np.arange(1, 65, dtype=np.float32), "input"),
        Buffer("out", np.zeros(64, np.float32), "output"),
        Buffer("counted", np.zeros(64, np.uint32), "inout"),
    ]
    return kernels.launch(
        name, (blocks, 1, 1), (64, 1, 1), 1024, [*buffers, 64], step_limit=1_000_000, **options
    )


def line_marked(bug: Bug) -> int:
    """The line of the composed source that the bug's marker stands on."""
    after = SOURCE.index(f"{bug.name}_wrong(")
    return SOURCE.count("\n", 0, SOURCE.index("//!", after)) + 1


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.parametrize("count", [False, True], ids=["checking", "counting"])
def test_planted_bug_is_found_and_its_twin_passes(kernels: Emulated, bug: Bug, count: bool) -> None:
    with pytest.raises(EmulationError) as caught:
        run(kernels, f"{bug.name}_wrong", bug.blocks, count=count)
    finding = caught.value.finding
    assert finding.kind is bug.kind, finding.message
    for part in bug.names:
        assert part in finding.message
    if bug.located:
        location = finding.location
        assert location is not None
        assert (location.file, location.line) == ("kernel.cu", line_marked(bug)), finding.message
    run(kernels, f"{bug.name}_right", bug.blocks, count=count)


def test_every_kind_of_bug_is_planted() -> None:
    assert {bug.kind for bug in BUGS} == set(BugKind) - {BugKind.FAULT}


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
