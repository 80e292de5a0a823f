"""Problems and plans of attention, from presets, without a compiler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.codegen.resources import Resources
from vqcc.levels import STRATEGIES, Strategy
from vqcc.ops.attention.model import AttentionDecode
from vqcc.passes.cache.pipeline import plan_base, plan_compiled, plan_kernel
from vqcc.problem import CacheProblem

if TYPE_CHECKING:
    from vqcc.levels import Level
    from vqcc.plan import CachePlan

__all__ = ["LENGTHS", "SLACK", "STRATEGY", "make_plan", "make_problem"]

#: Sequences of a launch; the op's bound on them.
LENGTHS = (70, 0, 33)
STRATEGY = {name: STRATEGIES[name] for name in ("gc", "sc", "o1", "o2", "o3", "o4")} | {
    "clusters": Strategy("none", dataflow="score", codebook_centric=True),
    "score": Strategy("none", dataflow="score"),
    "fragment": Strategy("none", dataflow="fragment"),
}
#: What a compiler is taken to say of every kernel.
SLACK = Resources(120, 0, 0, 0, 0, 0)


def make_problem(
    keys: str, values: str | None = None, level: Level = "best", gpu: str = "h200", **op: Any
) -> CacheProblem:
    """A kernel over presets of keys and values: two heads of 64 channels if nothing else is said."""
    fields = {"q_heads": 2, "kv_heads": 2, "head_dim": 64, "batch": len(LENGTHS), "context": 1024, **op}
    attention = AttentionDecode(kind="attention_decode", **fields)
    key, value = resolve(keys), resolve(values or keys)
    return CacheProblem("lib", key, value, attention, attention.variants()[0], gpus.load(gpu), level)


def make_plan(problem: CacheProblem, strategy: Strategy) -> CachePlan:
    """The plan of the op's first tile, as if its kernels took what SLACK says."""
    base = plan_base(problem, strategy)
    assert base is not None
    return plan_compiled(problem, plan_kernel(problem, base, SLACK), SLACK)
