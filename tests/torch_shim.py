"""The stand-in for libcuda of driver.c, with a library's header beside it, as Python sees both."""

from __future__ import annotations

import ctypes
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc.torch.driver import Driver

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqcc.compiled import CompiledLibrary
    from vqcc.ops.base import Argument

SOURCE = Path(__file__).parent / "torch" / "driver.c"
TYPES = {"float16": 0, "bfloat16": 1}


class Record(ctypes.Structure):
    _fields_ = (
        ("kernel", ctypes.c_char * 256),
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("overlapping", ctypes.c_int),
        ("stream", ctypes.c_uint64),
        ("parameters", ctypes.c_uint64 * 32),
    )

    def fields(self) -> tuple[Any, ...]:
        values = (getattr(self, name) for name, *_ in self._fields_)
        return tuple(tuple(value) if isinstance(value, ctypes.Array) else value for value in values)


class Attribute(ctypes.Structure):
    _fields_ = (("kernel", ctypes.c_char * 256), ("number", ctypes.c_int), ("value", ctypes.c_int))


class Shim:
    """One library's."""

    def __init__(self, library: CompiledLibrary[Any], directory: Path, *, cache: bool = False) -> None:
        identifier = library.name.replace("-", "_")
        header = library.bundle.read_file(f"{library.name}.h").decode()
        (directory / f"{library.name}.h").write_text(header)
        (directory / "library.h").write_text(
            f'#include "{library.name}.h"\n#define LIB(word) {identifier}_##word\n'
            + "#define CACHE\n" * cache
        )
        path = directory / "libcuda.so"
        command = [
            "gcc",
            "-std=c11",
            "-O1",
            "-w",
            "-shared",
            "-fPIC",
            f"-I{directory}",
            str(SOURCE),
            "-o",
            str(path),
        ]
        subprocess.run(command, check=True)
        self.library = ctypes.CDLL(str(path))
        self.driver = Driver(self.library)
        found = re.findall(rf"^  {identifier.upper()}_(OK|ERROR_\w+) = (\d+)", header, re.MULTILINE)
        self.statuses = {int(number): name for name, number in found}

    def set_parameters(self, arguments: Iterable[Argument]) -> None:
        """What the next launches' kernels take."""
        sizes = "".join("4" if each.c_type in {"int32_t", "float"} else "8" for each in arguments)
        self._variable("sizes", ctypes.c_char * 33).value = sizes.encode()

    def set_device(self, major: int, minor: int, sm_count: int) -> None:
        self._variable("device", ctypes.c_int * 3)[:] = [major, minor, sm_count]

    def set_context(self, context: int) -> None:
        self._variable("current_context", ctypes.c_uint64).value = context

    @property
    def context(self) -> int:
        return int(self._variable("current_context", ctypes.c_uint64).value)

    def fail(self, function: str, result: int = 1) -> None:
        self._variable("failing", ctypes.c_char * 64).value = function.encode()
        self._variable("failure", ctypes.c_int).value = result

    def status(self, function: str, *arguments: Any) -> str:
        """What a function of the header returns."""
        return self.statuses[getattr(self.library, function)(*arguments)]

    def taken(self) -> tuple[Any, ...] | None:
        """The launch since the last question; None if there was none."""
        count = self._variable("launches", ctypes.c_int)
        found = self._variable("last", Record).fields() if count.value else None
        count.value = 0
        return found

    def attributes(self) -> list[tuple[bytes, int, int]]:
        """What kernels were allowed since the last question."""
        count = self._variable("attribute_count", ctypes.c_int)
        array = self._variable("attributes", Attribute * 64)
        found = [(each.kernel, each.number, each.value) for each in array[: count.value]]
        count.value = 0
        return found

    @property
    def modules(self) -> int:
        return int(self._variable("modules", ctypes.c_int).value)

    def _variable(self, name: str, kind: Any) -> Any:
        return kind.in_dll(self.library, name)
