"""docs/performance.md says what the results files say: its tables, averages, ranges and worst cases."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from libraries import FakeToolchain

from vqcc import gpus
from vqcc.building import build_library
from vqcc.diagnostics import VqccError
from vqcc.spec.load import parse_spec

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
#: Tables of results that there may be none of yet: the page is held to those that there are.
LATER = [
    ("h200/gemv-curves", 1),
    ("h200/gemv-random", 1),
    ("h200/gemv-overlap", 1),
    ("h200/attention-levels", 3),
    ("h200/attention-rotated", 1),
    ("h200/gemm-best", 7),
    ("h200/gemm-levels", 2),
    ("h200/engine-layer", 1),
    ("h200/torch-op", 1),
]
THERE = [case for case in LATER if (RESULTS / f"{case[0]}.json").exists()]


@pytest.fixture
def page() -> str:
    return (ROOT / "docs" / "performance.md").read_text()


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((RESULTS / f"{name}.json").read_text())["rows"]
    return found


def flat(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("h200/gemv-levels", 2),
        ("h200/gemv-baseline", 2),
        ("h200/gemv-hot", 1),
        ("h200/gemv-best", 5),
        ("h200/gemv-candidates", 1),
        ("resources", 2),
        *THERE,
    ],
)
def test_tables(name: str, count: int, page: str, bench: Any) -> None:
    """Line for line, and with nothing else between the lines of one table."""
    tables = "\n".join(bench("tables").tables(rows(name))).strip().split("\n\n")
    assert len(tables) == count
    for table in tables:
        assert f"\n\n{table}\n\n" in page


def test_claims(page: str, bench: Any) -> None:
    claims = bench("claims")
    missing = {
        name: text for name, text in claims.claims().items() if flat(claims.in_words(text)) not in flat(page)
    }
    assert not missing


def test_the_page_names_the_results_that_there_are(page: str) -> None:
    """Whether the page may have them yet or not: each with its file, and curves with their plot."""
    for name, _ in LATER:
        assert (f"`bench/results/{name}.json`" in page) == (name in dict(THERE))
    drawn = (ROOT / "docs" / "images" / "gemv-curves.svg").exists()
    assert ("](images/gemv-curves.svg)" in page) == drawn == (("h200/gemv-curves", 1) in THERE)


def test_decoder_layers_of_every_spec_are_timed() -> None:
    """At each batch and context; what they are measured against is the same layer in fp16, of the same run."""
    specs = {path.stem for path in (ROOT / "examples" / "engine" / "specs").glob("*.yaml")} - {"tiny"}
    found = {(row["spec"], row["batch"], row["context"]): row for row in rows("h200/engine-layer")}
    assert set(found) == set(itertools.product(specs, (1, 4, 16), (1024, 8192, 65536)))
    assert {row["baseline"] for row in found.values()} == {"torch_fp16_compiled"}
    wanted = found["llama-3-70b-2bit", 1, 8192]
    assert (wanted["algorithm"], wanted["cache"]) == ("gptvq-2", "cq-2")
    assert wanted["baseline_us"] >= 2.5 * wanted["us"]


def test_every_row_is_within_its_bound(page: str) -> None:
    """Of what is timed with a check; what bench/light.py times has none."""
    checked = ["h200/gemv-levels", "h200/gemv-baseline", "h200/gemv-hot", "h200/gemv-best"]
    checked += [name for name, _ in THERE if "within_bound" in rows(name)[0]]
    for name in checked:
        assert all(row["within_bound"] for row in rows(name))
    assert page.count("within its bound") == len(checked)


def test_a_changed_result_is_noticed(page: str, bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of gc or best that were ten percent off, and the page would be wrong in several places."""
    claims = bench("claims")
    load = claims.load

    def changed(level: str) -> Any:
        def read(name: str) -> Any:
            document = load(name)
            if name == "gemv-levels":
                row = next(row for row in document["rows"] if row["level"] == level)
                row["us"] *= 1.1
            return document

        return read

    for level in ("gc", "best"):
        monkeypatch.setattr(claims, "load", changed(level))
        wrong = [text for text in claims.claims().values() if flat(claims.in_words(text)) not in flat(page)]
        assert len(wrong) >= 2


