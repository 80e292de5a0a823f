"""Why each diagnostic comes about and what to do about it: what `vqcc explain CODE` prints.

Apart from the codes' titles, which every command imports.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from vqcc.diagnostics.reasons import files, plans, running, spec

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["REASONS", "Reason"]


class Reason(NamedTuple):
    """What a diagnostic comes from, and what to do; a sentence or two each."""

    cause: str
    help: str


REASONS: Mapping[str, Reason] = MappingProxyType(
    {code: Reason(*texts) for area in (spec, plans, files, running) for code, texts in area.REASONS.items()}
)
