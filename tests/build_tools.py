"""CMake and ninja of the development extra: those beside this interpreter, whatever else is on the PATH."""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["CMAKE", "NINJA"]

_SCRIPTS = Path(sysconfig.get_path("scripts"))
CMAKE, NINJA = str(_SCRIPTS / "cmake"), str(_SCRIPTS / "ninja")
