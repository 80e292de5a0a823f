"""clang of PyPI's wheel `ziglang`, as a compiler like any other: `python wheel_clang.py c|c++ ARGUMENTS`.

Zig's clang compiles each source, with all flags, and gcc or g++ links: for zig to link, it would first build a C
library of its own, for minutes. Zig has no AddressSanitizer and is silent when it is asked for it, so that what that
one checks is code of gcc; undefined behaviour is checked in code of both.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["zig_executable"]

_FRONTENDS, _LINKERS = {"c": "cc", "c++": "c++"}, {"c": "gcc", "c++": "g++"}
_SUFFIXES = {".c", ".cc", ".cpp"}
_COMPILE_ONLY = {"-c", "-fsyntax-only"}
#: Flags that compiling has no use for, and those that linking has one for too.
_FOR_LINKING, _FOR_BOTH = ("-l", "-Wl,", "-shared", "-static", "-pie", "-no-pie"), ("-fsanitize=", "-pthread")
#: What zig keeps of one run for the next; `make clean` removes it with the rest of the folder.
_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "zig"


def zig_executable() -> Path | None:
    """The wheel's program, if it is installed."""
    found = importlib.util.find_spec("ziglang")
    return Path(found.origin).parent / "zig" if found is not None and found.origin else None


@dataclass
class _Command:
    """A command line, taken apart."""

    flags: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    linked: list[str] = field(default_factory=list)
    modes: set[str] = field(default_factory=set)
    output: str | None = None

    @classmethod
    def parse(cls, arguments: list[str]) -> _Command:
        own, words = cls(), iter(arguments)
        for word in words:
            if word == "-o":
                own.output = next(words)
            elif word == "-x":
                own.flags += [word, next(words)]
            elif word in _COMPILE_ONLY:
                own.modes.add(word)
            elif word.startswith(_FOR_LINKING):
                own.linked.append(word)
            elif word.startswith("-"):
                own.flags.append(word)
                own.linked += [word] if word.startswith(_FOR_BOTH) else []
            else:
                (own.sources if Path(word).suffix in _SUFFIXES else own.linked).append(word)
        return own

    def objects(self, directory: str) -> list[str]:
        """What the sources become."""
        if "-c" in self.modes:
            return [self.output or Path(source).with_suffix(".o").name for source in self.sources]
        return [f"{directory}/{number}.o" for number in range(len(self.sources))]


def main(language: str, arguments: list[str]) -> int:
    """Compile the sources and link what comes of them, unless only the first was asked for; the exit status."""
    command = _Command.parse(arguments)
    environment = {"ZIG_GLOBAL_CACHE_DIR": str(_CACHE), **os.environ}
    # Zig checks for undefined behaviour also where nobody asks for it.
    zig = [str(zig_executable()), _FRONTENDS[language], "-fno-sanitize=undefined", *command.flags, "-c"]
    with tempfile.TemporaryDirectory() as directory:
        objects = command.objects(directory)
        for source, made in zip(command.sources, objects, strict=True):
            done = subprocess.run([*zig, source, "-o", made], env=environment, check=False)
            if done.returncode:
                return done.returncode
        if command.modes:
            return 0
        link = [_LINKERS[language], *objects, *command.linked, "-o", command.output or "a.out"]
        return subprocess.run(link, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
