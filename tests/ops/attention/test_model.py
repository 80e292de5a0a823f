"""The op attention_decode as a spec writes it: what it refuses, and what it tells kernels and packers."""

from __future__ import annotations

import json
import math
import re
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from device.attention import Case, append_source, attention_source
from hypothesis import given
from hypothesis import strategies as st
from problems import gemv, kmeans
from pydantic import BaseModel, ValidationError

from vqcc import gpus
from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.codegen.render import struct
from vqcc.codegen.text import comment
from vqcc.ops.attention.model import AttentionDecode
from vqcc.ops.attention.reference import turn_steps
from vqcc.ops.attention.rope import MIN_FACTOR
from vqcc.ops.fields import as_list, distinct
from vqcc.spec.source import parse_source
from vqcc.spec.violations import validate

if TYPE_CHECKING:
    from vqcc.algorithms import Algorithm
    from vqcc.diagnostics import Diagnostic, Finding
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Argument

SIZES = {"q_heads": 32, "kv_heads": 8, "head_dim": 128, "batch": 1, "context": 4096}


def spec(**fields: Any) -> dict[str, Any]:
    return {"kind": "attention_decode", **SIZES, **fields}


def attention(**fields: Any) -> AttentionDecode:
    return AttentionDecode.model_validate(spec(**fields))


def refused(data: dict[str, Any]) -> list[Diagnostic]:
    """What a spec with this op is told."""
    text = json.dumps({"op": data}).replace("NaN", ".nan").replace("Infinity", ".inf")
    source = parse_source(text.encode(), "spec.yaml")
    found = validate(AttentionDecode, source.data["op"], source, ("op",))
    assert not isinstance(found, BaseModel), found
    return list(found)


def of_cache(**changes: Any) -> Algorithm:
    return from_mapping(kmeans(**{"scope": "layer", **changes}))


def findings(
    op: AttentionDecode, keys: Algorithm | str, values: Algorithm | str | None = None, gpu: Gpu | None = None
) -> list[Finding]:
    """What `check` finds; without `values` these are the keys' algorithm, the same object."""
    key = resolve(keys) if isinstance(keys, str) else keys
    value = key if values is None else resolve(values) if isinstance(values, str) else values
    return [*op.check(gpu or gpus.load("h200")), *op.check_algorithms(key, value)]


def places(found: list[Finding]) -> list[tuple[str, tuple[str | int, ...]]]:
    return [(each.code, each.path) for each in found]


def test_defaults() -> None:
    op = attention()
    assert (op.page_size, op.window, op.query_tokens, op.sliding_window, op.softcap) == ((0,), 0, 1, 0, False)
    assert (op.rope, op.rope_base, op.rope_scaling, op.dtype) == ("none", 10000.0, 1.0, ("float16",))
    assert (op.batch, op.query_rows) == ((1,), 4)


@pytest.mark.parametrize(
    ("fields", "rows"),
    [
        ({"q_heads": 8, "kv_heads": 8}, 1),
        ({"q_heads": 64, "kv_heads": 8, "query_tokens": 3}, 24),
        ({"q_heads": 71, "kv_heads": 1, "query_tokens": 8}, 568),
    ],
)
def test_query_rows_of_every_way_to_share_heads(fields: dict[str, Any], rows: int) -> None:
    assert attention(**fields).query_rows == rows


LARGEST: dict[str, Any] = {
    "q_heads": 1024, "kv_heads": 1024, "head_dim": 256, "batch": 1024, "context": 2**20, "page_size": 4096,
    "window": 256, "query_tokens": 8, "sliding_window": 2**20, "rope": "half", "rope_base": 1e12,
    "rope_scaling": 1e12,
}  # fmt: skip


