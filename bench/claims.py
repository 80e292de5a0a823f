"""What docs/performance.md says, computed from the results files: sentences and cells, to paste there.

    python bench/claims.py

Tests hold the page against them: each must stand there, word for word.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from attention_tables import attended
from cliffs import CLIFF, DIP, cliffs
from ranking import summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

RESULTS = Path(__file__).parent / "results" / "h200"
#: Within so much of each other two times count as equal.
EQUAL = 0.02
#: So many of what goes wrong are named one by one.
NAMED = 5

Row = dict[str, Any]
Case = tuple[str, int, int, int]


def load(name: str) -> dict[str, Any]:
    """A results file of the H200."""
    document: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return document


class Times:
    """Microseconds of one results file by case, (algorithm, n, k, m), and level."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = {((row["algorithm"], row["n"], row["k"], row["m"]), row["level"]): row for row in rows}
        self.cases = list(dict.fromkeys(case for case, _ in self.rows))

    def us(self, case: Case, level: str) -> float:
        """Median of one row."""
        return float(self.rows[case, level]["us"])

    def ratios(self, level: str, base: str, *, m: int | None = None) -> dict[Case, float]:
        """Time of `level` over that of `base`, of the cases that have both."""
        return {
            case: self.us(case, level) / self.us(case, base)
            for case in self.cases
            if m in {None, case[3]} and (case, level) in self.rows and (case, base) in self.rows
        }


def claims() -> dict[str, str]:
    """All that the page says, by a short name."""
    new, old = (Times(load(f"gemv-{name}")["rows"]) for name in ("levels", "baseline"))
    return {
        "spread": spread(new),
        "best against gc": best_against_gc(new),
        "faster gc": faster_gc(new, old),
        "slower gc": slower_gc(new, old),
        "best against sc": best_against_sc(new, old),
        "rest": blas_and_predictions(new),
        "sanitizer": sanitizer(),
        "best past the paper": best_past_the_paper(load("gemv-best")["rows"]),
        "candidates": candidates(load("gemv-candidates")["rows"]),
        **dict(levels(new)),
        **{
            name: text
            for file, make in LATER.items()
            if (RESULTS / f"{file}.json").exists()
            for name, text in make(load(file)["rows"])
        },
    }


