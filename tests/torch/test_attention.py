"""Attention over a quantized cache: against float64 on the CPU, compiled, launched, and what it refuses."""

from __future__ import annotations

import copy
import gc
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch_shim import Shim

import vqcc.torch
from vqcc.ops.attention.reference import attend, rotate
from vqcc.torch import attention_op
from vqcc.torch.attention_launch import AppendArguments, AttendArguments
from vqcc.torch.attention_op import AppendCall, AttendCall
from vqcc.torch.attention_runtime import AppendPacked, AttendPacked
from vqcc.verify.cache_tolerance import compare_log_sums, compare_outputs
from vqcc.verify.host_cache import draw_cache

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Files = Any

LENGTHS = torch.tensor([41, 33], dtype=torch.int32)
TABLE = torch.tensor([[4, 0], [1, 3]], dtype=torch.int32)


def load(files: Files, cache_directory: Path) -> vqcc.torch.AttentionLibrary:
    library = vqcc.torch.load(files.bundle, emulator_cache=cache_directory / "emulator")
    assert isinstance(library, vqcc.torch.AttentionLibrary)
    return library


@pytest.fixture(scope="module")
def library(paged: Files, cache_directory: Path) -> vqcc.torch.AttentionLibrary:
    return load(paged, cache_directory)


@pytest.fixture(scope="module")
def books(paged: Files, library: Any) -> vqcc.torch.Books:
    return library.books(paged.packed, device="cpu")


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).half()


def filled(
    library: Any,
    books: Any,
    lengths: torch.Tensor = LENGTHS,
    table: torch.Tensor | None = TABLE,
    page_tokens: int | None = None,
) -> Any:
    """A cache into which sequences of these lengths were prefilled."""
    pages = None if table is None else 5
    cache = library.cache(batch=2, pages=pages, page_tokens=page_tokens, device="cpu")
    keys, values = (draw(2, int(lengths.max()), 2, 64, seed=seed) for seed in (1, 2))
    library.append(cache, books, keys, values, lengths, page_table=table, counts=lengths)
    return cache


def exact(files: Files, queries: torch.Tensor, lengths: torch.Tensor = LENGTHS) -> Any:
    """What attending to the tokens of `filled` gives in float64."""
    library = files.library
    op = library.op
    empty = draw_cache(
        np.random.default_rng(0), library.layout, op.window, np.float16, files.sides, [0] * len(lengths), 64
    )
    tokens = tuple(draw(2, int(lengths.max()), 2, 64, seed=seed).numpy() for seed in (1, 2))
    cache = empty.appended(files.sides, tokens, lengths.tolist())
    sequences = range(len(lengths))
    keys = [cache.decoded(files.sides[0], sequence, keys=True) for sequence in sequences]
    values = [cache.decoded(files.sides[1], sequence, keys=False) for sequence in sequences]
    turned = [rotate(each, np.arange(each.shape[1]), op.rope, op.rope_base, op.rope_scaling) for each in keys]
    return attend(queries.numpy(), turned, values, scale=op.head_dim**-0.5)


def assert_right(files: Files, queries: torch.Tensor, outputs: torch.Tensor, log_sums: torch.Tensor) -> None:
    wanted, kernel = exact(files, queries), files.library.builds["h200"].kernels[0]
    for found in (
        compare_outputs(outputs.numpy(), wanted, files.library, kernel, int(LENGTHS.max())),
        compare_log_sums(log_sums.numpy(), wanted, files.library, kernel, int(LENGTHS.max())),
    ):
        assert found.passed, found


