"""torch.ops.vqcc: attend, attend_with_log_sums and append, over a quantized KV cache.

`append` declares that it writes pages and windows; those that attend are functional, as the linear operator is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from vqcc.codegen.header import WORKSPACE_ALIGNMENT
from vqcc.torch.arrays import address
from vqcc.torch.attention_emulation import emulate_append, emulate_attend
from vqcc.torch.attention_launch import AppendArguments, AttendArguments
from vqcc.torch.attention_runtime import AppendPacked, AttendPacked, AttentionRuntime
from vqcc.torch.operators import OPERATORS
from vqcc.torch.runtime import current_stream, on_device, registered

if TYPE_CHECKING:
    from torch import Tensor

    from vqcc.codegen.contract import StatusName
    from vqcc.ops.base import Dtype

__all__ = ["AppendCall", "AttendCall", "append", "attend", "attend_with_log_sums"]

_ATTEND = (
    "(Tensor queries, Tensor key_books, Tensor value_books, Tensor? book_facts, Tensor? rotations, Tensor pages, "
    "Tensor? key_window, Tensor? value_window, Tensor lengths, Tensor? page_table, Tensor? workspace, "
    "float softmax_scale, float softcap, str library) -> "
)
_APPEND = (
    "(Tensor keys, Tensor values, Tensor key_books, Tensor value_books, Tensor(a!) pages, Tensor(b!)? key_window, "
    "Tensor(c!)? value_window, Tensor lengths, Tensor? page_table, Tensor? counts, str library) -> ()"
)
for _schema in (
    f"attend{_ATTEND}Tensor",
    f"attend_with_log_sums{_ATTEND}(Tensor, Tensor)",
    f"append{_APPEND}",
):
    OPERATORS.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
attend: Any = torch.ops.vqcc.attend.default
attend_with_log_sums: Any = torch.ops.vqcc.attend_with_log_sums.default
append: Any = torch.ops.vqcc.append.default


class AttendCall(NamedTuple):
    """Operands that have been checked, and outputs that are not yet written."""

    runtime: AttentionRuntime
    dtype: Dtype
    queries: Tensor
    packed: AttendPacked
    lengths: Tensor
    page_table: Tensor | None
    softmax_scale: float
    softcap: float
    outputs: Tensor
    log_sums: Tensor | None

    @classmethod
    def of(cls, log_sums: bool, queries: Tensor, *operands: Any) -> AttendCall:
        """An operator's call; `operands` are those after queries."""
        *cache, lengths, page_table, workspace, softmax_scale, softcap, library = operands
        packed = AttendPacked(*(*cache, workspace))
        runtime: AttentionRuntime = registered(library)
        op = runtime.library.op
        dtype = runtime.check_tokens("queries", queries, runtime.heads[0], op.query_tokens)
        runtime.check_places(queries, packed, lengths, page_table)
        if op.softcap and not softcap > 0:
            raise ValueError(f"library {runtime.library.name} caps scores: softcap must be more than 0")
        shape = queries.shape
        sums = queries.new_empty(shape[:3], dtype=torch.float32) if log_sums else None
        # Not like queries, whose strides it would take over.
        outputs = queries.new_empty(shape)
        scales = (softmax_scale, softcap)
        return cls(runtime, dtype, queries, packed, lengths, page_table, *scales, outputs, sums)

    def launch(self, device: int) -> None:
        """Launch on the current stream of CUDA device number `device`, where all tensors are."""
        runtime = self.runtime
        launches, loaded = runtime.loaded(device)
        key_books, value_books, book_facts, rotations, pages, key_window, value_window, workspace = (
            self.packed
        )
        if workspace is None and runtime.workspace_bytes:
            raise runtime.needs_workspace()
        queries, lengths, table = _tokens(self.queries), self.lengths.contiguous(), _rows(self.page_table)
        batch, query_tokens = queries.shape[:2]
        args = AttendArguments(
            queries.data_ptr(),
            pages.data_ptr(),
            key_books.data_ptr(),
            value_books.data_ptr(),
            address(book_facts),
            address(rotations),
            lengths.data_ptr(),
            address(table),
            address(key_window),
            address(value_window),
            self.outputs.data_ptr(),
            address(self.log_sums),
            address(workspace),
            batch,
            query_tokens,
            0 if table is None else table.stride(0),
            pages.shape[1] // runtime.block_bytes,
            self.softmax_scale,
            self.softcap,
            *_steps(queries),
            *_steps(self.outputs),
            self.dtype,
            runtime.overlap,
        )
        _accepted(runtime, on_device(device, launches.launch, loaded, args, current_stream(device)))


