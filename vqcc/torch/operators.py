"""The namespace of vqcc's custom operators, torch.ops.vqcc.

They are defined by PyTorch's low-level interface: the decorator `torch.library.custom_op` costs ten microseconds a call
more (docs/decisions/018-torch.md). Autograd falls through to the operators, which refuse what asks for gradients.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["OPERATORS"]

#: Its methods have no types.
OPERATORS: Any = torch.library.Library("vqcc", "DEF")  # type: ignore[no-untyped-call]
