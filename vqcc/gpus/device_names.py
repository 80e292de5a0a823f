"""Which data file a device's name stands for: "NVIDIA H200 NVL" is h200, "NVIDIA GH200 480GB" is not."""

from __future__ import annotations

import re
from itertools import accumulate

__all__ = ["names_gpu"]


def names_gpu(device_name: str, gpu: str) -> bool:
    """Whether neighbouring words of a device's name, written as one, are the GPU's name."""
    words = re.findall(r"[a-z0-9]+", device_name.lower())
    plain = re.sub(r"[^a-z0-9]", "", gpu.lower())
    return any(plain in accumulate(words[first:]) for first in range(len(words)))