@pytest.mark.parametrize("tokens", [1, 2])
def test_outputs_and_log_sums(paged: Files, library: Any, books: Any, tokens: int) -> None:
    cache = filled(library, books)
    cache.check(LENGTHS, TABLE)
    queries = draw(2, tokens, 4, 64)
    outputs, log_sums = library.attend_with_log_sums(queries, cache, books, LENGTHS, page_table=TABLE)
    assert (outputs.shape, outputs.dtype) == (queries.shape, torch.float16)
    assert (log_sums.shape, log_sums.dtype) == ((2, tokens, 4), torch.float32)
    assert_right(paged, queries, outputs, log_sums)
    assert torch.equal(library.attend(queries, cache, books, LENGTHS, page_table=TABLE), outputs)
    scaled = library.attend(queries * 8, cache, books, LENGTHS, page_table=TABLE, softmax_scale=1 / 64)
    torch.testing.assert_close(scaled, outputs, rtol=1e-2, atol=1e-3)


def test_a_contiguous_cache(contiguous: Files, cache_directory: Path) -> None:
    library = load(contiguous, cache_directory)
    books = library.books(contiguous.packed, device="cpu")
    cache = filled(library, books, table=None)
    cache.check(LENGTHS)
    queries = draw(2, 1, 4, 64)
    assert_right(contiguous, queries, *library.attend_with_log_sums(queries, cache, books, LENGTHS))


def test_pages_of_two_sizes(several: Files, cache_directory: Path) -> None:
    """The same books, each cache by its own kernels: outputs are right, and equal, as the same codes are summed."""
    library = load(several, cache_directory)
    books = library.books(several.packed, device="cpu")
    queries = draw(2, 1, 4, 64)
    found = []
    for page_tokens, table in ((32, TABLE), (64, TABLE[:, 1:]), (64, TABLE)):
        cache = filled(library, books, table=table, page_tokens=page_tokens)
        assert cache.pages.shape[1] == several.library.layout.page_bytes(page_tokens)
        cache.check(LENGTHS, table)
        outputs, log_sums = library.attend_with_log_sums(queries, cache, books, LENGTHS, page_table=table)
        assert_right(several, queries, outputs, log_sums)
        found.append(outputs)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[1], found[2])
    # 72 of 80 tokens are in codes: three pages of 32, and two of 64.
    longer = torch.tensor([80, 1], dtype=torch.int32)
    library.cache(batch=2, pages=5, page_tokens=64, device="cpu").check(longer, TABLE)
    with pytest.raises(ValueError, match="more tokens than its pages hold"):
        library.cache(batch=2, pages=5, page_tokens=32, device="cpu").check(longer, TABLE)


def test_page_sizes_that_a_library_has_not(
    several: Files, paged: Files, contiguous: Files, cache_directory: Path
) -> None:
    library = load(several, cache_directory)
    with pytest.raises(ValueError, match="several has kernels for pages of 32 or 64 tokens: say page_tokens"):
        library.cache(batch=2, pages=5, device="cpu")
    for page_tokens in (0, 96):
        with pytest.raises(ValueError, match=f"pages of 32 or 64 tokens: not of {page_tokens}"):
            library.cache(batch=2, pages=5, page_tokens=page_tokens, device="cpu")
    with pytest.raises(ValueError, match="has pages of 64 tokens: say how many"):
        library.cache(batch=2, page_tokens=64, device="cpu")
    one = load(paged, cache_directory)
    assert one.cache(batch=2, pages=5, page_tokens=32, device="cpu").pages.shape == (5, 2048)
    with pytest.raises(ValueError, match="pages of 32 tokens: not of 64"):
        one.cache(batch=2, pages=5, page_tokens=64, device="cpu")
    with pytest.raises(ValueError, match="is contiguous: leave page_tokens out"):
        load(contiguous, cache_directory).cache(batch=2, page_tokens=64, device="cpu")
    cache = library.cache(batch=2, pages=5, page_tokens=32, device="cpu")
    books = library.books(several.packed, device="cpu")
    wrong = torch.zeros(5, 3 * cache.pages.shape[1], dtype=torch.uint8)
    with pytest.raises(ValueError, match=r"has pages of 2048 or 4096 bytes: take them from library\.cache"):
        AttendCall.of(False, *attending(library, books, cache, pages=wrong).values())


