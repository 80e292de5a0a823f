from __future__ import annotations

import errno
import fcntl
import os
import threading
import time
from typing import TYPE_CHECKING

import pytest

from vqcc.codegen import directory_swap as module
from vqcc.codegen.directory_swap import DirectoryLock, exchange, sync_directory
from vqcc.diagnostics import VqccError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("new", "target"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return tmp_path / "new", tmp_path / "target"


def not_offered(*_: object) -> bool:
    return False


def test_at_once(pair: tuple[Path, Path]) -> None:
    new, target = pair
    exchange(new, target, spare=new.parent / "spare")
    assert (target / "file").read_text() == "new"
    held = [path for path in (new, new.parent / "spare") if path.exists()]
    assert [(path / "file").read_text() for path in held] == ["target"]


def test_in_two_steps(pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    new, target = pair
    monkeypatch.setattr(module, "_exchange_at_once", not_offered)
    exchange(new, target, spare=new.parent / "spare")
    assert (target / "file").read_text() == "new"
    assert (new.parent / "spare" / "file").read_text() == "target"
    assert not new.exists()


def test_a_second_step_that_fails_undoes_the_first(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    new, target = pair
    monkeypatch.setattr(module, "_exchange_at_once", not_offered)
    with pytest.raises(FileNotFoundError):
        exchange(new.parent / "nothing", target, spare=new.parent / "spare")
    assert (target / "file").read_text() == "target"
    assert not (new.parent / "spare").exists()


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EINVAL])
def test_file_systems_that_do_not_offer_it(
    pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    class Library:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        class renameat2:  # called as a function, like the C library's
            def __new__(cls, *_: object) -> int:  # type: ignore[misc]
                return -1

    monkeypatch.setattr("ctypes.CDLL", Library)
    monkeypatch.setattr("ctypes.get_errno", lambda: number)
    assert not module._exchange_at_once(*pair)
    monkeypatch.setattr("ctypes.get_errno", lambda: errno.EACCES)
    with pytest.raises(PermissionError):
        module._exchange_at_once(*pair)
    monkeypatch.delattr(Library, "renameat2")
    assert not module._exchange_at_once(*pair)


def test_a_missing_side_is_an_error(pair: tuple[Path, Path]) -> None:
    with pytest.raises(FileNotFoundError):
        module._exchange_at_once(pair[0].parent / "nothing", pair[1])


def test_sync_needs_a_directory(tmp_path: Path) -> None:
    sync_directory(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        sync_directory(tmp_path / "file")


def test_one_holder_at_a_time(tmp_path: Path) -> None:
    inside: list[int] = []

    def work() -> None:
        with DirectoryLock(tmp_path) as lock:
            assert lock.is_held
            inside.append(1)
            assert sum(inside) == 1
            time.sleep(0.01)
            inside.append(-1)

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert inside == [1, -1] * 5
    assert list(tmp_path.iterdir()) == []


def test_who_waits_too_long_is_told(tmp_path: Path) -> None:
    with (
        DirectoryLock(tmp_path),
        pytest.raises(VqccError, match="another process has been writing") as caught,
        DirectoryLock(tmp_path, seconds=0.05),
    ):
        pass
    assert caught.value.diagnostics[0].code == "VQ0708"
    with DirectoryLock(tmp_path, seconds=0.05) as lock:
        assert lock.is_held


def test_the_lock_ends_though_a_fork_holds_its_descriptor(tmp_path: Path) -> None:
    with DirectoryLock(tmp_path) as lock:
        copy = os.dup(lock._descriptor)
    try:
        with DirectoryLock(tmp_path, seconds=0.05) as again:
            assert again.is_held
    finally:
        os.close(copy)


def test_file_systems_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with DirectoryLock(tmp_path) as lock:
        assert not lock.is_held
