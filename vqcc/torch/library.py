"""What libraries over weights and over KV caches have in common for a PyTorch user."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

import torch

from vqcc.torch.errors import require_gpu

if TYPE_CHECKING:
    import os
    from pathlib import Path

    from torch import Tensor

    from vqcc.torch.attention import Cache
    from vqcc.torch.kinds import Kind
    from vqcc.torch.packed import PackedModule
    from vqcc.torch.runtime import Runtime

__all__ = ["TorchLibrary", "check_layout", "picked", "usable"]

AnyRuntime = TypeVar("AnyRuntime", bound="Runtime[Any]")


class TorchLibrary(ABC, Generic[AnyRuntime]):
    """What libraries over weights and over KV caches have in common."""

    kind: ClassVar[Kind]

    def __init__(self, runtime: AnyRuntime, directory: Path, rows: int | None = None) -> None:
        self._runtime = runtime
        # Its own, which may be another than that of the runtime, and wherever the process goes.
        self._directory = directory.absolute()
        self._rows = rows
        self._workspaces: dict[torch.device, Tensor | None] = {}
        self._identity = runtime.identity
        #: What packed data must carry to fit.
        self.layout_id: str = runtime.library.bundle.manifest["layout_id"]
        self.name: str = runtime.library.name
        #: Element types of x, or of queries, keys and values.
        self.dtypes: tuple[torch.dtype, ...] = tuple(runtime.types)
        #: GPUs that it was compiled for.
        self.gpus: tuple[str, ...] = runtime.library.gpus

    @abstractmethod
    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array; no shape: one dimension of any length."""

    @abstractmethod
    def workspace_bytes(self) -> int:
        """Device memory that a workspace of this library has; 0: launches need none."""

    def warm_up(self, device: torch.device | str | int = "cuda") -> None:
        """Load the kernels on a CUDA device: nothing can be loaded while a CUDA graph is captured.

        Weights and books that are made on a device, or moved to it, have done so. Raises RuntimeError without a driver
        and for a GPU that the library is not for.
        """
        place = _placed(torch.device(device))
        if place.type == "cuda":
            self._runtime.loaded(place.index)

    def workspace(self, device: torch.device) -> Tensor | None:
        """The workspace that weights of this library share on a device; None where launches need none.

        It is zero before the first launch, and each launch leaves it as the next one needs it, so launches that use it
        must follow one another: `own_workspace()` of a weight makes it independent of others.
        """
        place = _placed(device)
        if place not in self._workspaces:
            self._workspaces[place] = self.new_workspace(place)
        return self._workspaces[place]

    def new_workspace(self, device: torch.device) -> Tensor | None:
        """Another one, for launches beside those that use the shared one."""
        self.warm_up(device)
        size = self.workspace_bytes() if device.type == "cuda" else 0
        if not size:
            return None
        made = torch.zeros(size, dtype=torch.uint8, device=device)
        # Whatever stream launches first finds zeros.
        torch.cuda.current_stream(device).synchronize()
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> TorchLibrary[AnyRuntime]:
        return self  # a copied model runs the same kernels

    def __reduce__(self) -> tuple[Any, ...]:
        from vqcc.torch.loading import load

        overlap, cache = self._runtime.overlap, self._runtime.emulator_cache
        return partial(load, rows=self._rows, overlap=overlap, emulator_cache=cache), (str(self._directory),)

    if not TYPE_CHECKING:  # to which it would say that there is any attribute

        def __getattr__(self, name: str) -> Any:
            """Say, of what only libraries of the other kind have, what this one is and has."""
            message = f"{type(self).__name__!r} object has no attribute {name!r}"
            for other in TorchLibrary.__subclasses__():
                if name in vars(other) and not isinstance(self, other):
                    own = [
                        each
                        for each in vars(type(self))
                        if not each.startswith("_") and each not in {*dir(TorchLibrary), "kind"}
                    ]
                    message = (
                        f"library {vars(self).get('name')} is of {self.kind.serves}, and has no {name}, as those of "
                        f"{other.kind.serves} have: it has {', '.join(own)}"
                    )
            raise AttributeError(message, name=name, obj=self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, gpus={list(self.gpus)})"


def _placed(device: torch.device) -> torch.device:
    """The device with its number."""
    bare = device.type == "cuda" and device.index is None
    if bare:
        require_gpu(device)
    return torch.device("cuda", torch.cuda.current_device()) if bare else device


def usable(device: torch.device | str) -> torch.device:
    """The device as PyTorch has it. Raises RuntimeError for a GPU where there is none."""
    place = torch.device(device)
    require_gpu(place)
    return place


def check_layout(library: TorchLibrary[Any], packed: PackedModule | Cache) -> None:
    """Raise ValueError for what was packed or made for another layout."""
    if packed.library.layout_id != library.layout_id:
        raise ValueError(
            f"the {type(packed).__name__.lower()} has layout {packed.library.layout_id}, library {library.name} reads "
            f"{library.layout_id}: pack the tensor for this library"
        )


def picked(path: str | os.PathLike[str], packed: dict[str, Any], name: str | None) -> str:
    """The name asked for, or the only one. Raises ValueError."""
    held = ", ".join(packed) or "none"
    if name is None and len(packed) != 1:
        raise ValueError(f"{path} holds {held}: say which one by name")
    if name is not None and name not in packed:
        raise ValueError(f"{path} has no '{name}': it holds {held}")
    return next(iter(packed)) if name is None else name
