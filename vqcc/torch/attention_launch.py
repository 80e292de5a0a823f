"""Launches of an attention library, checked and chosen as its C header does it; addresses and strides are numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.codegen.header import WORKSPACE_ALIGNMENT
from vqcc.workspaces import sufficient_of_kernels

if TYPE_CHECKING:
    from vqcc.cache_library import CacheLibrary
    from vqcc.codegen.contract import StatusName
    from vqcc.compiled import CompiledKernel
    from vqcc.ops.base import Dtype, Variant
    from vqcc.torch.kernels import LoadedKernels

__all__ = ["AppendArguments", "AttendArguments", "AttentionLaunches"]


class AttendArguments(NamedTuple):
    """The header's args: the kernel's parameters in their order, then what is asked."""

    queries: int
    pages: int
    key_books: int
    value_books: int
    book_facts: int
    rotations: int
    lengths: int
    page_table: int
    key_window: int
    value_window: int
    outputs: int
    log_sums: int
    workspace: int
    batch: int
    query_tokens: int
    page_table_stride: int
    page_blocks: int
    softmax_scale: float
    softcap: float
    q_sequence_stride: int
    q_token_stride: int
    q_head_stride: int
    out_sequence_stride: int
    out_token_stride: int
    out_head_stride: int
    dtype: Dtype
    overlap: bool = False


class AppendArguments(NamedTuple):
    """The header's append_args, so too."""

    keys: int
    values: int
    pages: int
    key_books: int
    value_books: int
    lengths: int
    counts: int
    page_table: int
    key_window: int
    value_window: int
    batch: int
    new_tokens: int
    page_table_stride: int
    page_blocks: int
    key_sequence_stride: int
    key_token_stride: int
    key_head_stride: int
    value_sequence_stride: int
    value_token_stride: int
    value_head_stride: int
    dtype: Dtype
    overlap: bool = False


def _reads(variant: Variant) -> tuple[str, int]:
    """The type and the page size of a variant's cache."""
    return variant.dtype, variant.sizes["page_tokens"]


_ATTEND, _APPEND = len(AttendArguments._fields) - 2, len(AppendArguments._fields) - 2


