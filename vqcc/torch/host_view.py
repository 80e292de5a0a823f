"""What the host can check of a cache before a launch: `_check_cache` of the C header."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.cache_layouts import BLOCK_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.codegen.contract import StatusName
    from vqcc.ops.attention.model import AttentionDecode

__all__ = ["check_cache", "touched_tokens"]


def touched_tokens(op: AttentionDecode, new_tokens: int) -> int:
    """Newest tokens of a sequence that its launches touch, as the header's `_supports` have it; 0: all of them.

    Of those that attend with any legal number of query tokens, and that which appends `new_tokens`.
    """
    if not op.sliding_window:
        return 0
    return max(op.sliding_window + op.query_tokens - 1, new_tokens + op.window)


def check_cache(  # noqa: PLR0911  (a status each)
    op: AttentionDecode,
    lengths: Sequence[int],
    page_table: Sequence[Sequence[int]] | None,
    page_count: int,
    page_blocks: int,
    span: int = 0,
) -> StatusName:
    """The header's status, less its prefix: whether lengths are possible, and there are pages for them.

    Only pages of a sequence's last `span` tokens are looked at, of all with 0; `page_blocks` are a contiguous cache's,
    or those of a page where there are several sizes.
    """
    page_tokens = op.page_tokens or page_blocks * BLOCK_TOKENS
    for sequence, length in enumerate(lengths):
        if not 0 <= length <= op.context:
            return "ERROR_LENGTH"
        coded = max(0, length - op.window)
        if coded and not page_tokens:
            return "ERROR_CAPACITY"
        pages = -(-coded // page_tokens) if page_tokens else 0
        if not op.paged:
            if pages > 1:
                return "ERROR_CAPACITY"
            if pages and sequence >= page_count:
                return "ERROR_PAGE"
            continue
        if page_table is None:
            return "ERROR_NULL_POINTER"
        if pages > len(page_table[sequence]):
            return "ERROR_CAPACITY"
        first = 0 if span == 0 or span > length else (length - span) // page_tokens
        if not all(0 <= number < page_count for number in page_table[sequence][first:pages]):
            return "ERROR_PAGE"
    return "OK"
