"""Compiled libraries as PyTorch operators: eager, under torch.compile, and in CUDA graphs (docs/torch.md).

import vqcc.torch

library = vqcc.torch.load("out/gate")
weight = library.weight("packed.safetensors", device="cuda")
y = library.linear(x, weight)
"""

from __future__ import annotations

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"vqcc.torch needs PyTorch, which cannot be imported: {error}. Run: pip install 'vqcc[torch]'"
    ) from error

from vqcc.torch.attention import Attention, Books, Cache
from vqcc.torch.attention_library import AttentionLibrary
from vqcc.torch.linear import Linear, Weight
from vqcc.torch.linear_library import LinearLibrary
from vqcc.torch.loading import load, load_model

__all__ = [
    "Attention",
    "AttentionLibrary",
    "Books",
    "Cache",
    "Linear",
    "LinearLibrary",
    "Weight",
    "load",
    "load_model",
]
