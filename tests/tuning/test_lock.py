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

    from vqcc.diagnostics import Diagnostic

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


def refused(path: Path) -> tuple[Diagnostic, ...]:
    with pytest.raises(VqccError) as caught:
        load_lock(path)
    for item in caught.value.diagnostics:
        assert item.help, "each says what to do"
        assert "a spec" not in f"{item.message} {item.help}".replace("a spec's", "")
        assert "the spec" not in f"{item.message} {item.help}"
    return caught.value.diagnostics


@pytest.mark.parametrize(
    ("before", "after", "code", "line", "message"),
    [
        ("vqcc_lock: 1", "vqcc_lock: 2", "VQ0213", 1, "vqcc_lock must be the version 1 of lock files, got 2"),
        ("vqcc_lock: 1\n", "", "VQ0202", 1, "the lock file lacks the field vqcc_lock"),
        (GOOD, "{}\n", "VQ0202", 1, "the lock file lacks the fields vqcc_lock and kernels"),
        (GOOD, "vqcc_lock: 1\n", "VQ0202", 1, "the lock file lacks the field kernels"),
        (GOOD, "vqcc_lock: 1\nkernels:\n", "VQ0203", 2, "kernels must be a list, got nothing"),
        ("us: 5.0", "us: -1.0", "VQ0204", 11, "kernels[0].measured[0].us must be at least 0, got -1.0"),
        ("us: 5.0", "us: soon", "VQ0203", 11, "kernels[0].measured[0].us must be a number, got the text 'soon'"),
        (
            "dataflow: fragment",
            "dataflow: fragments",
            "VQ0206",
            11,
            "kernels[0].measured[0].strategy.dataflow cannot be the text 'fragments'",
        ),
        ('problem: "0123456789ab"', "problem: 5", "VQ0214", 5, "problem must be 12 hex digits, got 5"),
        ('templates: "0123456789ab"', "templates: x", "VQ0214", 8, "templates must be 12 hex digits, got the text 'x'"),
        ("complete: true", "complete: maybe", "VQ0203", 9, None),
        ("    device:", "    machine:", "VQ0201", 7, "kernels[0] has no field 'machine'"),
        ("    device:", "    machine:", "VQ0202", 3, "kernels[0] lacks the field device"),
        ("vqcc_lock: 1", "vqcc_lock: 1\nversion: 2", "VQ0201", 2, "the lock file has no field 'version'"),
        ('  - gpu: "h200"', '  - gpu: "h200"\n    gpu: "h100"', "VQ0109", 4, "'gpu' is given twice"),
        (GOOD, "- 1\n", "VQ0203", 1, "the lock file must be a mapping, got a list"),
        (GOOD, "", "VQ0113", 1, "the file is empty"),
        (GOOD, f"{GOOD}---\n{GOOD}", "VQ0112", None, None),
        ("kernels:", "kernels: [", "VQ0105", None, None),
        ("kernels:", "kernels: &all", "VQ0106", 2, None),
        ("    kernel:", "<<<<<<< HEAD\n    kernel:", "VQ0105", 4, "the lock file has the conflict markers of a merge"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_at_its_place(
    tmp_path: Path, before: str, after: str, code: str, line: int | None, message: str | None
) -> None:
    """In words for lock files, which nobody writes by hand."""
    assert before in GOOD
    path = tmp_path / "tiny.lock.yaml"
    path.write_text(GOOD.replace(before, after, 1))
    found = [item for item in refused(path) if item.code == code]
    first = found[0]
    assert first.span is not None
    assert first.span.path == str(path)
    assert line in {None, first.span.line}
    assert message in {None, first.message}


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lock.yaml"
    path.symlink_to("nowhere.yaml")
    (item,) = refused(path)
    assert (item.code, item.span) == ("VQ0101", None)
    assert item.help == "it is a link that leads nowhere: mend or remove it"
    path.unlink()
    path.mkdir()
    assert refused(path)[0].code == "VQ0101"


def test_all_candidates_of_a_few_gpus_fit(tmp_path: Path) -> None:
    """What `vqcc tune` writes it can read: a file of so many measurements has more nodes than a spec may have."""
    head, row = GOOD.split("    measured:\n")
    path = tmp_path / "tiny.lock.yaml"
    path.write_text(f"{head}    measured:\n{row * 400}")
    lock = load_lock(path)
    assert lock is not None
    assert len(lock.kernels[0].measured) == 400


def test_kernels_of_many_sessions_of_a_model_fit(tmp_path: Path) -> None:
    path = tmp_path / "tiny.lock.yaml"
    path.write_text(GOOD)
    lock = load_lock(path)
    assert lock is not None
    (kernel,) = lock.kernels
    many = Lock(kernels=tuple(kernel.model_copy(update={"problem": f"{i:012x}"}) for i in range(1500)))
    path.write_bytes(render_lock(many))
    assert load_lock(path) == many


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
