"""Flows: how problems of an op become plans, and plans a source. Trials drive them (vqcc.trial)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

from vqcc import pipeline
from vqcc.codegen.render import render_source
from vqcc.codegen.render_cache import render_cache_source
from vqcc.passes.agreement import agree
from vqcc.passes.cache import pipeline as cache_pipeline
from vqcc.passes.cache.append import plan_appends
from vqcc.passes.cache.choice import CACHE_STRATEGIES, agree_on_cache
from vqcc.passes.choice import legal_strategies
from vqcc.plan import CachePlan, KernelPlan, Plan
from vqcc.problem import CacheProblem, KernelProblem, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.codegen.resources import Resources
    from vqcc.levels import Dataflow, Strategy
    from vqcc.passes.agreement import Agreed
    from vqcc.picks import TileIdentity

__all__ = ["CACHES", "WEIGHTS", "Flow"]

Problem_contra = TypeVar("Problem_contra", bound=KernelProblem, contravariant=True)
AnyPlan = TypeVar("AnyPlan", bound=KernelPlan)


class Flow(Protocol[Problem_contra, AnyPlan]):
    """The passes and the renderer of an op's kernels."""

    def agree(self, problems: Sequence[Problem_contra]) -> tuple[Agreed, ...]:
        """The dataflows that all kernels of a library can have, on all of its GPUs, the fastest in sum first."""
        ...

    def strategies(self, problem: Problem_contra, dataflow: Dataflow) -> tuple[Strategy, ...]:
        """What may make a kernel of a dataflow at level `best`."""
        ...

    def proposals(self, problem: Problem_contra, strategy: Strategy) -> Iterator[AnyPlan]:
        """Plans of every tile of a strategy that is worth timing, with predicted times, before they are compiled."""
        ...

    def traits(self, proposal: AnyPlan) -> object:
        """What tells the kernel of a proposal from others of its tile."""
        ...

    def plan_base(
        self, problem: Problem_contra, strategy: Strategy, attempt: int, pinned: TileIdentity | None
    ) -> AnyPlan | None:
        """Up to the tile, the op's proposal number `attempt`, or the one that is `pinned`. None: no more tiles."""
        ...

    def base_kernel(self, problem: Problem_contra, base: AnyPlan) -> AnyPlan:
        """The kernel with an empty codebook cache that is compiled to see what it leaves."""
        ...

    def plan_kernel(
        self, problem: Problem_contra, base: AnyPlan, resources: Resources | None, cut: int, *, hold: bool
    ) -> AnyPlan:
        """Fill the codebook cache, from the slack of the base kernel if the strategy says so."""
        ...

    def plan_compiled(self, problem: Problem_contra, plan: AnyPlan, resources: Resources) -> AnyPlan:
        """Launch the kernel with what the compiler says it needs, and predict its time."""
        ...

    def may_cut(self, problem: Problem_contra, plan: AnyPlan) -> bool:
        """Whether registers hold entries that the kernel could do without."""
        ...

    def render(self, problems: Sequence[Problem_contra], plans: Sequence[AnyPlan], mark: str = "") -> str:
        """The source of the plans' kernels; with `mark` of a whole library, which may have others too."""
        ...

    def kernels(
        self, problems: Sequence[Problem_contra], plans: Sequence[AnyPlan], mark: str
    ) -> tuple[str, ...]:
        """Names of all kernels that a library's source has; `mark` ends those that no plan is of."""
        ...