def test_tokens_that_lie_otherwise_are_the_same(library: Any, books: Any) -> None:
    cache, queries = filled(library, books), draw(2, 2, 4, 64)
    wanted = library.attend(queries, cache, books, LENGTHS, page_table=TABLE)
    apart = torch.zeros(2, 4, 2, 128).half()
    apart[..., ::2] = queries.transpose(1, 2)
    table = TABLE.t().contiguous().t()
    assert torch.equal(
        library.attend(apart[..., ::2].transpose(1, 2), cache, books, LENGTHS, page_table=table), wanted
    )


def attending(library: Any, books: Any, cache: Any, **changes: Any) -> dict[str, Any]:
    """Operands of the operators that attend, by name."""
    given = {
        "queries": draw(2, 1, 4, 64), "key_books": books.key_books, "value_books": books.value_books,
        "book_facts": books.book_facts, "rotations": books.rotations, "pages": cache.pages,
        "key_window": cache.key_window, "value_window": cache.value_window, "lengths": LENGTHS, "page_table": TABLE,
        "workspace": None, "softmax_scale": 0.125, "softcap": 0.0, "library": library._identity,
    }  # fmt: skip
    return {**given, **changes}


def appending(library: Any, books: Any, cache: Any, keys: Any, values: Any, **changes: Any) -> dict[str, Any]:
    """Operands of the operator that appends, by name."""
    given = {
        "keys": keys, "values": values, "key_books": books.append_key_books, "value_books": books.append_value_books,
        "pages": cache.pages, "key_window": cache.key_window, "value_window": cache.value_window, "lengths": LENGTHS,
        "page_table": TABLE, "counts": None, "library": library._identity,
    }  # fmt: skip
    return {**given, **changes}


def test_operators_are_sound(library: Any, books: Any) -> None:
    cache = filled(library, books)
    for operator in (torch.ops.vqcc.attend, torch.ops.vqcc.attend_with_log_sums):
        found = torch.library.opcheck(operator.default, tuple(attending(library, books, cache).values()))
        assert set(found.values()) == {"SUCCESS"}
    new = appending(library, books, cache, draw(2, 1, 2, 64), draw(2, 1, 2, 64), lengths=LENGTHS + 1)
    found = torch.library.opcheck(torch.ops.vqcc.append.default, tuple(new.values()))
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("backend", ["eager", "aot_eager", pytest.param("inductor", marks=pytest.mark.full)])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own parts
def test_compiled_decoding_writes_the_cache(library: Any, books: Any, backend: str) -> None:
    layer = vqcc.torch.Attention(library, books)
    caches = [filled(library, books) for _ in "ab"]
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend=backend)
    lengths = LENGTHS.clone()
    with torch.no_grad():
        for step in range(3):
            lengths += 1
            new = [draw(2, 1, heads, 64, seed=10 * step + heads) for heads in (4, 2, 2)]
            results = [
                run(*new, cache, lengths, TABLE) for run, cache in zip((layer, compiled), caches, strict=True)
            ]
            assert torch.equal(*results)
    for own, other in zip(*(cache.buffers() for cache in caches), strict=True):
        assert torch.equal(own, other)
    assert not torch.equal(caches[0].pages, filled(library, books).pages)


def test_shapes_without_data(library: Any, books: Any) -> None:
    place = {"device": "meta"}
    cache = library.cache(batch=2, pages=5, **place)
    far, lengths, table = copy.deepcopy(books).to("meta"), LENGTHS.to("meta"), TABLE.to("meta")
    queries = torch.empty(2, 2, 4, 64, dtype=torch.float16, **place)
    outputs, log_sums = library.attend_with_log_sums(queries, cache, far, lengths, page_table=table)
    assert (outputs.shape, log_sums.shape, outputs.device.type) == (queries.shape, (2, 2, 4), "meta")
    new = queries[:, :, :2]
    assert library.append(cache, far, new, new, lengths, page_table=table) is None


