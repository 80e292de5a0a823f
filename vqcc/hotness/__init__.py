"""How often the entries of codebooks are looked up: counting, statistics, and the profile file (Sec. V-A).

NumPy is imported only where arrays are touched.
"""

from __future__ import annotations

from vqcc.hotness.consistency import Consistency
from vqcc.hotness.counting import codes_sha256, count_codes, profile_tensor
from vqcc.hotness.file import load_profile, save_profile
from vqcc.hotness.model import (
    HotnessStatistics,
    Parts,
    Profile,
    TensorProfile,
    frequency_orders,
)
from vqcc.hotness.summary import Summary, summarize

__all__ = [
    "Consistency",
    "HotnessStatistics",
    "Parts",
    "Profile",
    "Summary",
    "TensorProfile",
    "codes_sha256",
    "count_codes",
    "frequency_orders",
    "load_profile",
    "profile_tensor",
    "save_profile",
    "summarize",
]
