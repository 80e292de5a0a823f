"""What a kernel is launched with: buffers, scalars and structures of these."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.emulator.native import KernelEntry

__all__ = ["Argument", "Bound", "Buffer", "Pointer", "Struct", "bind", "pack"]

Role = Literal["input", "output", "inout"]
_POINTER_BYTES = 8
_UNTYPED = object()
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


Bound = Buffer | Pointer | Struct | np.generic | None
Argument = Bound | int | float


def bind(kernel: str, entry: KernelEntry, arguments: Sequence[Argument]) -> list[Bound]:
    """Arguments as the kernel's parameters want them: plain Python numbers take the parameter's type.

    Raises VQ0824 for every argument that differs from its parameter in size or kind, or for a wrong number of them.
    """
    problems = []
    if len(arguments) != entry.parameter_count:
        problems.append(f"{kernel} takes {counted(entry.parameter_count, 'argument')}, not {len(arguments)}")
    bound: list[Bound] = []
    for i, argument in enumerate(arguments[: entry.parameter_count]):
        parameter = entry.parameters[i]
        kind, size = parameter.kind.decode(), parameter.bytes
        value = _typed(argument, kind, size)
        if value is _UNTYPED or not _fits(value, kind, size):
            problems.append(
                f"{kernel}: parameter {i} is {_KINDS[kind]} of {counted(size, 'byte')}, "
                f"the argument is {_describe(argument)}"
            )
        else:
            bound.append(value)
    if problems:
        raise VqccError(*(Diagnostic("VQ0824", problem) for problem in problems))
    return bound


def _typed(argument: Argument, kind: str, size: int) -> Any:
    """A plain number as the parameter's type, _UNTYPED if that cannot hold it; other arguments as they are."""
    # numpy.float64 is a Python float too, but has a size of its own.
    if isinstance(argument, np.generic) or not isinstance(argument, int | float):
        return argument
    if kind not in ("iuf" if isinstance(argument, int) else "f"):
        return _UNTYPED
    try:
        return np.dtype(f"{kind}{size}").type(argument)
    except OverflowError:
        return _UNTYPED


def _fits(argument: Bound, kind: str, size: int) -> bool:
    if isinstance(argument, Struct):
        return kind == "s" and _layout(argument)[1] == size
    if argument is None or isinstance(argument, Buffer | Pointer):
        return kind in "pr"
    return kind not in "pr" and argument.dtype.kind in _NUMBER_KINDS[kind] and argument.dtype.itemsize == size


def _describe(argument: Argument) -> str:
    if isinstance(argument, Buffer | Pointer):
        return "a buffer"
    if isinstance(argument, Struct):
        return f"a structure of {counted(_layout(argument)[1], 'byte')}"
    if isinstance(argument, np.generic):
        return f"{argument.dtype.name} {argument}"
    return "null" if argument is None else str(argument)


def _layout(struct: Struct) -> tuple[list[int], int]:
    """Offsets of the fields, and the size, by C's rules."""
    offsets, end, largest = [], 0, 1
    for field in struct.fields:
        size = field.dtype.itemsize if isinstance(field, np.generic) else _POINTER_BYTES
        offset = -(-end // size) * size
        offsets.append(offset)
        end, largest = offset + size, max(largest, size)
    return offsets, -(-end // largest) * largest


def _bytes(argument: Bound, addresses: Mapping[int, int]) -> bytes:
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
    return argument.tobytes()


def pack(argument: Bound, addresses: Mapping[int, int]) -> ctypes.Array[ctypes.c_char]:
    """The bytes of one argument, aligned for every type; `addresses` are the placed buffers' by id."""
    data = _bytes(argument, addresses)
    return ctypes.create_string_buffer(data, len(data))
