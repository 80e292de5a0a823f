"""The programs of bench/ that time operators, as far as they go without a GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

    import pytest


def test_specs_and_verdicts(bench: Callable[[str], ModuleType]) -> None:
    program = bench("torch_op")
    for name, text in program.specs("h200").items():
        assert parse_spec(text.encode(), name).name == name
    right = {"within_bound": True, "equal": {"graph": True, "compiled": True}}
    assert program.is_right(right)
    assert not program.is_right({**right, "within_bound": False})
    assert not program.is_right({**right, "equal": {"graph": True, "compiled": False}})
    ones = torch.ones(3).half()
    assert program.same(ones, ones.clone())
    assert not program.same(ones * 0, -ones * 0)


def test_overhead_is_of_launches_that_are_made(
    bench: Callable[[str], ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = bench("torch_overhead")
    driver = program.stand_in(tmp_path)
    launched = []
    launch = driver.launch_kernel
    driver.launch_kernel = lambda *arguments: launched.append(arguments) or launch(*arguments)
    monkeypatch.setattr(program, "CALLS", 1)
    monkeypatch.setattr(program, "REPEATS", 1)
    for module in (program.linear_op, program.attention_op):
        monkeypatch.setattr(module, "current_stream", lambda device: device)
        monkeypatch.setattr(module, "on_device", lambda device, launch, *rest: launch(*rest))
    with torch.inference_mode():
        rows = program.linear_rows(program.load("timed-linear", program.LINEAR, tmp_path, driver))
        linear = len(launched)
        rows |= program.attention_rows(program.load("timed-attention", program.ATTENTION, tmp_path, driver))
    assert (linear, len(launched)) == (4, 6)
    assert min(rows.values()) > 0
