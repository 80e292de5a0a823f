from __future__ import annotations

import pytest

from vqcc import gpus
from vqcc.gpus.device_names import names_gpu


@pytest.mark.parametrize(
    ("device", "named"),
    [
        ("NVIDIA H200", {"h200"}),
        ("NVIDIA H200 NVL", {"h200"}),
        ("NVIDIA GH200 480GB", set()),
        ("NVIDIA H100 80GB HBM3", {"h100"}),
        ("NVIDIA A100-SXM4-80GB", {"a100"}),
        ("NVIDIA A800-SXM4-80GB", set()),
        ("NVIDIA GeForce RTX 4090", {"rtx4090"}),
        ("NVIDIA L40S", {"l40s"}),
        ("NVIDIA L40", set()),
        ("NVIDIA B200", {"b200"}),
        ("NVIDIA GB200", set()),
        ("", set()),
    ],
)
def test_a_device_is_named_by_whole_words(device: str, named: set[str]) -> None:
    assert {name for name in gpus.names() if names_gpu(device, name)} == named
