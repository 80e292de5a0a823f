"""Compiling needs no arrays: what describes an algorithm must not import NumPy or anything as heavy."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from vqcc.algorithms import presets
for name in presets.named():
    algorithm = presets.resolve(name)
    algorithm.device(), algorithm.label, algorithm.table_bytes, algorithm.mapping()
    list(algorithm.check_fields()), list(algorithm.check(4096, 4096)), algorithm.bits_per_weight(4096, 4096)
heavy = {"numpy", "faiss", "ml_dtypes", "safetensors", "rich", "matplotlib"} & set(sys.modules)
assert not heavy, heavy
"""


def test_describing_algorithms_imports_nothing_heavy() -> None:
    subprocess.run([sys.executable, "-c", SCRIPT], check=True, timeout=60)
