r"""Dependency files as compilers write them (gcc -MD -MP): what make and ninja read of what an output was made of.

Names are escaped for both: blanks, `#` and `:` by a backslash, `$` by another one. A few names no dependency file can
hold, because one of the two would read something else, and an edit would go unnoticed: those with a control character,
`;` or `|`, with a backslash before `#`, `:` or `$`, and those that end in a blank, a colon, a backslash or, as members
of archives do, in `(...)`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Rule", "UnnamableError", "render"]

_BLANK = re.compile(r"(\\*) ")
_UNNAMABLE = re.compile(r"[\x00-\x1f\x7f;|]|\\[#:$]|[ :\\]$|\(.*\)$")


class UnnamableError(ValueError):
    """A path that make or ninja would read as another one."""


@dataclass(frozen=True)
class Rule:
    """An output, by the name that the build has for it, and every file that it was made of."""

    target: str
    prerequisites: Sequence[Path]


def render(rules: Sequence[Rule]) -> bytes:
    """The file's text. Raises UnnamableError for a path that it cannot hold.

    Every prerequisite also has an empty rule, after all others: make then takes one that is gone for changed, and
    does not stop for want of a way to make it.
    """
    sections = [_rule(rule) for rule in rules]
    every = dict.fromkeys(str(path) for rule in rules for path in rule.prerequisites)
    # make would take a name with = at the start of a line for a variable. The blank is for CMake 3.20, which takes the
    # colon for a part of the name without it.
    sections += [f"{_escaped(name)}: " for name in every if "=" not in name]
    return os.fsencode("\n".join(sections) + "\n")


def _rule(rule: Rule) -> str:
    # Nor may the first name after the colon have one: `target: name = value` sets a variable.
    names = sorted((str(path) for path in rule.prerequisites), key=lambda name: "=" in name)
    return " \\\n  ".join([f"{_escaped(rule.target)}:", *map(_escaped, names)])


def _escaped(name: str) -> str:
    if _UNNAMABLE.search(name):
        raise UnnamableError(f"a dependency file cannot name {name!r}")
    name = _BLANK.sub(r"\1\1\\ ", name.replace("$", "$$"))
    return re.sub("[#:]", r"\\\g<0>", name)