def test_the_state_is_of_books_alone(library: Any, books: Any) -> None:
    layer = vqcc.torch.Attention(library, books)
    state = layer.state_dict()
    other = vqcc.torch.Attention(library)
    assert not any(other.load_state_dict(state))
    for own, theirs in zip(layer.buffers(), other.buffers(), strict=True):
        assert torch.equal(own, theirs)
    assert library.cache(batch=1, pages=1, device="cpu").state_dict() == {}


@pytest.fixture
def launched(
    paged: Files, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, int]]:
    """Launches tensors of the CPU as if they were on a GPU; gives the parameters of the kernel."""
    shim = Shim(paged.library, tmp_path, cache=True)
    monkeypatch.setattr(library._runtime, "_loaded", {0: library._runtime.load_with(shim.driver, 0)})
    monkeypatch.setattr(attention_op, "current_stream", lambda device: 0x77 + device)
    monkeypatch.setattr(attention_op, "on_device", lambda device, launch, *arguments: launch(*arguments))
    build = paged.library.builds["h200"]

    def launch(call: AttendCall | AppendCall) -> dict[str, int]:
        is_attending = isinstance(call, AttendCall)
        shim.set_parameters((build.kernels if is_attending else build.appends)[0].arguments)
        call.launch(0)
        record = shim.taken()
        assert record is not None
        assert record[5] == 0x77
        kind = AttendArguments if is_attending else AppendArguments
        return dict(zip(kind._fields[:-2], record[-1], strict=False))

    return launch


def aligned_workspace(size: int) -> torch.Tensor:
    room = torch.zeros(size + 256, dtype=torch.uint8)
    start = -room.data_ptr() % 256
    return room[start : start + size]


def test_launches_have_the_addresses_of_their_tensors(
    library: Any, books: Any, launched: Callable[..., dict[str, int]]
) -> None:
    cache = library.cache(batch=2, pages=5, device="cpu")
    queries = draw(2, 4, 2, 64).transpose(1, 2)
    table = torch.zeros(2, 6, dtype=torch.int32)[:, :4]
    workspace = aligned_workspace(library.workspace_bytes())
    stored = (cache.key_window, cache.value_window)
    given = attending(library, books, cache, queries=queries, page_table=table, workspace=workspace)
    call = AttendCall.of(False, *given.values())
    found = launched(call)
    tensors = {
        "queries": queries, "pages": cache.pages, "key_books": books.key_books, "value_books": books.value_books,
        "rotations": books.rotations, "lengths": LENGTHS, "page_table": table, "key_window": stored[0],
        "value_window": stored[1], "outputs": call.outputs, "workspace": workspace,
    }  # fmt: skip
    numbers = {
        "book_facts": 0, "log_sums": 0, "batch": 2, "query_tokens": 2, "page_table_stride": 6, "page_blocks": 1,
        "q_sequence_stride": 512, "q_token_stride": 64, "q_head_stride": 128, "out_sequence_stride": 512,
        "out_token_stride": 256, "out_head_stride": 64,
    }  # fmt: skip
    for name, tensor in tensors.items():
        assert found[name] == tensor.data_ptr(), name
    assert {name: found[name] for name in numbers} == numbers
    keys, values = draw(2, 3, 2, 64), draw(2, 2, 3, 64).transpose(1, 2)
    found = launched(
        AppendCall.of(*appending(library, books, cache, keys, values, page_table=table).values())
    )
    assert (found["keys"], found["values"], found["counts"]) == (keys.data_ptr(), values.data_ptr(), 0)
    assert found["key_books"] == books.append_key_books.data_ptr()
    assert launched(AppendCall.of(*appending(library, books, cache, keys, values, counts=LENGTHS).values()))[
        "counts"
    ]
    assert (found["new_tokens"], found["value_token_stride"], found["value_head_stride"]) == (3, 64, 192)


