"""Specs of small models, as text."""

from __future__ import annotations

import json
from typing import Any

Layers = dict[str, Any]


def linear(n: int = 64, k: int = 256, *, algorithm: str = "aqlm-2x8", **more: Any) -> Layers:
    """A layer that multiplies by a weight [n, k]; `more` are further fields of it."""
    op = {"kind": "gemv", "m": 1, "n": n, "k": k}
    return {"algorithm": algorithm, "op": op, **more}


def attention(q_heads: int = 8, kv_heads: int = 4, **more: Any) -> Layers:
    """A layer over a KV cache."""
    op = {
        "kind": "attention_decode",
        "q_heads": q_heads,
        "kv_heads": kv_heads,
        "head_dim": 64,
        "batch": 2,
        "context": 256,
    }
    return {"algorithm": "cq-4", "op": op, **more}


def model_text(layers: Layers, /, **more: Any) -> bytes:
    """A model's spec; JSON is YAML. `more` are further fields, or others than usual."""
    document = {"vqcc": 1, "name": "small", "gpu": "h200", "level": "sc", "layers": layers, **more}
    kept = {field: value for field, value in document.items() if value is not None}
    return json.dumps(kept, indent=1).encode()