def test_the_largest_of_everything_is_legal() -> None:
    assert findings(attention(**LARGEST), "cq-4") == []


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"q_heads": 0}, "VQ0204", "op.q_heads must be at least 1"),
        ({"q_heads": 1025}, "VQ0204", "op.q_heads must be at most 1024"),
        ({"kv_heads": 0}, "VQ0204", "op.kv_heads must be at least 1"),
        ({"q_heads": 2048, "kv_heads": 3}, "VQ0204", "op.q_heads must be at most 1024"),
        ({"q_heads": 10, "kv_heads": 4}, "VQ0215", "q_heads = 10 is not a multiple of kv_heads = 4"),
        ({"q_heads": 2, "kv_heads": 8}, "VQ0215", "q_heads = 2 is not a multiple of kv_heads = 8"),
        ({"head_dim": 96}, "VQ0206", "op.head_dim cannot be 96"),
        ({"batch": 0}, "VQ0204", "at least 1"),
        ({"batch": [1, 1025]}, "VQ0204", "at most 1024"),
        ({"batch": []}, "VQ0209", "op.batch has 0 values"),
        ({"batch": list(range(1, 18))}, "VQ0209", "op.batch has 17 values"),
        ({"batch": [1, 8, 1]}, "VQ0210", "1 stands twice in the list"),
        ({"batch": "8"}, "VQ0203", "must be an integer"),
        ({"context": 0}, "VQ0204", "op.context must be at least 1"),
        ({"context": 2**20 + 1}, "VQ0204", "op.context must be at most 1048576"),
        ({"page_size": 4128}, "VQ0204", "op.page_size must be at most 4096"),
        ({"page_size": -32}, "VQ0204", "op.page_size must be at least 0"),
        ({"page_size": 16}, "VQ0204", "page_size must be a multiple of 32, got 16"),
        ({"page_size": 100}, "VQ0204", "page_size must be a multiple of 32, got 100"),
        ({"page_size": [32, 4128]}, "VQ0204", "op.page_size[1] must be at most 4096"),
        ({"page_size": [32, 48]}, "VQ0204", "page_size must be a multiple of 32, got 48"),
        ({"page_size": [32, 64, 32]}, "VQ0210", "32 stands twice in the list"),
        ({"page_size": [64, 0]}, "VQ0215", "page_size 0, a contiguous cache, stands beside sizes of pages"),
        ({"page_size": []}, "VQ0209", "op.page_size has 0 values"),
        ({"page_size": list(range(32, 320, 32))}, "VQ0209", "op.page_size has 9 values"),
        ({"page_size": "64"}, "VQ0203", "must be an integer"),
        ({"window": 257}, "VQ0204", "op.window must be at most 256"),
        ({"window": -1}, "VQ0204", "op.window must be at least 0"),
        ({"window": 64, "context": 63}, "VQ0215", "a window of 64 tokens is longer than a context of 63"),
        ({"rope": "neox"}, "VQ0206", "op.rope cannot be"),
        ({"rope_base": 5e5}, "VQ0215", "rope_base is given, but rope is none"),
        ({"rope_base": 10000.0, "rope": "none"}, "VQ0215", "rope_base is given, but rope is none"),
        ({"rope_scaling": 4.0}, "VQ0215", "rope_scaling is given, but rope is none"),
        ({"rope": "half", "rope_base": 0}, "VQ0204", "op.rope_base must be at least 1e-06"),
        ({"rope": "half", "rope_base": float("inf")}, "VQ0204", "op.rope_base must be"),
        ({"rope": "half", "rope_scaling": float("nan")}, "VQ0204", "op.rope_scaling must be"),
        ({"rope": "half", "rope_scaling": -1.0}, "VQ0204", "op.rope_scaling must be at least 1e-06"),
        ({"rope": "half", "rope_scaling": 1e13}, "VQ0204", "op.rope_scaling must be at most 1e+12"),
        ({"query_tokens": 0}, "VQ0204", "op.query_tokens must be at least 1"),
        ({"query_tokens": 9}, "VQ0204", "op.query_tokens must be at most 8"),
        ({"sliding_window": -1}, "VQ0204", "op.sliding_window must be at least 0"),
        ({"sliding_window": 2**20 + 1}, "VQ0204", "op.sliding_window must be at most 1048576"),
        ({"softcap": 30.0}, "VQ0203", "op.softcap must be true or false"),
        ({"softcap": 1}, "VQ0203", "op.softcap must be true or false"),
        ({"dtype": "float32"}, "VQ0206", "op.dtype"),
        ({"dtype": ["float16", "float16"]}, "VQ0210", "float16 stands twice in the list"),
        ({"pages": 3}, "VQ0201", "op has no field 'pages'"),
    ],
)
def test_what_no_op_is(fields: dict[str, Any], code: str, words: str) -> None:
    (diagnostic,) = refused(spec(**fields))
    assert diagnostic.code == code
    assert words in diagnostic.message


@pytest.mark.parametrize("field", SIZES)
def test_what_every_op_has(field: str) -> None:
    data = spec()
    del data[field]
    (diagnostic,) = refused(data)
    assert (diagnostic.code, diagnostic.message) == ("VQ0202", f"op lacks the field {field}")


