"""Runs the launches of a program on the CPU emulator, for stub_cuda.c: it computes what it would on a GPU."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.emulator import Buffer, Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vqcc.emulator import Emulated

__all__ = ["EmulatedGpu", "EmulatedKernel"]

#: Of parameters: bytes and NumPy types. A parameter that is a structure has a sequence of these.
_TYPES: Mapping[str, Any] = {"int32_t": np.int32, "int64_t": np.int64, "float": np.float32}


@dataclass(frozen=True)
class EmulatedKernel:
    """A kernel's module, and the C types of its parameters: a tuple of them for a structure."""

    module: Emulated
    types: Sequence[str | tuple[str, ...]]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each parameter."""
        return [
            sum(_bytes(word) for word in each) if isinstance(each, tuple) else _bytes(each)
            for each in self.types
        ]


@dataclass
class EmulatedGpu:
    """Serves one process that has STUB_EMULATOR=`directory`. `errors` are what launches failed with."""

    directory: Path
    kernels: Mapping[str, EmulatedKernel]
    errors: list[BaseException] = field(default_factory=list)

    def __enter__(self) -> EmulatedGpu:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in ("request", "reply"):
            os.mkfifo(self.directory / name)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=10)

    def _serve(self) -> None:
        """Until the process closes its end of the pipe, by its own end."""
        with (self.directory / "request").open() as requests, (self.directory / "reply").open("w") as replies:
            for line in requests:
                try:
                    self._launch(line.split())
                    answer = "ok"
                except BaseException as error:
                    self.errors.append(error)
                    answer = "failed"
                replies.write(f"{answer}\n")
                replies.flush()

    def _launch(self, words: list[str]) -> None:
        kernel = self.kernels[words[0]]
        grid, block, shared = tuple(map(int, words[1:4])), tuple(map(int, words[4:7])), int(words[7])
        held: dict[str, tuple[Buffer, Any]] = {}
        left = iter(words[8:])
        arguments = [
            self._structure(each, left, held)
            if isinstance(each, tuple)
            else self._argument(each, next(left), held)
            for each in kernel.types
        ]
        before = {name: buffer.array.copy() for name, (buffer, _) in held.items()}
        report = kernel.module.launch(words[0], grid, block, shared, arguments)
        assert report is not None
        for name, (buffer, file) in held.items():
            changed = buffer.array != before[name]
            file[changed] = buffer.array[changed]

    def _structure(self, types: tuple[str, ...], words: Any, held: dict[str, tuple[Buffer, Any]]) -> Struct:
        """Its words have 8 bytes: two numbers of 4 bytes that follow one another share one."""
        fields, half = [], None
        for each in types:
            if _bytes(each) == 8:
                fields.append(self._argument(each, next(words), held))
            elif half is None:
                value = int(next(words))
                fields.append(_number(each, value & 0xFFFFFFFF))
                half = value >> 32
            else:
                fields.append(_number(each, half))
                half = None
        return Struct(tuple(fields))

    def _argument(self, c_type: str, word: str, held: dict[str, tuple[Buffer, Any]]) -> Any:
        if not word.startswith("memory-"):
            return None if c_type not in _TYPES else _number(c_type, int(word))
        name, _, offset = word.partition("+")
        if name not in held:
            file = np.memmap(self.directory / name, np.uint8, "r+")
            held[name] = (Buffer(name, np.array(file), "inout"), file)
        return held[name][0].at(int(offset))


def _bytes(c_type: str) -> int:
    return _TYPES[c_type]().itemsize if c_type in _TYPES else 8


def _number(c_type: str, bits: int) -> Any:
    """The number whose bits these are."""
    dtype = np.dtype(_TYPES[c_type])
    return np.frombuffer(bits.to_bytes(8, "little")[: dtype.itemsize], dtype)[0]
