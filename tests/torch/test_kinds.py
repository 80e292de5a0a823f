"""What is for the other kind of library is refused by the name of what serves it, and what is for none by its type."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
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


def test_what_only_the_other_kind_has_is_said_to_be_so(linear: Any, attention: Any) -> None:
    for library, names, message in (
        (
            attention,
            ("linear", "weight", "shape", "max_rows"),
            r"^library paged is of attention, and has no {}, as those of linear layers have: it has "
            r"books, cache, append, attend, attend_with_log_sums$",
        ),
        (
            linear,
            ("books", "cache", "append", "attend", "attend_with_log_sums"),
            r"^library gate is of linear layers, and has no {}, as those of attention have: it has "
            r"shape, max_rows, weight, linear$",
        ),
    ):
        for name in names:
            with pytest.raises(AttributeError, match=message.format(name)):
                getattr(library, name)
    with pytest.raises(AttributeError, match=r"^'LinearLibrary' object has no attribute 'weigth'"):
        _ = linear.weigth
    assert not hasattr(linear, "__array__")


def test_operands_that_are_no_tensors(gate: Files, linear: Any) -> None:
    weight, x = linear.weight(gate.packed, device="cpu"), torch.zeros(1, 264).half()
    types = r"torch\.Tensor of torch\.b?float16 or torch\.b?float16$"
    for operands, message in (
        (
            (x, torch.zeros(72, 264)),
            r"^library gate, of linear layers, takes a Weight, .* not torch\.Tensor$",
        ),
        ((x, vqcc.torch.Linear(linear, weight)), r"takes a Weight, .* not vqcc\.torch\.linear\.Linear$"),
        ((x, None), "takes a Weight, .* not NoneType$"),
        ((x.numpy(), weight), rf"^x is numpy\.ndarray; library gate takes a {types}"),
        ((None, weight), rf"^x is NoneType; library gate takes a {types}"),
        ((x, weight, np.zeros(72)), rf"^bias is numpy\.ndarray; library gate takes a {types}"),
    ):
        with pytest.raises(TypeError, match=message):
            linear.linear(*operands)


def test_operands_of_attention_that_are_no_tensors(paged: Files, attention: Any) -> None:
    books, cache = (
        attention.books(paged.packed, device="cpu"),
        attention.cache(batch=2, pages=5, device="cpu"),
    )
    tokens, lengths = torch.zeros(2, 1, 2, 64).half(), torch.ones(2, dtype=torch.int32)
    table = torch.zeros(2, 2, dtype=torch.int32)
    sound = {"cache": cache, "books": books, "lengths": lengths, "page_table": table}
    integers = "library paged takes a torch.Tensor of torch.int32$"
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"cache": books, "books": cache}, r"takes a Books, .* not vqcc\.torch\.attention\.Cache$"),
        ({"cache": books}, r"^library paged takes a Cache, which library\.cache\(\) makes, not .*\.Books$"),
        ({"lengths": [1, 1]}, f"^lengths is list; {integers}"),
        ({"lengths": None}, f"^lengths is NoneType; {integers}"),
        ({"page_table": table.numpy()}, rf"^page_table is numpy\.ndarray; {integers}"),
    )
    new = {"keys": tokens, "values": tokens}
    queries = torch.zeros(2, 1, 4, 64).half()
    more = (*wrong, ({"values": 1}, "^values is int; .*torch.float16$"), ({"counts": 1}, integers))
    for call, own, changes in (
        (attention.append, new, more),
        (attention.attend, {"queries": queries}, (*wrong, ({"queries": [1]}, "^queries is list"))),
        (attention.attend_with_log_sums, {"queries": queries}, wrong),
    ):
        for change, message in changes:
            with pytest.raises(TypeError, match=message):
                call(**{**own, **sound, **change})
        call(**own, **sound)
        with pytest.raises(ValueError, match=r"page_table are torch.int32 \[\], not torch.int32 \[2, 1\]"):
            call(**{**own, **sound, "page_table": torch.tensor(1, dtype=torch.int32)})


def test_whatever_does_not_fit_is_a_type_value_or_runtime_error(
    gate: Files, paged: Files, linear: Any, attention: Any
) -> None:
    """As docs/torch.md promises, for each operand in turn what no launch takes."""
    weight, books = linear.weight(gate.packed, device="cpu"), attention.books(paged.packed, device="cpu")
    cache = attention.cache(batch=2, pages=5, device="cpu")
    lengths, table = torch.ones(2, dtype=torch.int32), torch.zeros(2, 2, dtype=torch.int32)
    stored = {"cache": cache, "books": books, "lengths": lengths, "page_table": table}
    tokens = torch.zeros(2, 1, 2, 64).half()
    wrong = (
        1, "x", b"x", [1], {}, object(), np.zeros(2), weight, books, cache, linear, torch.tensor(1),
        torch.zeros(0), torch.zeros(2, 3, 4, 5, 6).half(), torch.zeros(2, 2).to_sparse(),
        torch.zeros(1, 264).half().to_sparse(), torch.zeros(2, dtype=torch.complex64), lengths.to("meta"),
    )  # fmt: skip
    calls: tuple[tuple[Any, dict[str, Any]], ...] = (
        (linear.linear, {"x": torch.zeros(1, 264).half(), "weight": weight, "bias": torch.zeros(72).half()}),
        (attention.append, {"keys": tokens, "values": tokens, "counts": lengths, **stored}),
        (attention.attend, {"queries": tokens.repeat(1, 1, 2, 1), "softmax_scale": 1.0, **stored}),
        (cache.check, {"lengths": lengths, "page_table": table}),
    )
    for call, sound in calls:
        call(**sound)
        for name in sound:
            for value in wrong:
                is_number = isinstance(value, int) or (isinstance(value, torch.Tensor) and value.dim() == 0)
                if name == "softmax_scale" and is_number:
                    continue
                if value is sound[name]:
                    continue
                with pytest.raises((TypeError, ValueError, RuntimeError)) as raised:
                    call(**{**sound, name: value})
                assert str(raised.value), (name, value)