@pytest.mark.parametrize(
    ("fields", "help_text"),
    [
        ({"q_heads": 10, "kv_heads": 4}, "may be 8 or 12"),
        ({"q_heads": 2, "kv_heads": 8}, "may be 8"),
        ({"q_heads": 1023, "kv_heads": 1000}, "may be 1000"),
        ({"page_size": 16}, "use 32, or 0"),
        ({"page_size": 100}, "use 96 or 128, or 0"),
        ({"page_size": [64, 0]}, "use 64, or 0 alone"),
        ({"page_size": [256, 0, 32]}, "use [32, 256], or 0 alone"),
        ({"head_dim": 96}, "use 64, 128 or 256"),
        ({"window": 64, "context": 63}, "use at most 63"),
        ({"rope_base": 5e5}, "or leave rope_base out"),
        ({"rope": "Half"}, "half"),
    ],
)
def test_what_would_be_legal(fields: dict[str, Any], help_text: str) -> None:
    (diagnostic,) = refused(spec(**fields))
    assert help_text in str(diagnostic.help)


def test_a_sliding_window_may_be_shorter_than_the_query_tokens() -> None:
    assert attention(sliding_window=1, query_tokens=8).sliding_window == 1


def test_integers_are_numbers_of_a_rotation() -> None:
    op = attention(rope="interleaved", rope_base=500000, rope_scaling=8)
    assert (op.rope_base, op.rope_scaling) == (500000.0, 8.0)


@pytest.mark.parametrize("head_dim", [64, 128, 256])
def test_the_fastest_turns_of_a_legal_rotation_can_be_counted(head_dim: int) -> None:
    """Positions that are divided by a factor turn by as much more."""
    assert len(turn_steps(head_dim, MIN_FACTOR)) == head_dim // 2
    assert math.isfinite(MIN_FACTOR**-2 * 2.0**64)


def test_an_op_does_not_change() -> None:
    with pytest.raises(ValidationError):
        attention().window = 3  # type: ignore[misc]


def test_variants_in_a_fixed_order() -> None:
    op = attention(batch=[64, 1, 8], dtype=["float16", "bfloat16"])
    variants = op.variants()
    assert [variant.suffix for variant in variants] == [
        f"b{batch}_{dtype}" for dtype, batch in product(("bfloat16", "float16"), (1, 8, 64))
    ]
    assert (variants[1].dtype, variants[1].sizes) == ("bfloat16", {"batch": 8, "page_tokens": 0})
    assert [op.element_type(variant) for variant in variants[2:4]] == ["__nv_bfloat16", "__half"]
    assert attention(batch=[8, 64, 1], dtype=["bfloat16", "float16"]).variants() == variants


def test_a_kernel_for_each_page_size() -> None:
    op = attention(batch=[8, 1], page_size=[256, 32])
    assert [(variant.suffix, variant.sizes) for variant in op.variants()] == [
        (f"b{batch}_p{page_tokens}_float16", {"batch": batch, "page_tokens": page_tokens})
        for batch in (1, 8)
        for page_tokens in (32, 256)
    ]
    assert (op.page_sizes, op.paged, op.page_tokens) == ((32, 256), True, 0)


@pytest.mark.parametrize(("page_size", "paged"), [(64, True), ([64], True), (0, False), ([0], False)])
def test_one_page_size_is_in_no_name(page_size: int | list[int], paged: bool) -> None:
    op = attention(page_size=page_size)
    (tokens,) = as_list(page_size)  # type: ignore[misc]
    assert [variant.suffix for variant in op.variants()] == ["b1_float16"]
    assert (op.page_sizes, op.paged, op.page_tokens) == ((tokens,), paged, tokens)
    assert op.model_dump()["page_size"] == tokens


def test_only_one_variant() -> None:
    op = attention(batch=[1, 8], dtype=["float16", "bfloat16"], window=32)
    for variant in op.variants():
        alone = op.only(variant)
        assert alone.variants() == (variant,)
        assert alone == attention(batch=variant.sizes["batch"], dtype=variant.dtype, window=32)


def test_only_one_page_size() -> None:
    """It is the op of a library of that page size, so that what was measured of its kernel holds for this one."""
    op = attention(batch=[1, 8], page_size=[32, 64])
    for variant in op.variants():
        sizes = variant.sizes
        assert op.only(variant) == attention(batch=sizes["batch"], page_size=sizes["page_tokens"])


