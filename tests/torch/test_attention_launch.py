"""Launches of attention libraries against what the C header does with the same arguments, field by field."""

from __future__ import annotations

import ctypes
import random
from typing import TYPE_CHECKING, Any

import pytest
import torch
from cache_libraries import fake_cache_library
from torch_shim import TYPES, Shim

import vqcc.torch
from vqcc.torch.attention_launch import AppendArguments, AttendArguments, AttentionLaunches
from vqcc.torch.host_view import check_cache
from vqcc.torch.kernels import LoadedKernels

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STREAM = 0x8000_0000_0000_1234
LIBRARIES: dict[str, dict[str, Any]] = {
    "contiguous": {"level": "best", "window": 40, "dtype": ["float16", "bfloat16"]},
    "paged": {
        "level": "gc",
        "page_size": 32,
        "rope": "half",
        "softcap": True,
        "batch": [2, 4],
        "query_tokens": 2,
    },
    "several": {"level": "gc", "page_size": [128, 64, 32], "batch": [2, 4], "dtype": ["float16", "bfloat16"]},
    "sliding": {"level": "gc", "page_size": 32, "sliding_window": 33, "batch": 4},
    # Kernels for one sequence need more than those for sixteen.
    "less-for-more": {
        "algorithm": "cq-4",
        "level": "o2",
        "q_heads": 32,
        "kv_heads": 8,
        "head_dim": 128,
        "batch": [1, 16],
        "context": 4096,
        "page_size": 64,
    },
    "no-workspace": {"level": "o4", "batch": 16, "context": 256},
    # Of many new tokens some leave the window into pages that queries do not see.
    "windowed": {
        "level": "gc",
        "page_size": 32,
        "sliding_window": 66,
        "window": 64,
        "query_tokens": 3,
    },
}


class HostView(ctypes.Structure):
    """The header's, of lengths and a page table on the host."""

    _fields_ = (("lengths", ctypes.c_void_p), ("page_table", ctypes.c_void_p), ("page_count", ctypes.c_int64))


_C_TYPES = {"softmax_scale": ctypes.c_float, "softcap": ctypes.c_float}


def header_struct(
    kind: type[AttendArguments] | type[AppendArguments], scalars: list[str]
) -> type[ctypes.Structure]:
    """The header's args: addresses, strides, then `scalars` in its order, and the host view."""
    names = kind._fields[:-2]
    addresses = names[: names.index("batch")]
    strides = [name for name in names if name.endswith(("sequence_stride", "token_stride", "head_stride"))]
    fields = [
        *((name, ctypes.c_uint64) for name in addresses),
        *((name, ctypes.c_int64) for name in strides),
        *((name, _C_TYPES.get(name, ctypes.c_int32)) for name in scalars),
        ("host", ctypes.c_void_p),
    ]
    return type("HeaderArguments", (ctypes.Structure,), {"_fields_": fields})


PAGES = ["page_table_stride", "page_blocks"]
ATTEND = header_struct(
    AttendArguments, ["batch", "query_tokens", *PAGES, "softmax_scale", "softcap", "type", "overlap"]
)
APPEND = header_struct(AppendArguments, ["batch", "new_tokens", *PAGES, "type", "overlap"])


