from __future__ import annotations

import contextlib
import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.codegen import toolchain
from vqcc.codegen.cubin import CubinInfo, check_cubin, read_cubin
from vqcc.diagnostics import ExitCode, VqccError

SOURCE = """
__device__ __noinline__ float help(float* x, int i) { return x[i] * x[i + 1]; }
extern "C" __global__ void beta(float* x, int i) { x[0] = help(x, i); }
extern "C" __global__ void alpha(float* x) { x[1] = x[2]; }
"""


def build(target: str) -> bytes:
    return toolchain.find("nvrtc").compile(SOURCE, target=target, want_ptx=False, file_name="x.cu").cubin


@pytest.fixture(scope="module")
def cubin() -> bytes:
    return build("sm_90")


@pytest.mark.parametrize("sm", [80, 86, 89, 90, 100, 120])
def test_agrees_with_a_general_elf_library(sm: int) -> None:
    from elftools.elf.elffile import ELFFile

    data = build(f"sm_{sm}")
    elf = ELFFile(io.BytesIO(data))
    assert elf.header["e_flags"] >> 8 & 0xFF == sm
    symbols = elf.get_section_by_name(".symtab").iter_symbols()  # type: ignore[union-attr]
    kernels = {
        s.name for s in symbols if s["st_info"]["bind"] == "STB_GLOBAL" and s["st_info"]["type"] == "STT_FUNC"
    }
    info = read_cubin(data)
    assert info == CubinInfo(sm, ("alpha", "beta"))
    assert kernels == set(info.kernels)


def test_the_older_place_of_the_architecture(cubin: bytes) -> None:
    older = bytearray(cubin)
    older[8] = 7
    older[48:52] = (0x00500550).to_bytes(4, "little")
    assert read_cubin(bytes(older)).sm == 0x50


@pytest.mark.parametrize("target", ["sm_90", "sm_90a"])
def test_the_right_target(cubin: bytes, target: str) -> None:
    assert check_cubin(cubin, target=target).sm == 90


def refusal(data: bytes, target: str = "sm_90") -> str:
    with pytest.raises(VqccError) as caught:
        check_cubin(data, target=target)
    assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0606", ExitCode.TOOLCHAIN)
    return caught.value.diagnostics[0].message


def test_another_target(cubin: bytes) -> None:
    assert refusal(cubin, "sm_89") == "the cubin is for sm_90, asked for was sm_89"


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ((0, b"MZ"), "does not start as a 64-bit"),
        ((4, b"\x01"), "does not start as a 64-bit"),
        ((18, b"\x3e\x00"), "its ELF machine is 62"),
        ((58, b"\x00\x00"), "its section headers have 0 bytes"),
        ((60, b"\x00\x00"), "it has 0 symbol tables"),
        ((40, b"\xff" * 8), "not a sound cubin"),
    ],
)
def test_what_is_no_cubin(cubin: bytes, patch: tuple[int, bytes], message: str) -> None:
    offset, replacement = patch
    damaged = cubin[:offset] + replacement + cubin[offset + len(replacement) :]
    assert message in refusal(damaged)


def test_every_truncation_is_noticed(cubin: bytes) -> None:
    # Section headers lie near the end, the program headers after them are of no interest here.
    sections_end = int.from_bytes(cubin[40:48], "little") + 64 * int.from_bytes(cubin[60:62], "little")
    for end in range(0, sections_end, 7):
        refusal(cubin[:end])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32), changes=st.integers(1, 20))
def test_damage_is_refused_or_read_but_never_crashes(cubin: bytes, seed: int, changes: int) -> None:
    generator = random.Random(seed)
    damaged = bytearray(cubin)
    for _ in range(changes):
        damaged[generator.randrange(len(damaged))] = generator.randrange(256)
    with contextlib.suppress(VqccError):
        assert isinstance(read_cubin(bytes(damaged)), CubinInfo)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_noise_is_refused(data: bytes) -> None:
    refusal(data)
