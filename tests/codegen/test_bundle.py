from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import vqcc
from vqcc.codegen import bundle as module
from vqcc.codegen import directory_swap as swap_module
from vqcc.codegen.bundle import read_bundle, write_bundle
from vqcc.diagnostics import VqccError

OLD = {"x.h": b"old header", "x.cu": b"same source", "x.cubin": b"\x7fELF old"}
NEW = {"x.h": b"new header", "x.cu": b"same source", "x.plan.json": b"{}"}
FIELDS = {"name": "x"}


def write(directory: Path, files: dict[str, bytes]) -> bool:
    return write_bundle(directory, files, fields=FIELDS)


def state(directory: Path) -> str:
    """Name the bundle that lies there; fails unless it is one of the two, whole."""
    held = dict(read_bundle(directory).files)
    assert held in (OLD, NEW)
    return "old" if held == OLD else "new"


def others(directory: Path) -> list[str]:
    """List what lies beside the bundle."""
    return sorted(path.name for path in directory.parent.iterdir() if path != directory)


def refusal(directory: Path, files: dict[str, bytes] = NEW) -> VqccError:
    with pytest.raises(VqccError) as caught:
        write(directory, files)
    return caught.value


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "out" / "x"


@pytest.fixture
def two_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand for a file system that cannot exchange two directories at once."""
    monkeypatch.setattr(swap_module, "_exchange_at_once", lambda *_: False)


def test_what_was_written_is_read(place: Path) -> None:
    assert write(place, OLD)
    found = read_bundle(place)
    assert found.files == OLD
    assert found.manifest["name"] == "x"
    assert found.read_file("x.h") == b"old header"
    assert others(place) == []
    with pytest.raises(VqccError, match=r"has no file y\.h") as caught:
        found.read_file("y.h")
    assert "x.cu, x.cubin, x.h" in str(caught.value.diagnostics[0].help)


def test_a_new_one_replaces_the_whole_old_one(place: Path) -> None:
    write(place, OLD)
    assert write(place, NEW)
    assert state(place) == "new"
    assert not (place / "x.cubin").exists()
    assert others(place) == []


def test_in_two_steps(place: Path, two_steps: None) -> None:
    for files in (OLD, NEW, OLD):
        write(place, files)
        assert dict(read_bundle(place).files) == files
        assert others(place) == []


def test_modes_follow_the_umask(place: Path) -> None:
    before = os.umask(0o027)
    try:
        write(place, OLD)
    finally:
        os.umask(before)
    assert place.stat().st_mode & 0o777 == 0o750
    assert (place / "x.h").stat().st_mode & 0o777 == 0o640


def stamps(place: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (place, *place.iterdir())}


def test_an_unchanged_bundle_is_left_alone(place: Path) -> None:
    write(place, OLD)
    for path in (*place.iterdir(), place):
        os.utime(path, ns=(10**18, 10**18))
    before, inode = stamps(place), place.stat().st_ino
    assert not write(place, OLD)
    assert stamps(place) == before
    assert place.stat().st_ino == inode


def test_unchanged_files_of_a_changed_bundle_keep_their_time(place: Path) -> None:
    write(place, OLD)
    for path in place.iterdir():
        os.utime(path, ns=(10**18, 10**18))
    write(place, NEW)
    found = stamps(place)
    assert found["x.cu"] == 10**18
    assert found["x.h"] != 10**18
    assert found["manifest.json"] != 10**18


def test_other_fields_are_a_change(place: Path) -> None:
    write(place, OLD)
    assert write_bundle(place, OLD, fields={"name": "y"})
    assert read_bundle(place).manifest["name"] == "y"


def test_two_builds_have_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a" / "x", OLD)
    write(tmp_path / "b" / "y", dict(reversed(OLD.items())))
    for path in (tmp_path / "a" / "x").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / "y" / path.name).read_bytes()


def test_an_edited_or_lost_file_is_restored(place: Path) -> None:
    write(place, OLD)
    (place / "x.h").write_bytes(b"edited")
    assert write(place, OLD)
    (place / "x.cu").unlink()
    assert write(place, OLD)
    assert state(place) == "old"


def test_an_empty_directory_is_taken(place: Path) -> None:
    place.mkdir(parents=True)
    write(place, OLD)
    assert state(place) == "old"


def test_through_a_symbolic_link(place: Path, tmp_path: Path) -> None:
    place.parent.mkdir()
    place.symlink_to(tmp_path / "real")
    for files in (OLD, NEW):
        write(place, files)
        assert place.is_symlink()
        assert dict(read_bundle(tmp_path / "real").files) == files


def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("x"), OLD)
    assert state(Path("x")) == "old"


# Files that vqcc did not write.


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "x.gpu.cu"])
def test_foreign_files_are_named_and_kept(place: Path, name: str) -> None:
    write(place, OLD)
    (place / name).write_text("mine")
    error = refusal(place)
    assert error.diagnostics[0].code == "VQ0703"
    assert error.diagnostics[0].message.endswith(f"did not write: {name}")
    assert "-o" in str(error.diagnostics[0].help)
    assert (place / name).read_text() == "mine"
    (place / name).unlink()
    assert state(place) == "old"
    assert others(place) == []


def test_foreign_directories_links_and_pipes(place: Path) -> None:
    write(place, OLD)
    (place / "directory").mkdir()
    (place / "x.h").unlink()
    (place / "x.h").symlink_to("x.cu")
    (place / "x.cu").unlink()
    os.mkfifo(place / "x.cu")
    assert refusal(place).diagnostics[0].message.endswith("did not write: directory, x.cu, x.h")


def test_a_directory_that_is_no_bundle(place: Path) -> None:
    place.mkdir(parents=True)
    for number in range(15):
        (place / f"f{number:02}").write_text("")
    assert refusal(place).diagnostics[0].message.endswith("f08, f09 and 5 more")
    (place / "manifest.json").write_text('{"files": {"f00": 1}}')
    assert "f00" in refusal(place).diagnostics[0].message


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"])
def test_a_bundle_whose_manifest_is_lost_is_kept(place: Path, damage: bytes) -> None:
    write(place, OLD)
    (place / "manifest.json").write_bytes(damage)
    assert refusal(place).diagnostics[0].code == "VQ0703"


def test_a_bundle_of_another_format_is_ours(place: Path) -> None:
    write(place, OLD)
    text = (place / "manifest.json").read_text()
    (place / "manifest.json").write_text(text.replace('"format": ', '"format": 9'))
    assert write(place, NEW)


def test_a_file_where_the_directory_should_be(place: Path) -> None:
    place.parent.mkdir()
    place.write_text("mine")
    assert refusal(place).diagnostics[0].code == "VQ0701"
    assert place.read_text() == "mine"
    for path in (place / "below", place / "far" / "below"):
        (item,) = refusal(path).diagnostics
        assert item.code == "VQ0701"
        assert item.help == (
            "a part of that path is a file: choose another output directory with -o; nothing is half written"
        )


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "the disk is full: make room, or choose another output directory with -o"),
        (errno.EROFS, "the file system is read-only: choose another output directory with -o"),
        (errno.EACCES, "you may not write there: choose another"),
        (errno.EIO, "choose another output directory with -o; nothing"),
    ],
)
def test_what_the_system_refuses_has_help_and_leaves_no_directory(
    place: Path, monkeypatch: pytest.MonkeyPatch, number: int, words: str
) -> None:
    """Directories that were there stay."""

    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), "somewhere")

    monkeypatch.setattr(module, "_write", fail)
    (item,) = refusal(place).diagnostics
    assert item.code == "VQ0701"
    assert item.help is not None
    assert item.help.startswith(words)
    assert not place.parent.exists()
    place.parent.mkdir()
    refusal(place / "deep" / "below")
    assert list(place.parent.iterdir()) == []


def test_names_are_checked_before_anything_is_touched(place: Path) -> None:
    assert refusal(place, {"../x": b""}).diagnostics[0].code == "VQ0707"
    assert not place.parent.exists()


def test_a_writer_that_stays_in_the_way(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, OLD)
    monkeypatch.setattr(swap_module.DirectoryLock.__init__, "__defaults__", (0.05,))
    with swap_module.DirectoryLock(place.parent):
        assert refusal(place).diagnostics[0].code == "VQ0708"
    assert state(place) == "old"


# Damaged bundles.


def damage(directory: Path) -> list[tuple[str, str]]:
    with pytest.raises(VqccError) as caught:
        read_bundle(directory)
    return [(item.code, item.message.removeprefix(f"{directory}: ")) for item in caught.value.diagnostics]


def test_everything_wrong_is_reported(place: Path) -> None:
    write(place, OLD)
    (place / "x.h").write_bytes(b"old headeR")
    (place / "x.cu").unlink()
    (place / "extra").write_text("")
    assert damage(place) == [
        ("VQ0705", "x.cu is missing"),
        ("VQ0705", "x.h was changed"),
        ("VQ0705", "extra is not in the manifest"),
    ]


def test_no_bundle(place: Path) -> None:
    assert damage(place)[0][0] == "VQ0704"
    place.mkdir(parents=True)
    assert damage(place)[0] == ("VQ0704", f"{place} holds no manifest.json")
    with pytest.raises(VqccError) as missing:
        read_bundle(place / "none")
    assert missing.value.diagnostics[0].help == "give OUT/<name>, a directory that vqcc compile wrote"
    (place / "manifest.json").write_text("{}")
    assert damage(place)[0][0] == "VQ0704"
    assert damage(place / "manifest.json")[0][0] == "VQ0704"


def test_nothing_but_plain_files_is_read(place: Path, tmp_path: Path) -> None:
    write(place, OLD)
    (tmp_path / "secret").write_bytes(OLD["x.h"])
    (place / "x.h").unlink()
    (place / "x.h").symlink_to(tmp_path / "secret")
    assert damage(place)[0][0] == "VQ0701"
    (place / "x.h").unlink()
    os.mkfifo(place / "x.h")
    assert damage(place)[0][0] == "VQ0701"


def test_a_reader_sees_the_old_bundle_between_two_steps(place: Path) -> None:
    write(place, OLD)
    place.rename(place.parent / ".x.vqcc-old")
    assert state(place) == "old"
    write(place, NEW)
    assert state(place) == "new"
    assert others(place) == []


def test_what_killed_writers_left_is_swept(place: Path) -> None:
    write(place, OLD)
    for name in (".x.vqcc-0123", ".x.vqcc-old"):
        (place.parent / name).mkdir()
        (place.parent / name / "x.h").write_text("half")
    (place.parent / ".y.vqcc-0123").mkdir()
    assert not write(place, OLD)
    assert others(place) == [".y.vqcc-0123"]


def test_without_locks_only_what_is_old_is_swept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    write(place, OLD)
    for name, age in ((".x.vqcc-young", 10.0), (".x.vqcc-aged", 10_000.0)):
        (place.parent / name).mkdir()
        os.utime(place.parent / name, (time.time() - age, time.time() - age))
    assert write(place, NEW)
    assert others(place) == [".x.vqcc-young"]


# A disk that fails, at each step in turn.


class Fault:
    """Makes the n-th of the watched calls fail, half done where that is possible."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left = number
        for owner, name in (
            (os, "mkdir"),
            (os, "fsync"),
            (os, "rename"),
            (os, "utime"),
            (module, "_write"),
            (module, "sync_directory"),
            (swap_module, "_exchange_at_once"),
        ):
            monkeypatch.setattr(owner, name, self.watch(getattr(owner, name), name))

    def watch(self, call: Any, name: str) -> Any:
        def watched(*arguments: Any, **named: Any) -> Any:
            if name == "mkdir" and Path(arguments[0]).is_dir():
                return call(*arguments, **named)  # pathlib asks for what exists already and passes over it
            self.left -= 1
            if self.left != 0:
                return call(*arguments, **named)
            if name == "_write":
                arguments[0].write_bytes(arguments[1][: len(arguments[1]) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(arguments[0]))

        return watched


def fail_at_each_step(place: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the state that each failing step leaves."""
    states: list[str] = []
    for number in range(1, 100):
        shutil.rmtree(place.parent, ignore_errors=True)
        write(place, OLD)
        with monkeypatch.context() as patch:
            fault = Fault(patch, number)
            try:
                write(place, NEW)
            except VqccError as error:
                failed: VqccError | None = error
            else:
                failed = None
        if fault.left > 0:
            return states
        states.append(state(place))
        assert failed is not None
        assert failed.diagnostics[0].code == "VQ0701"
        assert os.strerror(errno.ENOSPC) in failed.diagnostics[0].message
        assert others(place) == []
        write(place, NEW)
        assert state(place) == "new"
    raise AssertionError("the steps do not end")


def test_a_fault_at_any_step_leaves_the_old_or_the_new(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = fail_at_each_step(place, monkeypatch)
    assert len(states) > 10
    assert states == sorted(states, reverse=True)  # old until the exchange, new from then on
    assert set(states) == {"old", "new"}


def test_the_same_in_two_steps(place: Path, monkeypatch: pytest.MonkeyPatch, two_steps: None) -> None:
    states = fail_at_each_step(place, monkeypatch)
    assert set(states) == {"old", "new"}


def test_a_fault_at_any_step_of_the_first_write_leaves_nothing_or_all(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1, 100):
        shutil.rmtree(place.parent, ignore_errors=True)
        with monkeypatch.context() as patch:
            fault = Fault(patch, number)
            try:
                write(place, NEW)
            except VqccError as error:
                assert error.diagnostics[0].code == "VQ0701"  # noqa: PT017
        if fault.left > 0:
            return
        if place.exists():
            assert state(place) == "new"
        if place.parent.exists():
            assert others(place) == []


# Writers that are killed, and writers at once.

WRITER = """
import sys
from pathlib import Path
from vqcc.codegen import directory_swap
from vqcc.codegen.bundle import write_bundle
if sys.argv[2] == "two steps":
    directory_swap._exchange_at_once = lambda *_: False
print("ready", flush=True)
turn = 0
while True:
    files = {f"f{i}.{'ab'[turn]}": bytes([turn, i]) * 3000 for i in range(6 + turn)}
    write_bundle(Path(sys.argv[1]), {"same": b"same", "turn": bytes([turn]), **files}, fields={"turn": turn})
    turn = 1 - turn
"""


def start_writer(directory: Path, steps: str) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), steps],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": str(Path(vqcc.__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end_writer(process: subprocess.Popen[bytes]) -> None:
    assert process.poll() is None, "a writer ended by itself"
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def assert_whole(directory: Path) -> int:
    """Check that one turn of the writer lies there, nothing else, and return which."""
    found = read_bundle(directory)  # every file matches the manifest, none is missing, none too many
    turn = found.read_file("turn")[0]
    files = {f"f{i}.{'ab'[turn]}": bytes([turn, i]) * 3000 for i in range(6 + turn)}
    assert found.files == {"same": b"same", "turn": bytes([turn]), **files}
    assert found.manifest["turn"] == turn
    return turn


def kill_writers(directory: Path, kills: int, steps: str) -> None:
    generator = random.Random(kills)
    start = time.monotonic()
    for turn in (3, 2):
        write_bundle(directory, {f"f{i}": bytes([turn]) for i in range(8)}, fields={"turn": turn})
    several_writes = 5 * (time.monotonic() - start)
    staging_seen, turns_seen = 0, set()
    for _ in range(kills):
        process = start_writer(directory, steps)
        # The writer's first bundle must be there before it is killed; after that, any moment is as good.
        while read_bundle(directory).manifest["turn"] == 2:
            time.sleep(0.001)
        time.sleep(generator.uniform(0.0, several_writes))
        end_writer(process)
        turns_seen.add(assert_whole(directory))
        staging_seen += bool(others(directory))
        if generator.random() < 0.5:  # sweeping is the next writer's task, be it this one or the next process
            write_bundle(directory, {"turn": b"\2"}, fields={"turn": 2})
            assert others(directory) == []
    write_bundle(directory, {"turn": b"\2"}, fields={"turn": 2})
    assert others(directory) == []
    assert turns_seen == {0, 1}
    assert staging_seen > kills // 5, "the kills came at no interesting moment"


def test_writers_killed_at_random(place: Path) -> None:
    kill_writers(place, 15, "at once")


def test_writers_killed_at_random_in_two_steps(place: Path) -> None:
    kill_writers(place, 15, "two steps")


@pytest.mark.full
@pytest.mark.parametrize("steps", ["at once", "two steps"])
def test_writers_killed_at_random_100_times(place: Path, steps: str) -> None:
    kill_writers(place, 100, steps)


@pytest.mark.parametrize("steps", ["at once", "two steps"])
def test_writers_at_once_and_a_reader(place: Path, steps: str) -> None:
    writers = [
        start_writer(place, steps),
        start_writer(place, steps),
        start_writer(place.parent / "y", steps),
    ]
    try:
        while not (place.exists() and (place.parent / "y").exists()):
            time.sleep(0.001)
        turns: list[int] = []
        while len(turns) < 100 or len(set(turns)) < 2:
            turns += [assert_whole(place), assert_whole(place.parent / "y")]
    finally:
        for process in writers:
            end_writer(process)


def test_threads_writing_beside_each_other(tmp_path: Path) -> None:
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for files in (OLD, NEW) * 3:
                write(tmp_path / "out" / name, files)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "aabbc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b", "c"]
    assert {state(tmp_path / "out" / name) for name in "abc"} == {"new"}