class Both:
    def __init__(self, name: str, directory: Path) -> None:
        self.library = fake_cache_library(directory, name=name, **LIBRARIES[name])
        self.shim = Shim(self.library, directory, cache=True)
        self.bundle = directory / name
        self.launches = AttentionLaunches(self.library, "h200")
        build = self.library.builds["h200"]
        kernels = build.in_cubin
        assert self.shim.status("header_load", 0) == "OK"
        allowed = self.shim.attributes()
        self.loaded = LoadedKernels(self.shim.driver, 1, b"cubin", kernels, can_overlap=build.can_overlap)
        assert self.shim.attributes() == allowed

    def sound(self, kind: type[Any], rng: random.Random) -> Any:
        op, names = self.library.op, kind._fields[:-2]
        numbers = {
            "batch": rng.randint(1, max(op.batch)),
            "query_tokens": rng.randint(1, op.query_tokens),
            "new_tokens": rng.choice([1, 2, op.context]),
            "page_table_stride": rng.randrange(9),
            "page_blocks": rng.randrange(9),
            "softmax_scale": rng.random(),
            "softcap": rng.random() + 0.1,
            "out_head_stride": op.head_dim,
            "out_token_stride": op.head_dim * op.q_heads,
            "out_sequence_stride": op.head_dim * op.q_heads * op.query_tokens,
        }
        addresses = names[: names.index("batch")]
        values = {
            name: 256 * rng.randrange(1, 1 << 40)
            if name in addresses
            else numbers.get(name, rng.randrange(1 << 40))
            for name in names
        }
        return kind(**values, dtype=rng.choice(["float16", "bfloat16"]), overlap=rng.random() < 0.5)

    def wrong(self, rng: random.Random, args: Any) -> Any:
        names = [name for name in args._fields[:-2] if name != "softmax_scale"]
        name = rng.choice(names)
        value = getattr(args, name)
        if name == "softcap":
            return args._replace(softcap=rng.choice([0.0, -1.0, float("nan")]))
        if names.index(name) < names.index("batch"):
            return args._replace(
                **{name: rng.choice([0, value + 1, value + 2, value + 4, value + 8, value + 16])}
            )
        return args._replace(**{name: rng.choice([0, -1, 1, value * 2, value + 1, value - 1])})


