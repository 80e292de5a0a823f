from __future__ import annotations

from dataclasses import replace

import pytest

from vqcc.codegen.resources import Resources, parse_resources, without_timing

TWO_KERNELS = """\
x.cu(3): warning #177-D: variable "u" was declared but never referenced
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function 'second' for 'sm_90'
ptxas info    : Function properties for second
ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 8 registers, used 0 barriers
ptxas info    : Compile time = 37.824 ms
ptxas info    : Compiling entry function 'first' for 'sm_90'
ptxas info    : Function properties for first
ptxas         .     256 bytes stack frame, 12 bytes spill stores, 16 bytes spill loads
ptxas info    : Used 32 registers, used 2 barriers, 272 bytes cumulative stack size, 1024 bytes smem
ptxas info    : Compile time = 12.509 ms
"""
FUNCTION = """\
ptxas info    : Function properties for _Z1fPfi
    64 bytes stack frame, 3 bytes spill stores, 5 bytes spill loads
"""


def test_each_kernel_gets_its_own_numbers() -> None:
    assert parse_resources(TWO_KERNELS) == {
        "first": Resources(32, 1024, 272, 12, 16, 2),
        "second": Resources(8, 0, 0, 0, 0, 0),
    }


def test_kernels_come_sorted_by_name() -> None:
    assert list(parse_resources(TWO_KERNELS)) == ["first", "second"]


def test_functions_that_were_not_inlined_count_for_every_kernel() -> None:
    found = parse_resources(TWO_KERNELS + FUNCTION)
    assert found["second"] == Resources(8, 0, 64, 3, 5, 0)
    assert found["first"] == Resources(32, 1024, 320, 15, 21, 2)


def test_nothing_in_nothing_out() -> None:
    assert parse_resources("") == {}
    assert parse_resources("ptxas info    : Used 8 registers, used 0 barriers\n") == {}


def test_lines_cut_in_half_are_passed_over() -> None:
    for end in range(len(TWO_KERNELS)):
        parse_resources(TWO_KERNELS[:end])


def test_only_timing_leaves_the_log() -> None:
    kept = without_timing(TWO_KERNELS)
    assert "Compile time" not in kept
    assert kept.count("\n") == TWO_KERNELS.count("\n") - 2


REASONS = (
    "insufficient register resources for the wgmma pipeline",
    "non wgmma instructions defining accumulator registers of a wgmma between start and end of the pipeline stage",
)


@pytest.mark.parametrize("reason", REASONS)
@pytest.mark.parametrize("number", ["(C7510) ", "(C7511) ", ""])
@pytest.mark.parametrize("line", [" in line 111", ""])
@pytest.mark.parametrize("the", ["the ", ""])
@pytest.mark.parametrize("first", [True, False])
def test_serialized_multiplies_are_the_kernels_that_the_notice_names(
    reason: str, number: str, the: str, line: str, first: bool
) -> None:
    notice = (
        f"ptxas info    : {number}Potential Performance Loss: wgmma.mma_async instructions are serialized "
        f"due to {reason} in {the}function 'first'{line}\n"
    )
    found = parse_resources(notice + TWO_KERNELS if first else TWO_KERNELS + notice)
    assert found == {
        "first": Resources(32, 1024, 272, 12, 16, 2, reason),
        "second": Resources(8, 0, 0, 0, 0, 0),
    }


def test_a_notice_that_names_no_kernel_is_of_all() -> None:
    notice = f"ptxas info : wgmma.mma_async instructions are serialized due to {REASONS[0]}\n"
    assert {used.serialized for used in parse_resources(TWO_KERNELS + notice).values()} == {REASONS[0]}


def test_manifests_keep_the_reason_where_there_is_one() -> None:
    used = Resources(32, 0, 0, 0, 0, 1)
    assert "serialized" not in used.to_json()
    assert replace(used, serialized=REASONS[0]).to_json()["serialized"] == REASONS[0]