def test_a_workspace_must_be_there(library: Any, books: Any, launched: Callable[..., Any]) -> None:
    cache = library.cache(batch=2, pages=5, device="cpu")
    for workspace in (None, torch.zeros(16, dtype=torch.uint8)):
        with pytest.raises(
            ValueError, match=r"needs a workspace of \d+ bytes: take it from library.workspace"
        ):
            launched(AttendCall.of(True, *attending(library, books, cache, workspace=workspace).values()))


WRONG: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "type": (
        {"queries": torch.zeros(2, 1, 4, 64)},
        TypeError,
        "queries are torch.float32; library paged has kernels for",
    ),
    "heads": ({"queries": draw(2, 1, 2, 64)}, ValueError, r"takes \[batch, tokens, 4, 64\]"),
    "axes": ({"queries": draw(2, 4, 64)}, ValueError, r"queries are \[2, 4, 64\]"),
    "batch": ({"queries": draw(3, 1, 4, 64)}, ValueError, "of 3 sequences; library paged serves 2 at most"),
    "tokens": (
        {"queries": draw(2, 3, 4, 64)},
        ValueError,
        "3 tokens of each sequence; library paged takes 2 at most",
    ),
    "gradient": (
        {"queries": draw(2, 1, 4, 64).requires_grad_()},
        RuntimeError,
        "^queries require a gradient",
    ),
    "gradient of a window": (
        {"value_window": torch.zeros(2, 2, 8, 64).half().requires_grad_()},
        RuntimeError,
        "^the cache's windows require a gradient",
    ),
    "pages with gaps": (
        {"pages": torch.zeros(5, 4096, dtype=torch.uint8)[:, ::2]},
        ValueError,
        r"pages of library paged must be contiguous: pass pages\.contiguous\(\)",
    ),
    "workspace elsewhere": (
        {"workspace": torch.zeros(1 << 20, dtype=torch.uint8, device="meta")},
        RuntimeError,
        "tokens are on cpu, workspace on meta: move",
    ),
    "workspace of another type": (
        {"workspace": torch.zeros(1 << 20)},
        ValueError,
        "the workspace is torch.float32, not torch.uint8",
    ),
    "lengths": (
        {"lengths": LENGTHS.long()},
        ValueError,
        r"lengths are torch.int64 \[2\], not torch.int32 \[2\]",
    ),
    "no table": ({"page_table": None}, ValueError, "needs a page_table"),
    "table": ({"page_table": TABLE[:1]}, ValueError, r"page_table are torch.int32 \[1, 2\]"),
    "books": (
        {"key_books": torch.zeros(4).byte()},
        ValueError,
        r"key_books are not torch.uint8 \[32, 2048\]",
    ),
    "no rotations": ({"rotations": None}, ValueError, r"rotations are not torch.int64.*library.books\(\)"),
    "pages": (
        {"pages": torch.zeros(5, 64).byte()},
        ValueError,
        r"pages of 2048 bytes: take them from library.cache",
    ),
    "no window": (
        {"key_window": None},
        ValueError,
        r"windows of keys and values are not both \[sequences, 2, 8, 64\]",
    ),
    "elsewhere": (
        {"lengths": LENGTHS.to("meta")},
        RuntimeError,
        r"lengths are on meta, tokens on cpu: move them",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_what_would(library: Any, books: Any, case: str) -> None:
    changes, kind, message = WRONG[case]
    cache = library.cache(batch=2, pages=5, device="cpu")
    with pytest.raises(kind, match=message):
        AttendCall.of(False, *attending(library, books, cache, **changes).values())


def test_caches_in_turn_are_checked_once_and_freed_once_deleted(
    library: Any, books: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[Any] = []
    check = library._runtime.check_packed
    monkeypatch.setattr(
        library._runtime, "check_packed", lambda *given: checked.append(type(given[0])) or check(*given)
    )
    one, other = (library.cache(batch=2, pages=5, device="cpu") for _ in range(2))
    new = [draw(2, 1, heads, 64) for heads in (4, 2, 2)]
    for _ in range(3):
        for cache in (one, other):
            library.append(cache, books, *new[1:], LENGTHS, page_table=TABLE)
            library.attend(new[0], cache, books, LENGTHS, page_table=TABLE)
    assert checked == [AppendPacked, AttendPacked] * 2
    freed = [weakref.ref(buffer) for buffer in one.buffers()]
    del one, cache
    gc.collect()
    assert len(freed) == 3
    assert not any(reference() is not None for reference in freed)


def test_new_tokens_that_do_not_fit(library: Any, books: Any) -> None:
    cache, keys = library.cache(batch=2, pages=5, device="cpu"), draw(2, 1, 2, 64)
    with pytest.raises(
        ValueError, match=r"keys are .*\[2, 1, 2, 64\] on cpu, values .*\[2, 2, 2, 64\].* must agree"
    ):
        library.append(cache, books, keys, draw(2, 2, 2, 64), LENGTHS, page_table=TABLE)
    with pytest.raises(ValueError, match=r"counts are torch\.int64"):
        library.append(cache, books, keys, keys, LENGTHS, page_table=TABLE, counts=LENGTHS.long())
    with pytest.raises(RuntimeError, match="keys require a gradient"):
        library.append(cache, books, keys.clone().requires_grad_(), keys, LENGTHS, page_table=TABLE)
    wrong = copy.deepcopy(books)
    wrong.append_key_books = wrong.append_key_books[:1]
    with pytest.raises(
        ValueError, match=r"append_key_books are not torch.uint8 \[32, 2048\].*library.books\(\)"
    ):
        library.append(cache, wrong, keys, keys, LENGTHS, page_table=TABLE)


def test_caches_that_cannot_be(library: Any, contiguous: Files, cache_directory: Path) -> None:
    with pytest.raises(ValueError, match="serves 1 to 2 sequences, not 3"):
        library.cache(batch=3, pages=5, device="cpu")
    with pytest.raises(ValueError, match="has pages of 32 tokens: say how many"):
        library.cache(batch=2, device="cpu")
    with pytest.raises(ValueError, match="has a page for each sequence"):
        load(contiguous, cache_directory).cache(batch=2, pages=5, device="cpu")


def test_lengths_and_pages_that_are_not_the_caches(library: Any) -> None:
    cache = library.cache(batch=2, pages=5, device="cpu")
    for lengths, table, message in (
        ([257, 1], TABLE, "a length is negative or more than 256"),
        ([80, 1], TABLE, "more tokens than its pages hold"),
        ([41, 33], TABLE + 2, "a page is named that is not one of the cache's 5"),
        ([41, 33], None, "needs a page_table"),
    ):
        with pytest.raises(ValueError, match=message):
            cache.check(torch.tensor(lengths, dtype=torch.int32), table)
    with pytest.raises(
        TypeError, match=r"^lengths is list; library paged takes a torch.Tensor of torch.int32$"
    ):
        cache.check([41, 33], TABLE)
    for wrong, table, message in (
        (LENGTHS.long(), TABLE, r"lengths are torch.int64 \[2\], not torch.int32 \[2\]"),
        (LENGTHS[0], TABLE, r"lengths are torch.int32 \[\], not torch.int32 \[1\]"),
        (LENGTHS, TABLE[:1], r"page_table are torch.int32 \[1, 2\], not torch.int32 \[2, 2\]"),
        (LENGTHS, TABLE[0, 0], r"page_table are torch.int32 \[\], not torch.int32 \[2, 1\]"),
    ):
        with pytest.raises(ValueError, match=message):
            cache.check(wrong, table)