def spread(times: Times) -> str:
    """How far the replays of a row are apart."""
    widths = {key: (row["us_max"] - row["us_min"]) / row["us"] for key, row in times.rows.items()}
    ordered = sorted(widths.values())
    (worst, level), most = max(widths.items(), key=lambda item: item[1])
    below = max(1 - row["us_min"] / row["us"] for row in times.rows.values())
    half, most_rows = ordered[len(ordered) // 2], ordered[len(ordered) * 9 // 10]
    past, far_past = (sum(width > limit for width in ordered) for limit in (0.02, 0.3))
    return (
        f"The slowest replay is at most {half:.1%} of the median above the fastest in half of the {len(ordered)} rows, "
        f"{most_rows:.1%} in nine of ten; {past} rows exceed 2 %, {far_past} of them 30 %, and {describe(worst)}, "
        f"{level}, has {most:.0%}. It is single slow replays: no fastest one is more than {below:.1%} below its median."
    )


def best_against_gc(times: Times) -> str:
    """The average of the run itself."""
    cuts = {m: [1 - ratio for ratio in times.ratios("best", "gc", m=m).values()] for m in (None, 1, 16)}
    worst, most = 1 - min(cuts[None]), 1 - max(cuts[None])
    return (
        f"**Best takes {fmean(cuts[None]):.1%} less time than gc on average over these {len(cuts[None])} rows** "
        f"({fmean(cuts[1]):.1%} at m = 1, {fmean(cuts[16]):.1%} at m = 16; in the worst row {less(worst)}, "
        f"in the best {less(most)})"
    )


def faster_gc(new: Times, old: Times) -> str:
    """The same against whichever gc was faster."""
    cuts = {case: 1 - new.us(case, "best") / fastest(case, "gc", new, old) for case in new.cases}
    by_m = [fmean(cut for case, cut in cuts.items() if case[3] == m) for m in (1, 16)]
    shared = sum((case, "gc") in old.rows for case in new.cases)
    return (
        f"Against the faster gc of this file and the older `gemv-baseline.json`, which has {shared} of the rows, it is "
        f"{fmean(cuts.values()):.1%} ({by_m[0]:.1%} at m = 1, {by_m[1]:.1%} at m = 16)"
    )


def slower_gc(new: Times, old: Times) -> str:
    """The algorithms whose gc is slower than it was, and the others."""
    shared = [case for case in new.cases if (case, "gc") in old.rows]
    parts = []
    for algorithm in dict.fromkeys(case[0] for case in shared):
        changes = [new.us(case, "gc") / old.us(case, "gc") - 1 for case in shared if case[0] == algorithm]
        parts.append(
            f"{algorithm} {signed(median(changes))} ({signed(min(changes))} to {signed(max(changes))})"
        )
    worst = max(shared, key=lambda case: new.us(case, "gc") / old.us(case, "gc"))
    return (
        f"The gc of this run is not that of the older file, which is of an older commit: over the {len(shared)} rows "
        f"of both, its time differs by, in the median, {', '.join(parts)}. {describe(worst)} "
        f"went from {old.us(worst, 'gc'):.1f} to {new.us(worst, 'gc'):.1f} us."
    )


def best_against_sc(new: Times, old: Times) -> str:
    """In the run itself, and against the earlier sc."""
    largest = max(new.ratios("best", "sc").values())
    shared = [case for case in new.cases if (case, "sc") in old.rows]
    slower = [case for case in shared if new.us(case, "best") > old.us(case, "sc")]
    named = ", ".join(
        f"{describe(case)} ({new.us(case, 'best'):.1f} us, was {old.us(case, 'sc'):.1f})" for case in slower
    )
    return (
        f"Best takes {less(largest)} than sc in this run where it gains least. Against the sc of the older file it is "
        f"slower in {len(slower) or 'none'} of {len(shared)} rows{named and f': {named}'}."
    )


def blas_and_predictions(times: Times) -> str:
    """Best against cuBLAS, and against what was predicted."""
    rows = [times.rows[case, "best"] for case in times.cases]
    blas = [row["baseline_us"] / row["us"] for row in rows]
    predicted = [row["predicted_us"] / row["us"] for row in rows]
    return (
        f"It is {min(blas):.2f} to {max(blas):.2f} times as fast as cuBLAS fp16 at the same m, and faster in "
        f"{sum(ratio > 1 for ratio in blas)} of {len(blas)} rows. Predicted times of best are {min(predicted):.2f} to "
        f"{max(predicted):.2f} of the measured ones."
    )


def sanitizer() -> str:
    """Which tools found nothing, in how many libraries."""
    found = load("gemv-sanitizer")
    clean = [tool for tool, result in found["tools"].items() if result["clean"]]
    libraries = found["libraries"]  # older files have their number only
    count = libraries if isinstance(libraries, int) else len(libraries)
    return f"compute-sanitizer's {', '.join(clean[:-1])} and {clean[-1]} are clean over {count} libraries"


def best_past_the_paper(rows: Sequence[Row]) -> str:
    """Level best of every preset against cuBLAS, the floor and its prediction."""
    widths = sorted((row["us_max"] - row["us_min"]) / row["us"] for row in rows)
    predicted = [row["predicted_us"] / row["us"] for row in rows]
    faster = sum(row["baseline_us"] > row["us"] for row in rows)
    nearest = max(rows, key=lambda row: row["floor_us"] / row["us"])
    one = {(row["n"], row["k"]): row["baseline_us"] for row in rows if row["m"] == 1}
    four = [row for row in rows if row["m"] == 4]
    beaten = sum(row["us"] < one[row["n"], row["k"]] for row in four)
    return (
        f"{faster} of the {len(rows)} rows are faster than cuBLAS fp16. {beaten} of the {len(four)} at m = 4 are "
        f"faster than cuBLAS at m = 1 already. The nearest to its floor is {nearest['algorithm']} at {nearest['n']} x "
        f"{nearest['k']}, m = {nearest['m']}: {nearest['floor_us'] / nearest['us']:.0%}. Predicted times are "
        f"{min(predicted):.2f} to {max(predicted):.2f} of the measured ones. The slowest replay is at most "
        f"{widths[len(widths) // 2]:.1%} of the median above the fastest in half of the rows, "
        f"{widths[len(widths) * 9 // 10]:.1%} in nine of ten; single ones are far slower."
    )


def candidates(rows: Sequence[Row]) -> str:
    """How good the choice of least predicted time is."""
    found = summary(rows)
    return (
        f"The chosen candidate is within 10% of the best measured one in {found.near:.1%} of {found.problems} "
        f"problems, and takes {found.worst - 1:.0%} longer in the worst; the mean rank "
        f"correlation is {found.correlation:.2f}."
    )


def levels(times: Times) -> Iterator[tuple[str, str]]:
    """Each level against another one: cells of the table of differences."""
    sc, o4 = times.ratios("sc", "gc"), [times.ratios("o4", "gc", m=m).values() for m in (1, 16)]
    yield (
        "sc",
        f"{less(max(sc.values()))} to {less(min(sc.values()))} than gc, {less(fmean(sc.values()))} on average",
    )
    for level, base in (("o1", "sc"), ("o2", "o1"), ("o3", "o2")):
        ratios = times.ratios(level, base)
        apart = {case: ratio for case, ratio in ratios.items() if abs(ratio - 1) > EQUAL}
        text = f"within {EQUAL:.0%} of {base} in {len(ratios) - len(apart)} of {len(ratios)} rows"
        if len(apart) == 1:
            ((case, _),) = apart.items()
            text += (
                f"; {describe(case)} takes {times.us(case, level):.0f} us, {base} {times.us(case, base):.0f}"
            )
        elif apart:
            text += f", in the others {less(min(apart.values()))} to {less(max(apart.values()))}"
            case = min(apart, key=lambda case: apart[case])
            text += f"; {describe(case)} gains most, {times.us(case, level):.0f} us after {times.us(case, base):.0f}"
        yield level, text
    yield (
        "o4",
        "; ".join(
            f"m = {m}: {min(ratios):.2f} to {max(ratios):.2f} times gc"
            for m, ratios in zip((1, 16), o4, strict=True)
        ),
    )
    best = [1 - fmean(times.ratios("best", "gc", m=m).values()) for m in (1, 16)]
    yield "best", f"m = 1: {best[0]:.0%}, m = 16: {best[1]:.0%} less than gc"
    own = {case: ratio for case, ratio in times.ratios("best", "gc", m=1).items() if case[0] == "aqlm-3"}
    worst = max(own, key=lambda case: own[case])
    rest = [1 - ratio for case, ratio in own.items() if case != worst]
    yield (
        "aqlm-3",
        (
            f"Best is nearest to gc at {worst[1]} x {worst[2]} ({times.us(worst, 'best'):.1f} against "
            f"{times.us(worst, 'gc'):.1f} us), {min(rest):.0%} to {max(rest):.0%} below it elsewhere."
        ),
    )


def random_shapes(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Level best against cuBLAS at shapes that nobody tuned for: all of them, and of each m."""
    shapes = len({(row["n"], row["k"]) for row in rows})
    faster = sum(row["baseline_us"] > row["us"] for row in rows)
    yield (
        "random shapes",
        f"At {shapes} shapes drawn at random {faster} of {len(rows)} rows are faster than cuBLAS fp16 at the same m; "
        f"{against_blas(rows)}.",
    )
    for m in sorted({row["m"] for row in rows}):
        own = [row for row in rows if row["m"] == m]
        share = sum(row["baseline_us"] > row["us"] for row in own) / len(own)
        yield f"random shapes, m = {m}", f"At m = {m} {share:.0%} are faster; {against_blas(own)}."


def curves(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """Level best at every m: against cuBLAS, the steps of its curves, and one library against one for each m."""
    own, shared = ([row for row in rows if row["kind"] == kind] for kind in ("own", "shared"))
    faster = sum(row["baseline_us"] > row["us"] for row in own)
    yield (
        "curves",
        f"With a library for each m {faster} of {len(own)} rows are faster than cuBLAS fp16 at the same m; "
        f"{against_blas(own)}.",
    )
    yield "cliffs", f"With a library for each m {steps(own)}"
    yield "one library", one_library(own, shared)
    yield "cliffs of one library", f"With one library {steps(shared)}"


def steps(rows: Sequence[Row]) -> str:
    """The steps from one m to the next that are cliffs, and those that are dips."""
    found = [(curve, step) for curve in cliffs(rows) for step in curve.steps]
    up = [step.m for _, step in found if step.ratio > CLIFF]
    down = [(curve, step) for curve, step in found if step.ratio < DIP]
    curve, most = max(found, key=lambda pair: pair[1].ratio)
    places = ", ".join(f"{up.count(m)} from m = {m} to {m + 1}" for m in sorted(set(up)))
    text = (
        f"{len(up) or 'none'} of {len(found)} steps from one m to the next {'takes' if len(up) < 2 else 'take'} more "
        f"than {CLIFF} times as long{f' ({places})' if up else ''}, the largest {most.ratio:.2f} times "
        f"({curve.algorithm} {curve.n} x {curve.k}, m = {most.m} to {most.m + 1}); "
    )
    if not down:
        return text + f"none takes less than {DIP} times as long."
    down.sort(key=lambda pair: pair[1].ratio)
    named = ", ".join(
        f"{curve.algorithm} {curve.n} x {curve.k}, m = {step.m} to {step.m + 1} ({step.ratio:.2f})"
        for curve, step in down[:NAMED]
    )
    among = "" if len(down) <= NAMED else "among them "
    verb = "takes" if len(down) == 1 else "take"
    return text + f"{len(down)} {verb} less than {DIP} times as long: {among}{named}."


def one_library(own: Sequence[Row], shared: Sequence[Row]) -> str:
    """What it costs that all m share a layout and a few kernels, and the layout alone: where m is a kernel's bound."""
    times = {case_of(row): row["us"] for row in own}
    both = [row for row in shared if case_of(row) in times]
    ratios = {case_of(row): row["us"] / times[case_of(row)] for row in both}
    bound = {case_of(row): ratios[case_of(row)] for row in both if row["bound"] == row["m"]}
    bounds = sorted({row["bound"] for row in shared})
    worst, at_bound = (max(each, key=lambda case: each[case]) for each in (ratios, bound))
    return (
        f"One library for m {', '.join(map(str, bounds[:-1]))} and {bounds[-1]} takes {median(ratios.values()):.2f} "
        f"times as long as a library for each m in the median, {ratios[worst]:.2f} times in the worst row "
        f"({describe(worst)}); at these m {median(bound.values()):.2f} times, {bound[at_bound]:.2f} in the worst "
        f"({describe(at_bound)})."
    )


def overlapping(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """What a launch spares that may start while the one before it ends."""
    alone = {case_of(row): row["us"] for row in rows if not row.get("overlap")}
    spared = {case_of(row): alone[case_of(row)] - row["us"] for row in rows if row.get("overlap")}
    shares = [us / alone[case] for case, us in spared.items()]
    least, most = (choose(spared, key=lambda case: spared[case]) for choose in (min, max))
    yield (
        "overlapping launches",
        f"Overlapping spares {median(spared.values()):.1f} us a launch in the median, {median(shares):.0%} of it; "
        f"{spared[least]:.1f} us ({describe(least)}) to {spared[most]:.1f} us ({describe(most)}).",
    )


#: What is said of results that the page may not have yet, by the names of their files.
LATER: dict[str, Callable[[Sequence[Row]], Iterator[tuple[str, str]]]] = {
    "gemv-random": random_shapes,
    "gemv-curves": curves,
    "gemv-overlap": overlapping,
    "attention-levels": attended,
}


def against_blas(rows: Sequence[Row]) -> str:
    """How much faster than cuBLAS rows are, and the worst of them."""
    ratios = [row["baseline_us"] / row["us"] for row in rows]
    worst = rows[ratios.index(min(ratios))]
    return f"the median is {median(ratios):.2f} times as fast, the worst {min(ratios):.2f} ({describe(case_of(worst))})"


def case_of(row: Row) -> Case:
    """The case of a row."""
    return row["algorithm"], row["n"], row["k"], row["m"]


def fastest(case: Case, level: str, *files: Times) -> float:
    """The least time that any of the files has."""
    return min(times.us(case, level) for times in files if (case, level) in times.rows)


def less(ratio: float) -> str:
    """A ratio of times in words."""
    return f"{1 - ratio:.0%} less" if ratio <= 1 else f"{ratio - 1:.0%} more"


def signed(change: float) -> str:
    """A change in whole percent, with its sign."""
    return f"{round(100 * change):+d}%"


def describe(case: Case) -> str:
    """A case in words."""
    algorithm, n, k, m = case
    return f"{algorithm} {n} x {k} m {m}"


def in_words(text: str) -> str:
    """As the page writes it: a space before each percent sign."""
    return text.replace("%", " %").replace("  %", " %")


def main() -> None:
    """Print every claim."""
    for name, text in claims().items():
        print(f"{name}: {in_words(text)}\n")


if __name__ == "__main__":
    main()