def test_the_baseline_in_words(page: str) -> None:
    """What the older section says of levels gc and sc."""
    found = {(r["algorithm"], r["level"], r["n"], r["k"], r["m"]): r for r in rows("h200/gemv-baseline")}
    spreads = sorted((row["us_max"] - row["us_min"]) / row["us"] for row in found.values())
    text = flat(page)
    assert (
        f"is at most {spreads[-1]:.1%} of the median, {median(spreads):.1%} in half".replace("%", " %")
        in text
    )
    gains = []
    for m in (1, 16):
        product, count = 1.0, 0
        for (algorithm, level, n, k, rows_of_x), row in found.items():
            if level == "sc" and rows_of_x == m:
                product *= row["us"] / found[algorithm, "gc", n, k, m]["us"]
                count += 1
        gains.append(f"{1 - product ** (1 / count):.1%}".replace("%", " %"))
    assert f"Level sc beats gc by {gains[0]} at m = 1 and {gains[1]} at m = 16" in text
    reached = {key: row["floor_us"] / row["us"] for key, row in found.items()}
    for algorithm in ("vq-4-8-1", "vq-2-8-1"):
        own = {key: share for key, share in reached.items() if key[0] == algorithm}
        best = max(own, key=lambda key: own[key])
        assert best[1] == "sc"
        assert best[4] == 1
        assert f"{own[best]:.0%}".replace("%", " %") in text
        assert f"({algorithm} sc, {best[2]} x {best[3]})" in text
    slower = [found["aqlm-3", level, 11008, 4096, 1]["us"] for level in ("sc", "gc")]
    assert f"aqlm-3 at 11008 x 4096: {slower[0]:.1f} us against {slower[1]:.1f}" in text


def test_resources_in_words(page: str) -> None:
    """No kernel spills, and how many have the blocks that were predicted."""
    found = rows("resources")
    assert not any(row["stack_bytes"] + row["spill_bytes"] for row in found)
    kept = sum(row["compiled_blocks"] >= row["predicted_blocks"] for row in found)
    assert f"{kept} of {len(found)} kernels have at least the blocks per SM that were predicted" in flat(page)
    assert {row["gpu"] for row in found} >= {"h200", "rtx4090"}
    assert {row["level"] for row in found} == {"o1", "o2", "o3", "o4"}
    fewer = [row for row in found if row["compiled_blocks"] < row["predicted_blocks"]]
    assert {(row["gpu"], row["algorithm"], row["n"], row["k"], row["m"]) for row in fewer} == {
        ("rtx4090", "aqlm-3", 8192, 22016, 1)
    }
    assert {(row["predicted_blocks"], row["compiled_blocks"]) for row in fewer} == {(2, 1)}
    assert all(row["replans"] > 0 for row in fewer)


def test_what_the_sanitizer_covers(page: str, bench: Any) -> None:
    """Every case of the program but those that cannot be planned, as many as its results file has."""
    program = bench("sanitize")
    built: dict[Any, Path | str] = {}
    for case in program.all_cases():
        try:
            spec = parse_spec(case.spec("x", "h200"), "spec.yaml")
            build_library(spec, toolchain=FakeToolchain(), cache=None)
            built[case] = Path("library")
        except VqccError as error:
            built[case] = error.diagnostics[0].code
    report = bench("sanitizing").covered(built.items())
    dataflows = json.loads((RESULTS / "h200" / "gemv-dataflows-sanitizer.json").read_text())
    assert all(found["clean"] for found in dataflows["tools"].values())
    assert not dataflows["left_out"]
    assert len(dataflows["libraries"]) == len(program.cases_past_the_paper())
    assert f"over {len(dataflows['libraries'])} libraries of one kernel each" in flat(page)
    left_out = {(case["algorithm"], case["level"], case["reason"]) for case in report["left_out"]}
    several_books = ("gptvq-2", "gptvq-4", *program.OTHERS)
    assert left_out == {("aqlm-1x16", "sc", "VQ0403"), *((name, "o2", "VQ0406") for name in several_books)}
    sanitized = json.loads((RESULTS / "h200" / "gemv-sanitizer.json").read_text())
    covered = json.loads(json.dumps(report["libraries"]))
    # What the compiler of that machine could not make, this one can.
    spilled = [case for case in sanitized["left_out"] if "VQ0607" in case["reason"]]
    assert [(case["algorithm"], case["level"], case["n"], case["k"]) for case in spilled] == [
        ("aqlm-3", "o4", 1024, 4096)
    ]
    assert "o4 of aqlm-3 at 1024 x 4096" in flat(page)
    alone = [{key: value for key, value in case.items() if key != "reason"} for case in spilled]
    assert [case for case in covered if case not in alone] == sanitized["libraries"]
    best = [case for case in sanitized["libraries"] if case["level"] == "best"]
    assert len(best) == len(program.all_cases(["best"]))
    assert f"Level best is among them: {len(best)} libraries" in flat(page)
    assert {case["level"] for case in covered} == {"gc", "sc", "o1", "o2", "o3", "o4", "best"}
    assert {(case["n"], case["k"]) for case in covered} == set(program.SHAPES)
    assert "left out are sc of aqlm-1x16 and o2 of gptvq-2, gptvq-4 and the two families" in flat(page)


def test_the_cost_ratio_is_the_papers_everywhere() -> None:
    """As docs/gpus.md says; a GPU on which it is measured changes that page."""
    facts = [gpus.load(name).shared_roundtrip_per_shuffle for name in gpus.names()]
    assert {fact.value for fact in facts} == {5.0}
    assert {fact.confidence for fact in facts} <= {"derived", "measured"}
    text = flat((ROOT / "docs" / "gpus.md").read_text())
    assert f"All {len(facts)} files carry the paper's 5" in text