class _WeightFlow:
    """Ops over quantized weights."""

    def agree(self, problems: Sequence[Problem]) -> tuple[Agreed, ...]:
        return agree(problems, pipeline.estimate)

    def strategies(self, problem: Problem, dataflow: Dataflow) -> tuple[Strategy, ...]:
        return legal_strategies(problem, dataflow)

    def proposals(self, problem: Problem, strategy: Strategy) -> Iterator[Plan]:
        return pipeline.proposals(problem, strategy)

    def traits(self, proposal: Plan) -> object:
        return (proposal.placement, proposal.minimum_blocks, proposal.split, proposal.exchange)

    def plan_base(
        self, problem: Problem, strategy: Strategy, attempt: int, pinned: TileIdentity | None
    ) -> Plan | None:
        return pipeline.plan_base(problem, strategy, attempt, pinned)

    def base_kernel(self, problem: Problem, base: Plan) -> Plan:
        return pipeline.base_kernel(problem, base)

    def plan_kernel(
        self, problem: Problem, base: Plan, resources: Resources | None, cut: int, *, hold: bool
    ) -> Plan:
        return pipeline.plan_kernel(problem, base, resources, cut, hold=hold)

    def plan_compiled(self, problem: Problem, plan: Plan, resources: Resources) -> Plan:
        return pipeline.plan_compiled(problem, plan, resources)

    def may_cut(self, problem: Problem, plan: Plan) -> bool:
        assert plan.placement is not None
        return any(plan.placement.n_registers) and problem.boundaries.registers is None

    def render(self, problems: Sequence[Problem], plans: Sequence[Plan], mark: str = "") -> str:  # noqa: ARG002
        return render_source(problems, plans)

    def kernels(self, problems: Sequence[Problem], plans: Sequence[Plan], mark: str) -> tuple[str, ...]:  # noqa: ARG002
        return tuple(plan.kernel for plan in plans)


class _CacheFlow:
    """Attention: a library has kernels that append beside those that are planned."""

    def agree(self, problems: Sequence[CacheProblem]) -> tuple[Agreed, ...]:
        return agree_on_cache(problems, cache_pipeline.estimate)

    def strategies(self, problem: CacheProblem, dataflow: Dataflow) -> tuple[Strategy, ...]:  # noqa: ARG002
        return CACHE_STRATEGIES.get(dataflow, ())

    def proposals(self, problem: CacheProblem, strategy: Strategy) -> Iterator[CachePlan]:
        return cache_pipeline.proposals(problem, strategy)

    def traits(self, proposal: CachePlan) -> object:
        strategy = proposal.strategy  # what is cached, and how entries move, follows from these and the tile
        return (strategy.caching, strategy.fusion)

    def plan_base(
        self, problem: CacheProblem, strategy: Strategy, attempt: int, pinned: TileIdentity | None
    ) -> CachePlan | None:
        return cache_pipeline.plan_base(problem, strategy, attempt, pinned)

    def base_kernel(self, problem: CacheProblem, base: CachePlan) -> CachePlan:
        return cache_pipeline.base_kernel(problem, base)

    def plan_kernel(
        self,
        problem: CacheProblem,
        base: CachePlan,
        resources: Resources | None,
        cut: int,  # noqa: ARG002
        *,
        hold: bool,
    ) -> CachePlan:
        return cache_pipeline.plan_kernel(problem, base, resources, hold=hold)

    def plan_compiled(self, problem: CacheProblem, plan: CachePlan, resources: Resources) -> CachePlan:
        return cache_pipeline.plan_compiled(problem, plan, resources)

    def may_cut(self, problem: CacheProblem, plan: CachePlan) -> bool:  # noqa: ARG002
        return False

    def render(self, problems: Sequence[CacheProblem], plans: Sequence[CachePlan], mark: str = "") -> str:
        appends = plan_appends(problems, plans, mark) if mark else ()
        return render_cache_source(problems, plans, appends)

    def kernels(
        self, problems: Sequence[CacheProblem], plans: Sequence[CachePlan], mark: str
    ) -> tuple[str, ...]:
        appends = plan_appends(problems, plans, mark)
        return (*(plan.kernel for plan in plans), *(append.kernel for append in appends))


WEIGHTS: Flow[Problem, Plan] = _WeightFlow()
CACHES: Flow[CacheProblem, CachePlan] = _CacheFlow()