@pytest.mark.parametrize(
    "fields", [{}, {"rope": "half"}, {"batch": [4, 2]}, {"page_size": [64, 32]}, LARGEST]
)
def test_what_is_written_reads_as_the_same_op(fields: dict[str, Any]) -> None:
    op = attention(**fields)
    for alone in (op, op.only(op.variants()[0])):
        assert AttentionDecode.model_validate(json.loads(alone.model_dump_json())) == alone
    assert ("rope_base" in op.model_dump()) == (op.rope != "none")


def test_a_layout() -> None:
    layout = attention(page_size=64).layout(resolve("cq-2"), resolve("kv-8-6-2"), "rotated")
    assert (layout.heads, layout.head_dim, layout.page_tokens, layout.key_order) == (8, 128, 64, "rotated")
    assert (layout.key_size, layout.key_bits, layout.key_stages) == (4, 8, 1)
    assert (layout.value_size, layout.value_bits, layout.value_stages) == (8, 6, 2)
    # 32 tokens of 32 bytes, and 16 groups of 32 tokens of 12 bits.
    assert layout.page_bytes(64) == 8 * 2 * (32 * 32 + 16 * 48)


def test_token_blocks_lie_alike_in_pages_of_every_size() -> None:
    several, one, none = (
        attention(page_size=size).layout(resolve("cq-2"), resolve("cq-4"), "plain")
        for size in ([32, 64], 64, 0)
    )
    assert several == none
    assert several.in_pages(64) == one
    assert (several.in_pages(32).page_tokens, several.block_bytes) == (32, one.block_bytes)


def test_a_type_that_a_gpu_lacks() -> None:
    gpu = gpus.load("a100").model_copy(update={"name": "old", "dtypes": ("float16",)})
    assert findings(attention(), "cq-2", gpu=gpu) == []
    (found,) = findings(attention(dtype=["float16", "bfloat16"]), "cq-2", gpu=gpu)
    assert (found.code, found.path, found.help) == ("VQ0308", ("op", "dtype"), "use float16")


def test_an_algorithm_of_weights() -> None:
    assert places(findings(attention(), "aqlm-2x8")) == [("VQ0302", ("algorithm",))]
    assert places(findings(attention(), "cq-2", "quip-2")) == [("VQ0302", ("algorithm", "value"))]
    assert places(findings(attention(), "aqlm-2x8", "quip-2")) == [
        ("VQ0302", ("algorithm", "key")),
        ("VQ0302", ("algorithm", "value")),
    ]


def test_vectors_that_do_not_fill_a_head() -> None:
    """It is the head's size that is at fault, once for each vector size."""
    three, five = of_cache(vector_size=3), of_cache(vector_size=5)
    place = ("VQ0303", ("op", "head_dim"))
    assert places(findings(attention(), three)) == [place]
    assert places(findings(attention(), three, of_cache(vector_size=3))) == [place]
    assert places(findings(attention(), three, five)) == [place, place]


def test_more_channel_groups_than_kernels_have() -> None:
    single = of_cache(vector_size=1)
    assert findings(attention(), single) == []
    (found,) = findings(attention(head_dim=256), single)
    assert (found.code, found.path) == ("VQ0302", ("algorithm", "vector_size"))
    assert found.help == "use vectors of 2 channels or more"
    assert places(findings(attention(head_dim=256), single, "cq-4")) == [
        ("VQ0302", ("algorithm", "key", "vector_size"))
    ]
    assert places(findings(attention(head_dim=256), "cq-4", single)) == [
        ("VQ0302", ("algorithm", "value", "vector_size"))
    ]


def test_codebooks_past_32_bits() -> None:
    wide = of_cache(vector_size=2, entries=65536, residuals=8, scope={"kv_heads": 1, "channels": 2})
    op = attention(q_heads=64, kv_heads=64)
    assert places(findings(op, wide)) == [("VQ0307", ("algorithm", "scope"))]
    assert places(findings(op, "cq-2", wide)) == [("VQ0307", ("algorithm", "value", "scope"))]


