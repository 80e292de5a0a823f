"""torch.ops.vqcc.attend and append: attention over a quantized KV cache, and new tokens into it.

`append` declares that it writes pages and windows; `attend` is functional, as the linear operator is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vqcc.torch.arrays import address
from vqcc.torch.attention_emulation import emulate_append, emulate_attend
from vqcc.torch.attention_launch import AppendArguments, AttendArguments
from vqcc.torch.attention_runtime import AttentionRuntime, CacheTensors
from vqcc.torch.operators import OPERATORS
from vqcc.torch.runtime import current_stream, on_device, registered

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["AttentionRuntime", "append", "attend", "launch_append", "launch_attend"]

_ATTEND = (
    "attend(Tensor queries, Tensor pages, Tensor key_books, Tensor value_books, Tensor? book_facts, Tensor? rotations, "
    "Tensor lengths, Tensor? page_table, Tensor? key_window, Tensor? value_window, Tensor? workspace, "
    "float softmax_scale, float softcap, bool log_sums, str library) -> (Tensor, Tensor)"
)
_APPEND = (
    "append(Tensor keys, Tensor values, Tensor(a!) pages, Tensor key_books, Tensor value_books, Tensor lengths, "
    "Tensor? counts, Tensor? page_table, Tensor(b!)? key_window, Tensor(c!)? value_window, str library) -> ()"
)
for _schema in (_ATTEND, _APPEND):
    OPERATORS.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
attend: Any = torch.ops.vqcc.attend.default
append: Any = torch.ops.vqcc.append.default


class Attend:
    """An `attend` call: operands that have been checked, and outputs that are not yet written."""

    def __init__(
        self,
        queries: Tensor,
        pages: Tensor,
        key_books: Tensor,
        value_books: Tensor,
        book_facts: Tensor | None,
        rotations: Tensor | None,
        lengths: Tensor,
        page_table: Tensor | None,
        key_window: Tensor | None,
        value_window: Tensor | None,
        workspace: Tensor | None,
        softmax_scale: float,
        softcap: float,
        log_sums: bool,
        library: str,
    ) -> None:
        runtime: AttentionRuntime = registered(library)
        op = runtime.library.op
        self.runtime = runtime
        self.dtype = runtime.check_tokens("queries", queries, op.q_heads, op.query_tokens)
        self.books = {
            "key_books": key_books,
            "value_books": value_books,
            "book_facts": book_facts,
            "rotations": rotations,
        }
        runtime.check_books(self.books, queries.device)
        self.cache = CacheTensors(
            pages, key_books, value_books, lengths, page_table, key_window, value_window
        )
        runtime.check_cache(queries, self.cache)
        if op.softcap and not softcap > 0:
            raise ValueError(f"library {runtime.library.name} caps scores: softcap must be more than 0")
        self.queries, self.workspace = queries, workspace
        self.softmax_scale, self.softcap = softmax_scale, softcap
        self.outputs = torch.empty(queries.shape, dtype=queries.dtype, device=queries.device)
        # An empty tensor stands for log-sum-exps that are not wanted: operators return no optional ones.
        shape = queries.shape[:3] if log_sums else (0,)
        self.log_sums = torch.empty(shape, dtype=torch.float32, device=queries.device)

    @property
    def results(self) -> tuple[Tensor, Tensor]:
        """What the operator returns."""
        return self.outputs, self.log_sums


def launch_attend(call: Attend, device: int) -> None:
    """Launch on the current stream of CUDA device number `device`, where all tensors are."""
    launches, loaded = call.runtime.loaded(device)
    queries, cache = _tokens(call.queries), call.cache
    lengths, table = cache.lengths.contiguous(), _rows(cache.page_table)
    args = AttendArguments(
        queries.data_ptr(),
        cache.pages.data_ptr(),
        cache.key_books.data_ptr(),
        cache.value_books.data_ptr(),
        address(call.books["book_facts"]),
        address(call.books["rotations"]),
        lengths.data_ptr(),
        address(table),
        address(cache.key_window),
        address(cache.value_window),
        call.outputs.data_ptr(),
        address(call.log_sums if call.log_sums.dim() > 1 else None),
        address(call.workspace),
        queries.shape[0],
        queries.shape[1],
        *call.runtime.page_numbers(cache._replace(page_table=table)),
        call.softmax_scale,
        call.softcap,
        *_steps(queries),
        *_steps(call.outputs),
        call.dtype,
        call.runtime.overlap,
    )
    needed = call.runtime.workspace_bytes
    if call.workspace is None or call.workspace.numel() < needed:
        raise ValueError(
            f"attention needs a workspace of {needed} bytes: take it from library.workspace(device)"
        )
    _launched(call.runtime, on_device(device, lambda: launches.launch(loaded, args, current_stream(device))))


class Append:
    """An `append` call: operands that have been checked."""

    def __init__(
        self,
        keys: Tensor,
        values: Tensor,
        pages: Tensor,
        key_books: Tensor,
        value_books: Tensor,
        lengths: Tensor,
        counts: Tensor | None,
        page_table: Tensor | None,
        key_window: Tensor | None,
        value_window: Tensor | None,
        library: str,
    ) -> None:
        runtime: AttentionRuntime = registered(library)
        op = runtime.library.op
        self.runtime = runtime
        self.dtype = runtime.check_tokens("keys", keys, op.kv_heads, op.context)
        runtime.check_tokens("values", values, op.kv_heads, op.context)
        if keys.shape != values.shape or keys.dtype != values.dtype or keys.device != values.device:
            raise ValueError(
                f"keys are {keys.dtype} {list(keys.shape)} on {keys.device}, values {values.dtype} "
                f"{list(values.shape)} on {values.device}: they must agree"
            )
        books: dict[str, Tensor | None] = {"append_key_books": key_books, "append_value_books": value_books}
        runtime.check_books(books, keys.device)
        self.cache = CacheTensors(
            pages, key_books, value_books, lengths, page_table, key_window, value_window
        )
        runtime.check_cache(keys, self.cache)
        if counts is not None:
            runtime.check_integers("counts", counts, (keys.shape[0],))
        self.keys, self.values, self.counts = keys, values, counts


def launch_append(call: Append, device: int) -> None:
    """Launch on the current stream of CUDA device number `device`, where all tensors are."""
    launches, loaded = call.runtime.loaded(device)
    keys, values, cache = _tokens(call.keys), _tokens(call.values), call.cache
    lengths, table = cache.lengths.contiguous(), _rows(cache.page_table)
    counts = None if call.counts is None else call.counts.contiguous()
    args = AppendArguments(
        keys.data_ptr(),
        values.data_ptr(),
        cache.pages.data_ptr(),
        cache.key_books.data_ptr(),
        cache.value_books.data_ptr(),
        lengths.data_ptr(),
        address(counts),
        address(table),
        address(cache.key_window),
        address(cache.value_window),
        keys.shape[0],
        keys.shape[1],
        *call.runtime.page_numbers(cache._replace(page_table=table)),
        *_steps(keys),
        *_steps(values),
        call.dtype,
        call.runtime.overlap,
    )
    _launched(call.runtime, on_device(device, lambda: launches.append(loaded, args, current_stream(device))))


def _launched(runtime: AttentionRuntime, status: str) -> None:
    if status != "OK":
        raise ValueError(
            f"library {runtime.library.name} refuses the launch ({status}): cache and codebooks must be contiguous, "
            "aligned to 16 bytes, and as library.cache() and library.books() make them"
        )


def _tokens(tokens: Tensor) -> Tensor:
    """Tokens where they lie if the channels of a head are neighbours, else a copy."""
    return tokens if tokens.stride(3) == 1 else tokens.contiguous()


def _rows(table: Tensor | None) -> Tensor | None:
    return table if table is None or table.stride(1) == 1 else table.contiguous()


def _steps(tokens: Tensor) -> tuple[int, int, int]:
    """Elements between sequences, tokens and heads."""
    sequence, token, head, _ = tokens.stride()
    return sequence, token, head


def _attend_on_cuda(queries: Tensor, *operands: Any) -> tuple[Tensor, Tensor]:
    call = Attend(queries, *operands)
    if call.outputs.numel():
        launch_attend(call, queries.device.index)
    return call.results


def _attend_on_cpu(queries: Tensor, *operands: Any) -> tuple[Tensor, Tensor]:
    call = Attend(queries, *operands)
    if call.outputs.numel():
        emulate_attend(call)
    return call.results


def _attend_on_meta(queries: Tensor, *operands: Any) -> tuple[Tensor, Tensor]:
    return Attend(queries, *operands).results


def _append_on_cuda(keys: Tensor, *operands: Any) -> None:
    call = Append(keys, *operands)
    if keys.numel():
        launch_append(call, keys.device.index)


def _append_on_cpu(keys: Tensor, *operands: Any) -> None:
    call = Append(keys, *operands)
    if keys.numel():
        emulate_append(call)


def _append_on_meta(keys: Tensor, *operands: Any) -> None:
    Append(keys, *operands)


OPERATORS.impl("attend", _attend_on_cuda, "CUDA")
OPERATORS.impl("attend", _attend_on_cpu, "CPU")
OPERATORS.impl("append", _append_on_cuda, "CUDA")
OPERATORS.impl("append", _append_on_cpu, "CPU")
for _name, _fake in (("attend", _attend_on_meta), ("append", _append_on_meta)):
    OPERATORS.impl(_name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"vqcc::{_name}", _fake, lib=OPERATORS)
