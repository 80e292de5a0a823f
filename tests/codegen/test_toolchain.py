from __future__ import annotations

import stat
from pathlib import Path

import pytest

from vqcc.codegen import toolchain
from vqcc.codegen.toolchain import check_request, does_not_compile, finish, minimum_driver
from vqcc.diagnostics import ExitCode, VqccError

LOG = (
    "ptxas info : Compiling entry function 'k' for 'sm_90'\nptxas info : Used 8 registers, used 0 barriers\n"
)


def test_an_unknown_toolchain_is_a_usage_error_with_a_guess() -> None:
    with pytest.raises(VqccError) as caught:
        toolchain.find("nvrct")
    assert caught.value.exit_code == ExitCode.USAGE
    assert caught.value.diagnostics[0].code == "VQ0601"
    assert "did you mean 'nvrtc'?" in str(caught.value.diagnostics[0].help)


@pytest.mark.parametrize(("version", "driver"), [("12.8.93", "525"), ("13.0.88", "580"), ("13.5.37", "580")])
def test_minimum_driver(version: str, driver: str) -> None:
    assert minimum_driver(version) == driver


@pytest.mark.parametrize("version", ["11.8.89", "14.0.1"])
def test_a_cuda_never_tried_is_refused(version: str) -> None:
    with pytest.raises(VqccError, match=f"CUDA {version} is not known") as caught:
        minimum_driver(version)
    assert (caught.value.diagnostics[0].code, caught.value.exit_code) == ("VQ0604", ExitCode.TOOLCHAIN)


@pytest.mark.parametrize("target", ["sm_90", "sm_90a", "sm_100f", "sm_120"])
def test_targets(target: str) -> None:
    check_request(target=target, file_name="a.b-c_d.cu")


@pytest.mark.parametrize(
    ("target", "file_name"),
    [
        ("sm_9", "x.cu"),
        ("compute_90", "x.cu"),
        ("sm_90 -I/", "x.cu"),
        ("sm_90\n", "x.cu"),
        ("sm_90", ""),
        ("sm_90", "../x.cu"),
        ("sm_90", "-o"),
        ("sm_90", ".x"),
        ("sm_90", "x" * 256),
    ],
)
def test_what_must_not_reach_a_command_line(target: str, file_name: str) -> None:
    with pytest.raises(ValueError, match="is not a"):
        check_request(target=target, file_name=file_name)


def test_source_that_does_not_compile_is_kept(tmp_path: Path) -> None:
    log = "x.cu(1): warning: w\nx.cu(2): error: e1\n\nx.cu(3): error: e2\n2 errors detected\n"
    error = does_not_compile("source", log, file_name="x.cu", target="sm_90", keep=tmp_path / "new")
    found = error.diagnostics[0]
    assert (found.code, error.exit_code) == ("VQ0603", ExitCode.TOOLCHAIN)
    assert found.message == "x.cu does not compile for sm_90"
    assert str(found.help).splitlines()[:2] == ["x.cu(2): error: e1", "x.cu(3): error: e2"]
    assert str(tmp_path / "new" / "x.cu") in str(found.help)
    assert (tmp_path / "new" / "x.cu").read_text() == "source"


def test_by_default_it_is_kept_where_only_the_user_can_read() -> None:
    error = does_not_compile("source", "x.cu(2): error: e", file_name="x.cu", target="sm_90", keep=None)
    line = next(line for line in str(error.diagnostics[0].help).splitlines() if "was kept as" in line)
    kept = Path(line.partition("was kept as ")[2])
    assert kept.read_text() == "source"
    assert stat.S_IMODE(kept.parent.stat().st_mode) == 0o700
    kept.unlink()
    kept.parent.rmdir()


def test_a_disk_that_refuses_the_source_does_not_hide_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = does_not_compile(
        "s", "x.cu(2): error: e", file_name="x.cu", target="sm_90", keep=tmp_path / "file"
    )
    assert "x.cu(2): error: e" in str(error.diagnostics[0].help)
    assert "could not be kept" in str(error.diagnostics[0].help)


def test_a_log_without_the_word_error_is_shown_by_its_end() -> None:
    log = "".join(f"line {number}\n" for number in range(40))
    error = does_not_compile("s", log, file_name="x.cu", target="sm_90", keep=Path("/dev/null"))
    shown = str(error.diagnostics[0].help).splitlines()
    assert "line 39" in shown
    assert "line 1" not in shown


def test_cubin_and_report_must_name_the_same_kernels() -> None:
    compiled = toolchain.find("nvrtc").compile(
        'extern "C" __global__ void k() {}', target="sm_90", want_ptx=False, file_name="k.cu"
    )
    assert finish(compiled.cubin, None, LOG, target="sm_90").resources["k"].registers == 8
    with pytest.raises(VqccError, match="the assembler reports on none") as caught:
        finish(compiled.cubin, None, "", target="sm_90")
    assert caught.value.diagnostics[0].code == "VQ0606"
    with pytest.raises(VqccError, match="the cubin is for sm_90, asked for was sm_89"):
        finish(compiled.cubin, None, LOG, target="sm_89")