ops = st.builds(
    lambda kv_heads, group, rope, rope_base, **fields: attention(
        kv_heads=kv_heads,
        q_heads=kv_heads * group,
        rope=rope,
        **({} if rope == "none" else {"rope_base": rope_base}),
        **fields,
    ),
    kv_heads=st.integers(1, 32),
    group=st.integers(1, 32),
    head_dim=st.sampled_from([64, 128, 256]),
    batch=st.lists(st.integers(1, 1024), min_size=1, max_size=16, unique=True),
    context=st.integers(256, 2**20),
    page_size=st.just(0)
    | st.lists(st.integers(1, 128).map(lambda blocks: 32 * blocks), min_size=1, max_size=8, unique=True),
    window=st.integers(0, 256),
    rope=st.sampled_from(["none", "half", "interleaved"]),
    rope_base=st.floats(MIN_FACTOR, 1e12),
    query_tokens=st.integers(1, 8),
    sliding_window=st.integers(0, 2**20),
    softcap=st.booleans(),
    dtype=st.sampled_from(["float16", "bfloat16", ["float16", "bfloat16"]]),
)
presets = st.sampled_from(["cq-2", "cq-4", "kv-4-8-1"])


@given(ops, presets, presets, st.sampled_from(["plain", "rotated"]))
def test_any_legal_op_has_a_layout(op: AttentionDecode, keys: str, values: str, order: Any) -> None:
    assert findings(op, keys, values) == []
    layout = op.layout(resolve(keys), resolve(values), order)
    assert layout.page_bytes(op.page_sizes[0] or 32) > 0
    assert op.query_rows * op.kv_heads == op.q_heads * op.query_tokens
    assert AttentionDecode.model_validate(op.model_dump()) == op


@given(
    st.sampled_from([64, 128, 256]), st.integers(1, 16), st.integers(1, 16), st.integers(1, 8), st.booleans()
)
def test_what_is_accepted_meets_the_device_codes_asserts(
    head_dim: int, vector_size: int, bits: int, stages: int, swapped: bool
) -> None:
    """Those of KeyBlock and PackedCache (device/attention/cache.cuh)."""
    tried = of_cache(vector_size=vector_size, entries=2**bits, residuals=stages)
    keys, values = (resolve("cq-2"), tried) if swapped else (tried, resolve("cq-2"))
    op = attention(head_dim=head_dim)
    if findings(op, keys, values):
        assert head_dim % vector_size or head_dim // vector_size > 128
        return
    layout = op.layout(keys, values, "plain")
    for groups in (layout.key_groups, layout.value_groups):
        assert groups & (groups - 1) == 0
        assert groups % 4 == 0
    assert layout.key_stream.bytes % 16 == 0
    assert layout.value_stream.bytes % 16 == 0


def test_problem_constants() -> None:
    op = attention(window=16, sliding_window=1000, softcap=True, rope="interleaved")
    constants = {constant.name: (constant.type, constant.value) for constant in op.problem_constants()}
    assert list(constants.items()) == [
        ("kQueryHeads", ("int", 32)),
        ("kHeads", ("int", 8)),
        ("kHeadDim", ("int", 128)),
        ("kWindow", ("int", 16)),
        ("kSlidingWindow", ("int", 1000)),
        ("kSoftcap", ("bool", True)),
        ("kRope", ("vqcc::Rope", "vqcc::Rope::kInterleaved")),
    ]
    plain = {constant.name: constant.value for constant in attention().problem_constants()}
    assert (plain["kSoftcap"], plain["kRope"]) == (False, "vqcc::Rope::kNone")
    assert {constant.name: constant.value for constant in attention(rope="half").problem_constants()}[
        "kRope"
    ] == "vqcc::Rope::kHalf"


def test_constants_can_be_emitted() -> None:
    emitted = struct("Shape", "A head.", attention(softcap=True).problem_constants())
    printed = {str(constant.name): str(constant.value) for constant in emitted.constants}
    assert printed["kSoftcap"] == "true"
    assert printed["kRope"] == "vqcc::Rope::kNone"


def roles(arguments: tuple[Argument, ...]) -> dict[str, list[str]]:
    of_role: dict[str, list[str]] = {}
    for argument in arguments:
        comment(argument.comment)
        of_role.setdefault(argument.role, []).append(argument.name)
    return of_role


def optional(arguments: tuple[Argument, ...]) -> set[str]:
    return {argument.name for argument in arguments if argument.optional}