class AppendCall(NamedTuple):
    """Operands that have been checked."""

    runtime: AttentionRuntime
    dtype: Dtype
    keys: Tensor
    values: Tensor
    packed: AppendPacked
    lengths: Tensor
    page_table: Tensor | None
    counts: Tensor | None

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, *operands: Any) -> AppendCall:
        """An operator's call; `operands` are those after values."""
        *cache, lengths, page_table, counts, library = operands
        packed = AppendPacked(*cache)
        runtime: AttentionRuntime = registered(library)
        context = runtime.library.op.context
        dtype = runtime.check_tokens("keys", keys, runtime.heads[1], context)
        runtime.check_tokens("values", values, runtime.heads[1], context)
        if keys.shape != values.shape or keys.dtype != values.dtype or keys.device != values.device:
            raise ValueError(
                f"keys are {keys.dtype} {list(keys.shape)} on {keys.device}, values {values.dtype} "
                f"{list(values.shape)} on {values.device}: they must agree"
            )
        runtime.check_places(keys, packed, lengths, page_table)
        if counts is not None:
            runtime.check_integers("counts", counts, (keys.shape[0],), keys.device)
        return cls(runtime, dtype, keys, values, packed, lengths, page_table, counts)

    def launch(self, device: int) -> None:
        """Launch on the current stream of CUDA device number `device`, where all tensors are."""
        runtime = self.runtime
        launches, loaded = runtime.loaded(device)
        key_books, value_books, pages, key_window, value_window = self.packed
        keys, values = _tokens(self.keys), _tokens(self.values)
        lengths, table = self.lengths.contiguous(), _rows(self.page_table)
        counts = None if self.counts is None else self.counts.contiguous()
        batch, new_tokens = keys.shape[:2]
        args = AppendArguments(
            keys.data_ptr(),
            values.data_ptr(),
            pages.data_ptr(),
            key_books.data_ptr(),
            value_books.data_ptr(),
            lengths.data_ptr(),
            address(counts),
            address(table),
            address(key_window),
            address(value_window),
            batch,
            new_tokens,
            0 if table is None else table.stride(0),
            pages.shape[1] // runtime.block_bytes,
            *_steps(keys),
            *_steps(values),
            self.dtype,
            runtime.overlap,
        )
        _accepted(runtime, on_device(device, launches.append, loaded, args, current_stream(device)))


def _accepted(runtime: AttentionRuntime, status: StatusName) -> None:
    if status != "OK":
        raise ValueError(
            f"library {runtime.library.name} refuses the launch ({status}): cache and codebooks must be aligned to 16 "
            f"bytes, the workspace to {WORKSPACE_ALIGNMENT}, as library.cache(), books() and workspace() make them"
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


def _attending(log_sums: bool, run: Any) -> Any:
    """An implementation of an operator that attends; `run` fills the outputs of a call."""

    def implementation(queries: Tensor, *operands: Any) -> Any:
        call = AttendCall.of(log_sums, queries, *operands)
        if call.outputs.numel():
            run(call)
        return (call.outputs, call.log_sums) if log_sums else call.outputs

    return implementation


def _appending(run: Any) -> Any:
    """An implementation of the operator that appends; `run` does what a call asks."""

    def implementation(keys: Tensor, *operands: Any) -> None:
        call = AppendCall.of(keys, *operands)
        if keys.numel():
            run(call)

    return implementation


def _nothing(call: AttendCall | AppendCall) -> None:
    """What is done without data."""


def _implement(name: str, make: Any, on_cpu: Any, tokens: str) -> None:
    OPERATORS.impl(name, make(lambda call: call.launch(getattr(call, tokens).device.index)), "CUDA")
    OPERATORS.impl(name, make(on_cpu), "CPU")
    OPERATORS.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"vqcc::{name}", make(_nothing), lib=OPERATORS)


_implement("attend", lambda run: _attending(False, run), emulate_attend, "queries")
_implement("attend_with_log_sums", lambda run: _attending(True, run), emulate_attend, "queries")
_implement("append", _appending, emulate_append, "keys")
