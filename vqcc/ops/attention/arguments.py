"""Parameters of attention's kernels, in order: AttentionArguments and AppendArguments of the device headers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from vqcc.ops.base import Argument

if TYPE_CHECKING:
    from vqcc.ops.attention.model import AttentionDecode

__all__ = ["append_arguments", "attention_arguments"]


def attention_arguments(op: AttentionDecode, element: str) -> tuple[Argument, ...]:
    """Parameters of the kernel that attends; `element` is the CUDA type of queries, outputs and windows.

    What the op never reads may be null.
    """
    return (
        Argument(
            "queries", f"const {element}*", "input", "[batch, query_tokens, q_heads, head_dim], with strides"
        ),
        Argument("pages", "const uint8_t*", "input", "packed codes of keys and values"),
        *_books(),
        Argument(
            "book_facts",
            "const float*",
            "weights",
            "[heads, 2], of kernels that look rows of books up",
            optional=True,
        ),
        Argument(
            "rotations",
            "const uint8_t*",
            "weights",
            "[head_dim / 2], 64-bit turns from one position to the next",
            optional=op.rope == "none",
        ),
        Argument("lengths", "const int32_t*", "input", "[batch], tokens of sequences, query tokens included"),
        _page_table(op),
        *_windows(op, f"const {element}*", "input"),
        Argument(
            "outputs", f"{element}*", "output", "[batch, query_tokens, q_heads, head_dim], with strides"
        ),
        Argument(
            "log_sums",
            "float*",
            "output",
            "[batch, query_tokens, q_heads], logarithms of sums of exponentials, or null",
            optional=True,
        ),
        Argument("workspace", "void*", "workspace", "what blocks tell each other, zero at first"),
        Argument("batch", "int32_t", "scalar", "sequences"),
        Argument("query_tokens", "int32_t", "scalar", "of each sequence, its last ones"),
        *_page_sizes(op),
        Argument("softmax_scale", "float", "scalar", "what products of queries and keys are multiplied by"),
        Argument(
            "softcap", "float", "scalar", "more than 0, what scores are capped at if the op has a softcap"
        ),
        *_strides("q", "queries"),
        *_strides("out", "outputs"),
    )


def append_arguments(op: AttentionDecode, element: str) -> tuple[Argument, ...]:
    """Parameters of the kernels that append; `element` is the CUDA type of new keys and values and of windows."""
    return (
        Argument(
            "keys", f"const {element}*", "input", "[batch, new_tokens, kv_heads, head_dim], with strides"
        ),
        Argument(
            "values", f"const {element}*", "input", "[batch, new_tokens, kv_heads, head_dim], with strides"
        ),
        Argument("pages", "uint8_t*", "inout", "packed codes of keys and values"),
        *_books(),
        Argument("lengths", "const int32_t*", "input", "[batch], tokens of sequences, new ones included"),
        Argument(
            "counts",
            "const int32_t*",
            "input",
            "[batch], new tokens of sequences, or null: new_tokens each",
            optional=True,
        ),
        _page_table(op),
        *_windows(op, f"{element}*", "inout"),
        Argument("batch", "int32_t", "scalar", "sequences"),
        Argument("new_tokens", "int32_t", "scalar", "of each sequence, at most"),
        *_page_sizes(op),
        *_strides("key", "keys"),
        *_strides("value", "values"),
    )


def _books() -> tuple[Argument, ...]:
    return (
        Argument("key_books", "const uint8_t*", "weights", "codebooks of keys"),
        Argument("value_books", "const uint8_t*", "weights", "codebooks of values"),
    )


def _page_table(op: AttentionDecode) -> Argument:
    return Argument(
        "page_table",
        "const int32_t*",
        "input",
        "[batch, page_table_stride], pages of sequences; null for a contiguous cache",
        optional=not op.paged,
    )


def _windows(op: AttentionDecode, c_type: str, role: Literal["input", "inout"]) -> tuple[Argument, ...]:
    return tuple(
        Argument(
            f"{side}_window",
            c_type,
            role,
            "[batch, kv_heads, window, head_dim], position p at slot p % window",
            optional=op.window == 0,
        )
        for side in ("key", "value")
    )


def _page_sizes(op: AttentionDecode) -> tuple[Argument, ...]:
    blocks = (
        "blocks of 32 tokens of a page, of which the kernel is"
        if len(op.page_sizes) > 1
        else "blocks of 32 tokens of a sequence's page, if contiguous"
    )
    return (
        Argument("page_table_stride", "int32_t", "scalar", "entries of page_table between sequences"),
        Argument("page_blocks", "int32_t", "scalar", blocks),
    )


def _strides(prefix: str, of: str) -> tuple[Argument, ...]:
    return tuple(
        Argument(f"{prefix}_{axis}_stride", "int64_t", "scalar", f"elements between {axis}s of {of}")
        for axis in ("sequence", "token", "head")
    )