class AttentionLaunches:
    """What a library's header knows of launches on one of its GPUs."""

    def __init__(self, library: CacheLibrary, gpu: str) -> None:
        build = library.builds[gpu]
        for kernels, own in ((build.kernels, AttendArguments), (build.appends, AppendArguments)):
            for kernel in kernels:
                assert tuple(each.name for each in kernel.arguments) == own._fields[:-2]
        self.op, self._by_rows = library.op, library.by_rows
        self._kernels: tuple[CompiledKernel, ...] = build.in_cubin
        #: By type and page size: bounds on the batch, ascending, and the kernel's number and workspace bytes of each.
        self._attending: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        self._appending: dict[tuple[str, int, bool], int] = {}
        launches = [[kernel.launch for kernel in each.kernels] for each in library.builds.values()]
        variants = [kernel.variant for kernel in build.kernels]
        sufficient = sufficient_of_kernels(variants, "batch", launches)
        for number, (kernel, enough) in enumerate(zip(build.kernels, sufficient, strict=True)):
            bound = (kernel.variant.sizes["batch"], number, enough)
            self._attending.setdefault(_reads(kernel.variant), []).append(bound)
        for bounds in self._attending.values():
            bounds.sort()
        for number, append in enumerate(build.appends, len(build.kernels)):
            self._appending[*_reads(append.variant), append.single] = number

    def select(self, dtype: str, batch: int, page_blocks: int) -> int | None:
        """The number of the kernel that attends for `batch` sequences: that of the smallest bound that covers them.

        Where the library has several page sizes, of those for pages of `page_blocks` token blocks.
        """
        found = self._serving(dtype, batch, page_blocks)
        return None if found is None else found[0]

    def workspace_bytes(self, dtype: str, batch: int, page_blocks: int) -> int:
        """Device memory that suffices for `batch` sequences or fewer, on any GPU; 0 for what no kernel serves."""
        found = self._serving(dtype, batch, page_blocks) if batch >= 1 else None
        return 0 if found is None else found[1]

    def _serving(self, dtype: str, batch: int, page_blocks: int) -> tuple[int, int] | None:
        bounds = self._attending.get((dtype, self._page_tokens(page_blocks)), ())
        return next(((number, enough) for bound, number, enough in bounds if bound >= batch), None)

    def select_append(self, dtype: str, new_tokens: int, page_blocks: int) -> int | None:
        """The number of the kernel that appends so many tokens to each sequence."""
        return self._appending.get((dtype, self._page_tokens(page_blocks), new_tokens == 1))

    def _page_tokens(self, page_blocks: int) -> int:
        """Of the kernels of a launch: the library's one page size, or what the launch says."""
        return page_blocks * BLOCK_TOKENS if len(self.op.page_sizes) > 1 else self.op.page_tokens

    def _has_pages(self, page_blocks: int) -> bool:
        """Whether there are kernels for pages of so many blocks; with one page size, any number will do."""
        return page_blocks >= 0 and self._page_tokens(page_blocks) in self.op.page_sizes

    def supports(self, args: AttendArguments) -> StatusName:  # noqa: PLR0911  (a status each)
        """The header's status, less its prefix, for args without a host view: `OK`, or what is wrong."""
        op = self.op
        needed = (args.queries, args.pages, args.key_books, args.value_books, args.lengths, args.outputs)
        if (
            not all(needed)
            or (self._by_rows and not args.book_facts)
            or (op.rope != "none" and not args.rotations)
            or self._lacks_cache(args)
        ):
            return "ERROR_NULL_POINTER"
        if not (1 <= args.batch <= max(op.batch) and 1 <= args.query_tokens <= op.query_tokens) or (
            args.page_table_stride < 0 or not self._has_pages(args.page_blocks)
        ):
            return "ERROR_SIZE"
        if self.select(args.dtype, args.batch, args.page_blocks) is None:
            return "ERROR_TYPE"
        needs_workspace = self.workspace_bytes(args.dtype, args.batch, args.page_blocks) != 0
        if needs_workspace and not args.workspace:
            return "ERROR_NULL_POINTER"
        if op.softcap and not args.softcap > 0:
            return "ERROR_SOFTCAP"
        if not self._are_apart(args):
            return "ERROR_STRIDE"
        sixteen = args.pages | args.key_books | args.value_books | args.key_window | args.value_window
        four = args.book_facts | args.lengths | args.page_table | args.log_sums
        if (
            (args.queries | args.outputs) % 2
            or sixteen % 16
            or four % 4
            or args.rotations % 8
            or (needs_workspace and args.workspace % WORKSPACE_ALIGNMENT)
        ):
            return "ERROR_MISALIGNED"
        return "OK"

    def supports_append(self, args: AppendArguments) -> StatusName:
        """The same of new tokens to append."""
        needed = (args.keys, args.values, args.pages, args.key_books, args.value_books, args.lengths)
        if not all(needed) or self._lacks_cache(args):
            return "ERROR_NULL_POINTER"
        if not (1 <= args.batch <= max(self.op.batch) and 1 <= args.new_tokens <= self.op.context) or (
            args.page_table_stride < 0 or not self._has_pages(args.page_blocks)
        ):
            return "ERROR_SIZE"
        if self.select_append(args.dtype, args.new_tokens, args.page_blocks) is None:
            return "ERROR_TYPE"
        sixteen = args.pages | args.key_books | args.value_books | args.key_window | args.value_window
        four = args.lengths | args.counts | args.page_table
        if (args.keys | args.values) % 2 or sixteen % 16 or four % 4:
            return "ERROR_MISALIGNED"
        return "OK"

    def launch(self, loaded: LoadedKernels, args: AttendArguments, stream: int) -> StatusName:
        """Check `args`, and enqueue the kernel that serves them. Raises RuntimeError if the driver refuses."""
        status = self.supports(args)
        if status == "OK":
            number = self.select(args.dtype, args.batch, args.page_blocks)
            assert number is not None
            grid = self._kernels[number].launch.grid
            loaded.launch(number, grid, args[:_ATTEND], stream, overlap=args.overlap)
        return status

    def append(self, loaded: LoadedKernels, args: AppendArguments, stream: int) -> StatusName:
        """The same of new tokens to append."""
        status = self.supports_append(args)
        if status == "OK":
            number = self.select_append(args.dtype, args.new_tokens, args.page_blocks)
            assert number is not None
            grid = self._kernels[number].launch.grid
            loaded.launch(number, grid, args[:_APPEND], stream, overlap=args.overlap)
        return status

    def _lacks_cache(self, args: AttendArguments | AppendArguments) -> bool:
        """Whether pages or windows that the op has are not given."""
        op = self.op
        return bool(
            (op.paged and not args.page_table) or (op.window and not (args.key_window and args.value_window))
        )

    def _are_apart(self, args: AttendArguments) -> bool:
        """Whether no two elements of the outputs are the same: each axis steps over all that smaller steps span."""
        span: int = self.op.head_dim
        axes = (
            (args.out_head_stride, self.op.q_heads),
            (args.out_token_stride, args.query_tokens),
            (args.out_sequence_stride, args.batch),
        )
        for stride, count in sorted(axes, key=lambda axis: axis[0]):
            if count > 1:
                if stride < span or stride * count >= 1 << 63:
                    return False
                span = stride * count
        return True
