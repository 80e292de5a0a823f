"""Packed arrays as a module: moved between devices and saved with a model, and known by their layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from vqcc.torch.arrays import carrier_of, tensor_of
from vqcc.torch.kinds import check_library

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from numpy.typing import NDArray

    from vqcc.torch.kinds import Kind
    from vqcc.torch.library import TorchLibrary

__all__ = ["PackedModule"]


class PackedModule(nn.Module):
    """Buffers of bits for the kernels of `library`, and the workspace that its launches share.

    Buffers are integers, so `half()` and `to(dtype)` leave them as they are. The state has the layout's id too;
    loading that of another layout raises RuntimeError.
    """

    #: Packed arrays that some libraries have, by kernel argument; those of others are None.
    PARTS: ClassVar[tuple[str, ...]]
    #: Of the libraries that read it.
    library_kind: ClassVar[Kind]
    workspace: Tensor | None

    def __init__(self, library: TorchLibrary[Any], arrays: Mapping[str, Tensor]) -> None:
        super().__init__()
        check_library(self.library_kind.packed, library, self.library_kind)
        self.library = library
        self._owns_workspace = False
        for name in self.PARTS:
            self.register_buffer(name, arrays.get(name))
        self.register_buffer("workspace", library.workspace(self.device), persistent=False)

    @classmethod
    def from_arrays(
        cls, library: TorchLibrary[Any], arrays: Mapping[str, NDArray[Any]], device: torch.device | str
    ) -> Self:
        """Of arrays as a packed file has them."""
        place = torch.device(device)
        return cls(library, {name: tensor_of(array, place) for name, array in arrays.items()})

    @classmethod
    def empty(cls, library: TorchLibrary[Any], device: torch.device | str = "cpu") -> Self:
        """Of zeros, for a state to be loaded into."""
        check_library(cls.library_kind.packed, library, cls.library_kind)
        arrays = {
            name: torch.zeros(shape or 0, dtype=carrier_of(dtype), device=device)
            for name, (dtype, shape) in library.expected_parts().items()
        }
        return cls(library, arrays)

    @property
    def device(self) -> torch.device:
        """Where the arrays are."""
        return next(self.buffers()).device

    def own_workspace(self) -> Self:
        """Give this module a workspace of its own, for launches beside others of the library; returns the module.

        One that it already owns stays: a captured CUDA graph may hold its address.
        """
        if not self._owns_workspace:
            self._owns_workspace = True
            self.workspace = self._make_workspace()
        return self

    def _make_workspace(self) -> Tensor | None:
        library = self.library
        return (library.new_workspace if self._owns_workspace else library.workspace)(self.device)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        device, workspace = self.device, self.workspace
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        # On the same device it stays, whatever `fn` made of it: captured CUDA graphs hold its address. Moved, it is a
        # copy; asking for another one also loads the kernels there, before anything can be captured.
        self.workspace = workspace if self.device == device else self._make_workspace()
        return self

    def get_extra_state(self) -> Tensor:
        """The layout's id, as a tensor, which every format of checkpoints can hold."""
        return torch.tensor(list(self.library.layout_id.encode()), dtype=torch.uint8)

    def set_extra_state(self, state: Tensor) -> None:
        """Check the id of a state that is loaded. Raises RuntimeError for another one's."""
        found = bytes(state.tolist()).decode("ascii", "replace")
        if found != self.library.layout_id:
            raise RuntimeError(
                f"the state has layout '{found}', library {self.library.name} reads {self.library.layout_id}: "
                "pack the tensor for this library"
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # Codes in buckets are as long as they are: take the state's length.
        for name, (_, shape) in self.library.expected_parts().items():
            own, new = getattr(self, name), state_dict.get(prefix + name)
            if isinstance(new, Tensor) and shape is None and own.shape != new.shape and new.dim() == 1:
                setattr(self, name, torch.empty(new.shape, dtype=own.dtype, device=own.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)