@pytest.fixture(scope="module", params=LIBRARIES)
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Both:
    return Both(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("what", ["launch", "append"])
def test_statuses_and_launches_are_the_headers(both: Both, what: str) -> None:
    rng = random.Random(0)
    kind, struct = (AttendArguments, ATTEND) if what == "launch" else (AppendArguments, APPEND)
    build = both.library.builds["h200"]
    kernels = build.kernels if what == "launch" else build.appends
    both.shim.set_parameters(kernels[0].arguments)
    launch: Callable[..., str] = getattr(both.launches, what)
    seen, taken = set(), set()
    for _ in range(3000):
        args = both.sound(kind, rng)
        for _ in range(rng.choice([0, 0, 1, 1, 2])):
            args = both.wrong(rng, args)
        fields = args._asdict()
        theirs = struct(**{**fields, "type": TYPES[fields.pop("dtype")], "host": None})
        wanted = both.shim.status(f"header_{what}", ctypes.byref(theirs), ctypes.c_void_p(STREAM))
        launched = both.shim.taken()
        assert launch(both.loaded, args, STREAM) == wanted, args
        assert both.shim.taken() == launched, args
        seen.add(wanted)
        taken |= {launched[0]} if launched else set()
    assert {"OK", "ERROR_NULL_POINTER", "ERROR_SIZE", "ERROR_MISALIGNED"} <= seen
    assert taken == {kernel.name.encode() for kernel in kernels}
    assert ("ERROR_STRIDE" in seen) == (what == "launch")
    assert ("ERROR_SOFTCAP" in seen) == (what == "launch" and both.library.op.softcap)
    assert ("ERROR_TYPE" in seen) == (len(both.library.op.dtype) == 1)


def test_lengths_and_pages_are_checked_as_the_header_checks_them(both: Both) -> None:
    rng = random.Random(0)
    op, seen = both.library.op, set()
    for _ in range(2000):
        batch, stride, blocks = rng.randint(1, max(op.batch)), rng.randrange(1, 9), rng.randrange(9)
        pages, span = rng.choice([1, 2, 40]), rng.choice([0, 0, 1, 33, 60])
        lengths = [rng.choice([0, 1, 33, 64, 100, op.context, op.context + 1, -1]) for _ in range(batch)]
        table = [[rng.choice([0, 1, 7, 39, 39, 39, -1]) for _ in range(stride)] for _ in range(batch)]
        given = table if op.paged and rng.random() < 0.95 else None
        flat = (
            None if given is None else (ctypes.c_int32 * (batch * stride))(*(n for row in given for n in row))
        )
        wanted = both.shim.status(
            "header_check_cache",
            (ctypes.c_int32 * batch)(*lengths),
            flat,
            ctypes.c_int64(pages),
            batch,
            ctypes.c_int64(span),
            stride,
            blocks,
        )
        own = check_cache(op, lengths, given, pages, blocks, span)
        # Without a table there is no number of its columns, which the header is told apart.
        assert own == wanted or (given is None and op.paged and wanted == "ERROR_CAPACITY")
        seen.add(own)
    assert {"OK", "ERROR_LENGTH", "ERROR_CAPACITY", "ERROR_PAGE"} <= seen


def header_refuses(
    both: Both, lengths: torch.Tensor, table: torch.Tensor | None, pages: int, **sizes: int
) -> bool:
    """Whether the header refuses to attend with the most query tokens, or to append `new_tokens`, of this host view."""
    op, rng, refused = both.library.op, random.Random(0), False
    host = HostView(lengths.data_ptr(), 0 if table is None else table.data_ptr(), pages)
    new_tokens, build = sizes.pop("new_tokens"), both.library.builds["h200"]
    for kind, struct, what, tokens in (
        (AttendArguments, ATTEND, "launch", {"query_tokens": op.query_tokens}),
        (AppendArguments, APPEND, "append", {"new_tokens": new_tokens}),
    ):
        both.shim.set_parameters((build.kernels if what == "launch" else build.appends)[0].arguments)
        fields = (
            both.sound(kind, rng)._replace(dtype="float16", batch=len(lengths), **tokens, **sizes)._asdict()
        )
        theirs = struct(**{**fields, "type": TYPES[fields.pop("dtype")], "host": ctypes.addressof(host)})
        status = both.shim.status(f"header_{what}", ctypes.byref(theirs), ctypes.c_void_p(STREAM))
        assert status in {"OK", "ERROR_LENGTH", "ERROR_CAPACITY", "ERROR_PAGE"}
        refused |= status != "OK"
    return refused


def test_a_cache_is_checked_for_all_that_the_header_lets_launches_touch(both: Both) -> None:
    """Pages that freed tokens were on may be named by anything, and those of tokens that are touched may not."""
    library: Any = vqcc.torch.load(both.bundle)
    op, rng, seen = both.library.op, random.Random(0), set()
    for _ in range(400):
        batch, pages = rng.randint(1, max(op.batch)), 12
        cache = library.cache(
            batch=batch,
            pages=pages if op.paged else None,
            page_tokens=rng.choice(op.page_sizes) if op.paged else None,
            dtype=torch.float16,
            device="cpu",
        )
        lengths = torch.tensor([rng.randrange(op.context + 1) for _ in range(batch)], dtype=torch.int32)
        table = torch.tensor([[rng.randrange(12) for _ in range(8)] for _ in range(batch)], dtype=torch.int32)
        freed = rng.randrange(8)
        table[:, :freed] = -1
        new_tokens = rng.choice([None, 1, 3, op.context])
        given = table if op.paged else None
        wanted = header_refuses(
            both,
            lengths,
            given,
            len(cache.pages),
            new_tokens=op.query_tokens if new_tokens is None else new_tokens,
            page_table_stride=8,
            page_blocks=cache.pages.shape[1] // library._runtime.block_bytes,
        )
        try:
            cache.check(lengths, given, new_tokens=new_tokens)
        except ValueError:
            assert wanted, (lengths, table, new_tokens)
            seen.add("refused")
        else:
            assert not wanted, (lengths, table, new_tokens)
            seen.add("a page was freed" if freed and lengths.min() > 32 + op.window else "all is there")
    assert ("refused" in seen) == op.paged
    assert ("a page was freed" in seen) == bool(not op.paged or op.sliding_window)
