"""Outputs: what is written over, through links and into pipes, and what is refused before it is lost."""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path

import pytest

from vqcc.diagnostics import VqccError
from vqcc.tensors.output import check_outputs, write_atomically


def refused(outputs: list[Path], inputs: list[Path]) -> list[str]:
    with pytest.raises(VqccError) as caught:
        check_outputs(outputs, inputs)
    assert all(item.help and "nothing was written" in item.help for item in caught.value.diagnostics)
    return [f"{item.code} {item.message}" for item in caught.value.diagnostics]


def test_a_link_stays_and_the_file_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    target, link = tmp_path / "far" / "target", tmp_path / "link"
    target.write_bytes(b"old")
    link.symlink_to(Path("far") / "target")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["far", "link", "target"]


def test_a_link_to_nothing_yet_makes_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("target")
    write_atomically(link, b"new")
    assert link.is_symlink()
    assert (tmp_path / "target").read_bytes() == b"new"


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(VqccError) as caught:
        write_atomically(tmp_path / "a" / "file", b"new")
    assert caught.value.diagnostics[0].code == "VQ0527"


@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_pipe_is_given_the_bytes_and_stays_a_pipe(tmp_path: Path, *, through_a_link: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    name = pipe
    if through_a_link:
        name = tmp_path / "link"
        name.symlink_to(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(name, iter([b"one ", b"two"]))
    reader.join(timeout=60)
    assert read == [b"one two"]
    assert pipe.is_fifo()


def test_a_pipe_is_given_nothing_if_a_piece_cannot_be_made(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def pieces() -> object:
        yield b"one"
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        write_atomically(pipe, pieces())  # type: ignore[arg-type]
    assert pipe.is_fifo()


def test_a_pipe_without_a_reader_any_more_is_an_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        with pytest.raises(VqccError) as caught:
            write_atomically(Path(f"/proc/self/fd/{writing}"), b"data")
    finally:
        os.close(writing)
    assert caught.value.diagnostics[0].code == "VQ0527"
    assert "Broken pipe" in caught.value.diagnostics[0].message
    assert not list(tmp_path.iterdir())


def test_a_character_device_is_written_in_place() -> None:
    controller, terminal = os.openpty()
    try:
        name = Path(os.ttyname(terminal))
        write_atomically(name, b"bytes")
        assert name.is_char_device()
        assert os.read(controller, 100) == b"bytes"
    finally:
        os.close(controller)
        os.close(terminal)


def test_what_can_be_no_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has little room
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        assert refused([Path("socket"), tmp_path], []) == [
            "VQ0712 socket is a socket, which an output cannot be",
            f"VQ0712 {tmp_path} is a directory, which an output cannot be",
        ]
        with pytest.raises(VqccError) as caught:
            write_atomically(Path("socket"), b"data")
        assert caught.value.diagnostics[0].code == "VQ0712"
        assert Path("socket").is_socket()


@pytest.mark.parametrize("how", ["itself", "a symbolic link", "a hard link", "a path with dots"])
def test_an_output_that_is_an_input_is_refused_by_any_name(tmp_path: Path, how: str) -> None:
    given, other = tmp_path / "given", tmp_path / "other"
    given.write_bytes(b"precious")
    if how == "a symbolic link":
        other.symlink_to(given)
    elif how == "a hard link":
        other.hardlink_to(given)
    elif how == "a path with dots":
        other = tmp_path / "nothing" / ".." / "given"
        (tmp_path / "nothing").mkdir()
    else:
        other = given
    assert refused([other], [given]) == [f"VQ0711 {other} is the input {given}"]
    assert given.read_bytes() == b"precious"


def test_two_outputs_that_are_not_there_yet_must_differ(tmp_path: Path) -> None:
    output, link = tmp_path / "output", tmp_path / "link"
    link.symlink_to(output)
    assert refused([output, link], []) == [f"VQ0711 {link} is another output of this command"]


def test_an_output_within_a_library_that_is_read_is_refused(tmp_path: Path) -> None:
    library = tmp_path / "library"
    library.mkdir()
    inside = library / "new.json"
    assert refused([inside], [library]) == [f"VQ0711 {inside} would lie in the library {library}"]
    check_outputs([tmp_path / "library.json"], [library])


def test_outputs_beside_the_inputs_are_fine(tmp_path: Path) -> None:
    (tmp_path / "given").write_bytes(b"data")
    (tmp_path / "old").write_bytes(b"data")
    os.mkfifo(tmp_path / "pipe")
    streams = [tmp_path / "pipe", tmp_path / "pipe"]
    check_outputs([tmp_path / "old", tmp_path / "new", *streams], [tmp_path / "given", tmp_path / "missing"])
