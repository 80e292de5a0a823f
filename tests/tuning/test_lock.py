"""Lock files that are none: told with their places, before anything is compiled."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import run
from libraries import spec_text

from vqcc.data_files import lock_path
from vqcc.diagnostics import VqccError
from vqcc.tuning.lock import Lock, load_lock, render_lock

if TYPE_CHECKING:
    from pathlib import Path

GOOD = """\
vqcc_lock: 1
kernels:
  - gpu: "h200"
    kernel: "m1_float16"
    problem: "0123456789ab"
    toolchain: "nvrtc 13.0"
    device: "NVIDIA H200, driver 580"
    templates: "0123456789ab"
    complete: true
    measured:
      - {us: 5.0, predicted_us: 6.0, strategy: {caching: none, registers: false, codebook_centric: false, \
fusion: none, copies: 1, dataflow: fragment}, tile: {warps: 16}}
"""


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lock.yaml"
    path.write_text(GOOD)
    lock = load_lock(path)
    assert lock is not None
    assert lock.kernels[0].measured[0].us == 5.0
    path.write_bytes(render_lock(lock))
    assert load_lock(path) == lock
    assert load_lock(tmp_path / "none.lock.yaml") is None
    assert render_lock(Lock()).decode().endswith("vqcc_lock: 1\nkernels: []\n")


@pytest.mark.parametrize(
    ("before", "after", "code", "line"),
    [
        ("vqcc_lock: 1", "vqcc_lock: 2", "VQ0213", 1),
        ("us: 5.0", "us: -1.0", "VQ0204", 11),
        ("us: 5.0", "us: soon", "VQ0203", 11),
        ("dataflow: fragment", "dataflow: fragments", "VQ0206", 11),
        ('problem: "0123456789ab"', 'problem: "xyz"', "VQ0214", 5),
        ('templates: "0123456789ab"', "templates: 5", "VQ0214", 8),
        ("complete: true", "complete: maybe", "VQ0203", 9),
        ("    device:", "    machine:", "VQ0201", 7),
        ('  - gpu: "h200"', '  - gpu: "h200"\n    gpu: "h100"', "VQ0109", 4),
        (GOOD, "- 1\n", "VQ0203", 1),
        ("kernels:", "kernels: [", "VQ0105", None),
    ],
)
def test_a_wrong_file_is_told_at_its_place(
    tmp_path: Path, before: str, after: str, code: str, line: int | None
) -> None:
    assert before in GOOD
    path = tmp_path / "tiny.lock.yaml"
    path.write_text(GOOD.replace(before, after, 1))
    with pytest.raises(VqccError) as caught:
        load_lock(path)
    first = next(item for item in caught.value.diagnostics if item.code == code)
    assert first.span is not None
    assert first.span.path == str(path)
    assert line in {None, first.span.line}


def test_compile_refuses_a_wrong_lock_and_writes_nothing(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(spec_text("aqlm-2x8", level="best"))
    lock_path(spec).write_text("vqcc_lock: 9\n")
    done = run("compile", spec, "-o", tmp_path / "out", "--no-cache", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0213"])
    assert not (tmp_path / "out").exists()


def test_a_new_lock_is_noticed_by_an_unchanged_spec(tmp_path: Path) -> None:
    """The compile cache knows a bundle by its lock too."""
    spec, cache = tmp_path / "tiny.yaml", tmp_path / "cache"
    spec.write_text(spec_text("aqlm-2x8", level="best"))

    def state() -> str:
        done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache, "--json")
        assert done.exit_code == 0, done.stderr
        found: str = done.json["libraries"][0]["state"]
        return found

    assert [state(), state()] == ["written", "unchanged"]
    lock_path(spec).write_text("vqcc_lock: [\n")
    done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache, "--json")
    assert done.codes == ["VQ0105"]
    lock_path(spec).write_text(GOOD)
    assert state() == "unchanged", "it holds nothing of this problem, and was read"


def test_a_link_that_leads_nowhere_is_told_though_the_bundle_is_there(tmp_path: Path) -> None:
    """It was meant to be a lock file; a bundle that was made without one is not what was asked for."""
    spec = tmp_path / "tiny.yaml"
    spec.write_text(spec_text("aqlm-2x8", level="best"))
    command = ("compile", spec, "-o", tmp_path / "out", "--cache-dir", tmp_path / "cache", "--json")
    assert run(*command).exit_code == 0
    lock_path(spec).symlink_to("nowhere.yaml")
    done = run(*command)
    assert (done.exit_code, done.codes) == (1, ["VQ0101"])
    assert str(lock_path(spec)) in done.json["diagnostics"][0]["message"]
