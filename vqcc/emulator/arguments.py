"""What a kernel is launched with: buffers, scalars and structures of these."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.emulator.native import KernelEntry

__all__ = ["Argument", "Buffer", "Pointer", "Struct", "check_arguments", "pack"]

Role = Literal["input", "output", "inout"]
_POINTER_BYTES = 8
_KINDS = {"p": "a pointer", "r": "a pointer to const", "i": "a signed integer", "u": "an unsigned integer"}
_KINDS |= {"f": "a floating-point number", "s": "a structure"}
_NUMBER_KINDS = {"i": "iu", "u": "iub", "f": "f", "s": "iufVb"}


@dataclass(frozen=True, eq=False)
class Buffer:
    """Global memory of a launch.

    An `input` is copied in and must not be written; an `output` starts unwritten and is copied out; an `inout` is
    both. `alignment` (bytes, a power of two) is what the kernel may rely on, as of cudaMalloc by default; the
    buffer is never aligned better. `array` is C-contiguous, and writable unless it is an input.
    """

    name: str
    array: NDArray[Any]
    role: Role
    alignment: int = 256

    def __post_init__(self) -> None:
        if not self.array.flags.c_contiguous or (self.role != "input" and not self.array.flags.writeable):
            raise ValueError(
                f"buffer {self.name}: the array must be C-contiguous, and writable for an {self.role}"
            )
        if self.alignment < 1 or self.alignment & (self.alignment - 1):
            raise ValueError(f"buffer {self.name}: alignment {self.alignment} is not a power of two")

    def at(self, byte_offset: int) -> Pointer:
        """A pointer into the buffer."""
        return Pointer(self, byte_offset)


@dataclass(frozen=True)
class Pointer:
    """An address `byte_offset` bytes into a buffer."""

    buffer: Buffer
    byte_offset: int


@dataclass(frozen=True)
class Struct:
    """A structure passed by value; its fields follow one another with C's padding."""

    fields: tuple[Buffer | Pointer | np.generic | None, ...]


Argument = Buffer | Pointer | Struct | np.generic | int | float | None


def check_arguments(kernel: str, entry: KernelEntry, arguments: Sequence[Argument]) -> None:
    """Compare arguments with the kernel's parameters in number, size and kind. Raises VQ0824 for all that differ."""
    problems = []
    if len(arguments) != entry.parameter_count:
        problems.append(f"{kernel} takes {entry.parameter_count} arguments, {len(arguments)} are given")
    for i, argument in enumerate(arguments[: entry.parameter_count]):
        parameter = entry.parameters[i]
        kind, size = parameter.kind.decode(), parameter.bytes
        if not _fits(argument, kind, size):
            problems.append(
                f"{kernel}: parameter {i} is {_KINDS[kind]} of {size} bytes, the argument is {_describe(argument)}"
            )
    if problems:
        raise VqccError(*(Diagnostic("VQ0824", problem) for problem in problems))


def _fits(argument: Argument, kind: str, size: int) -> bool:
    if isinstance(argument, Struct):
        return kind == "s" and _layout(argument)[1] == size
    if argument is None or isinstance(argument, Buffer | Pointer):
        return kind in "pr"
    # A plain Python number takes the parameter's width; that is settled in `pack` only for the common ones.
    number = _number(argument)
    return kind not in "pr" and number.dtype.kind in _NUMBER_KINDS[kind] and number.dtype.itemsize == size


def _number(value: np.generic | float) -> np.generic:
    """A Python int stands for int32_t and a Python float for float, the usual types of parameters."""
    if isinstance(value, np.generic):
        return value
    return np.int32(value) if isinstance(value, int) else np.float32(value)


def _describe(argument: Argument) -> str:
    if isinstance(argument, Buffer | Pointer):
        return "a buffer"
    if isinstance(argument, Struct):
        return f"a structure of {_layout(argument)[1]} bytes"
    return "null" if argument is None else f"{_number(argument).dtype.name} {argument}"


def _layout(struct: Struct) -> tuple[list[int], int]:
    """Offsets of the fields, and the size, by C's rules."""
    offsets, end, largest = [], 0, 1
    for field in struct.fields:
        size = field.dtype.itemsize if isinstance(field, np.generic) else _POINTER_BYTES
        offset = -(-end // size) * size
        offsets.append(offset)
        end, largest = offset + size, max(largest, size)
    return offsets, -(-end // largest) * largest


def _bytes(argument: Argument, addresses: Mapping[int, int]) -> bytes:
    if isinstance(argument, Struct):
        offsets, size = _layout(argument)
        packed = bytearray(size)
        for offset, field in zip(offsets, argument.fields, strict=True):
            part = _bytes(field, addresses)
            packed[offset : offset + len(part)] = part
        return bytes(packed)
    if argument is None:
        return bytes(_POINTER_BYTES)
    if isinstance(argument, Buffer):
        return addresses[id(argument)].to_bytes(_POINTER_BYTES, "little")
    if isinstance(argument, Pointer):
        return (addresses[id(argument.buffer)] + argument.byte_offset).to_bytes(_POINTER_BYTES, "little")
    return _number(argument).tobytes()


def pack(argument: Argument, addresses: Mapping[int, int]) -> ctypes.Array[ctypes.c_char]:
    """The bytes of one argument, aligned for every type; `addresses` are the placed buffers' by id."""
    data = _bytes(argument, addresses)
    return ctypes.create_string_buffer(data, len(data))