def test_arguments() -> None:
    op = attention(dtype=["float16", "bfloat16"])
    wide, half = (op.arguments(variant) for variant in op.variants())
    assert " ".join(argument.name for argument in half) == (
        "queries pages key_books value_books book_facts rotations lengths page_table key_window value_window outputs "
        "log_sums workspace batch query_tokens page_table_stride page_blocks softmax_scale softcap "
        "q_sequence_stride q_token_stride q_head_stride out_sequence_stride out_token_stride out_head_stride"
    )
    assert roles(half) == {
        "input": ["queries", "pages", "lengths", "page_table", "key_window", "value_window"],
        "weights": ["key_books", "value_books", "book_facts", "rotations"],
        "output": ["outputs", "log_sums"],
        "workspace": ["workspace"],
        "scalar": [argument.name for argument in half[13:]],
    }
    types = {argument.name: argument.c_type for argument in half}
    assert (types["queries"], types["outputs"], types["key_window"]) == (
        "const __half*",
        "__half*",
        "const __half*",
    )
    assert (types["softmax_scale"], types["softcap"], types["workspace"]) == ("float", "float", "void*")
    assert [argument.c_type for argument in half[-6:]] == ["int64_t"] * 6
    assert {argument.c_type for argument in half[13:17]} == {"int32_t"}
    assert [argument.c_type.replace("__nv_bfloat16", "__half") for argument in wide] == list(types.values())


def test_append_arguments() -> None:
    op = attention(dtype="bfloat16")
    arguments = op.append_arguments(*op.variants())
    assert " ".join(argument.name for argument in arguments) == (
        "keys values pages key_books value_books lengths counts page_table key_window value_window "
        "batch new_tokens page_table_stride page_blocks "
        "key_sequence_stride key_token_stride key_head_stride "
        "value_sequence_stride value_token_stride value_head_stride"
    )
    assert roles(arguments) == {
        "input": ["keys", "values", "lengths", "counts", "page_table"],
        "inout": ["pages", "key_window", "value_window"],
        "weights": ["key_books", "value_books"],
        "scalar": [argument.name for argument in arguments[10:]],
    }
    assert [argument.c_type for argument in arguments[:3]] == [
        "const __nv_bfloat16*",
        "const __nv_bfloat16*",
        "uint8_t*",
    ]
    assert arguments[8].c_type == "__nv_bfloat16*"


def parameters(source: str, kernel: str) -> list[tuple[str, str]]:
    """Types and names of a kernel's parameters, in the op's words."""
    text = source.split(f" {kernel}(", 1)[1].split(")", 1)[0]
    words = {"Element": "__half", "uint8": "uint8_t", "int": "int32_t", "long long": "int64_t"}
    found = [each.strip().rsplit(" ", 1) for each in text.split(",")]
    pattern = re.compile(r"\b(long long|Element|uint8|int)\b")
    return [(pattern.sub(lambda match: words[match[0]], c_type), name) for c_type, name in found]


def test_the_order_is_that_of_the_kernels() -> None:
    op = attention()
    (variant,) = op.variants()
    for arguments, source, kernel in (
        (op.arguments(variant), attention_source(Case()), "attend"),
        (op.append_arguments(variant), append_source(Case()), "append_many"),
    ):
        expected = parameters(source, kernel)
        types = [argument.c_type.replace("void*", "uint8_t*") for argument in arguments]
        assert types == [c_type for c_type, _ in expected]
        # Strides have short names there.
        names = [argument.name for argument in arguments]
        assert names[:-6] == [name for _, name in expected[:-6]]
    shape = attention_source(Case()).split("struct Shape {")[1].split("};")[0]
    constants = re.findall(r"(k[A-Z]\w*) =", shape)
    assert [constant.name for constant in op.problem_constants()] == constants


def test_only_what_is_never_read_may_be_null() -> None:
    bare = attention()
    whole = attention(window=32, page_size=128, rope="half")
    (variant,) = bare.variants()
    windows = {"key_window", "value_window"}
    assert optional(bare.arguments(variant)) == {
        "book_facts",
        "log_sums",
        "rotations",
        "page_table",
        *windows,
    }
    assert optional(whole.arguments(variant)) == {"book_facts", "log_sums"}
    assert optional(bare.append_arguments(variant)) == {"counts", "page_table", *windows}
    assert optional(whole.append_arguments(variant)) == {"counts"}


def test_lists_of_every_op_are_read_alike() -> None:
    assert as_list([2, 1]) == as_list((2, 1)) == distinct((2, 1)) == (2, 1)
    assert as_list(3) == (3,)
    assert gemv(m=[2, 1], dtype="bfloat16").m == attention(batch=[2, 1]).batch
    with pytest.raises(ValidationError, match="2 stands twice"):
        gemv(m=[2, 1, 2])
