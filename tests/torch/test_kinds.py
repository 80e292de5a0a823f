"""What is for the other kind of library is refused by the name of what serves it, and what is for none by its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

import vqcc.torch

if TYPE_CHECKING:
    from pathlib import Path

    Files = Any


@pytest.fixture(scope="module")
def linear(gate: Files, cache_directory: Path) -> Any:
    return vqcc.torch.load(gate.bundle, emulator_cache=cache_directory / "emulator")


@pytest.fixture(scope="module")
def attention(paged: Files, cache_directory: Path) -> Any:
    return vqcc.torch.load(paged.bundle, emulator_cache=cache_directory / "emulator")


def test_layers_are_for_libraries_of_their_kind(linear: Any, attention: Any) -> None:
    for make, message in (
        (
            lambda: vqcc.torch.Linear(attention),
            r"Linear is for libraries of linear layers: paged is a library of attention, which vqcc\.torch\.Attention",
        ),
        (
            lambda: vqcc.torch.Attention(linear, None),
            r"Attention is for libraries of attention: gate is a library of linear layers, which vqcc\.torch\.Linear",
        ),
        (
            lambda: vqcc.torch.Weight.empty(attention),
            r"vqcc\.torch\.Weight is for .* paged is a library of attention, which vqcc\.torch\.Books is for",
        ),
        (
            lambda: vqcc.torch.Books(linear, {}),
            r"vqcc\.torch\.Books is for .*which vqcc\.torch\.Weight is for",
        ),
        (
            lambda: vqcc.torch.Cache(linear, batch=1, pages=None, dtype=None, device=torch.device("cpu")),
            r"vqcc\.torch\.Cache is for .*which vqcc\.torch\.Linear is for",
        ),
        (
            lambda: vqcc.torch.Linear("out/gate"),  # type: ignore[arg-type]
            r"for libraries of linear layers: str is none; vqcc\.torch\.load\(\) gives one",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            make()


def test_layers_take_packed_data_of_their_kind(
    gate: Files, paged: Files, linear: Any, attention: Any
) -> None:
    weight, books = linear.weight(gate.packed, device="cpu"), attention.books(paged.packed, device="cpu")
    for make, message in (
        (
            lambda: vqcc.torch.Linear(linear, books),
            r"^library gate, of linear layers, takes a Weight, which library\.weight\(\) reads, not "
            r"vqcc\.torch\.attention\.Books of library paged, which vqcc\.torch\.Attention is for$",
        ),
        (
            lambda: vqcc.torch.Attention(attention, weight),
            r"^library paged, of attention, takes a Books, .* not vqcc\.torch\.linear\.Weight of library gate, which "
            r"vqcc\.torch\.Linear is for$",
        ),
        (
            lambda: vqcc.torch.Linear(linear, torch.zeros(72, 264)),  # type: ignore[arg-type]
            r"takes a Weight, .* not torch\.Tensor$",
        ),
    ):
        with pytest.raises(TypeError, match=message):
            make()
    assert vqcc.torch.Linear(linear, weight).weight is weight
    assert vqcc.torch.Attention(attention, books).books is books
