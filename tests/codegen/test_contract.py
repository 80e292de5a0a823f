"""The contract of generated headers: one table of statuses, whose numbers every header has, and programs rely on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args

import pytest
from cache_libraries import build_fake_cache
from libraries import FakeToolchain, build_fake
from model_specs import attention, linear, model_text

from vqcc.codegen.contract import (
    ABI_VERSION,
    LIBRARIES,
    STATUSES,
    Header,
    StatusName,
    contract_values,
    names_of,
    statuses_of,
)
from vqcc.codegen.symbols import model_headers
from vqcc.codegen.text import Fragment
from vqcc.codegen.written_kernels import written_files
from vqcc.data_files import templates_directory
from vqcc.models import Model, parse_any
from vqcc.models.building import build_model

if TYPE_CHECKING:
    from collections.abc import Mapping

#: As programs were compiled with them: a number that is another here breaks them.
NUMBERS: Mapping[StatusName, int] = {
    "OK": 0,
    "ERROR_NULL_POINTER": 1,
    "ERROR_SIZE": 2,
    "ERROR_STRIDE": 3,
    "ERROR_MISALIGNED": 4,
    "ERROR_TYPE": 5,
    "ERROR_GPU": 6,
    "ERROR_LOAD": 7,
    "ERROR_SYMBOL": 8,
    "ERROR_SHARED_MEMORY": 9,
    "ERROR_LAUNCH": 10,
    "ERROR_CONTEXT": 11,
    "ERROR_LENGTH": 12,
    "ERROR_CAPACITY": 13,
    "ERROR_PAGE": 14,
    "ERROR_SOFTCAP": 15,
    "ERROR_LAYER": 16,
    "ERROR_BUILD": 17,
    "ERROR_OUT_OF_MEMORY": 18,
}
FACTS = {"gpus": "h200", "max_m": 7, "max_batch": 5, "max_context": 99}


@pytest.fixture(scope="module")
def headers() -> Mapping[Header, str]:
    """A header of each kind, of the prefix `small`."""
    model = parse_any(model_text({"q": linear(), "attention": attention()}), "small.yaml")
    assert isinstance(model, Model)
    files = build_model(model, toolchain=FakeToolchain(), cache=None).files
    kernels = written_files("small", "small", ["halve"], {"sm_90": b"cubin"}, arrays=True, machine=None)
    found: dict[Header, bytes] = {
        "weights": build_fake(name="small").files["small.h"],
        "cache": build_fake_cache(name="small").files["small.h"],
        "model": files["small.h"],
        "kernels": kernels["small.embedded.h"],
    }
    return {header: text.decode() for header, text in found.items()}


def test_numbers_and_names_stay() -> None:
    assert {status.name: status.number for status in STATUSES} == NUMBERS
    assert [status.name for status in STATUSES] == list(get_args(StatusName))
    assert [status.number for status in STATUSES] == list(range(len(STATUSES)))


def test_a_model_has_every_status() -> None:
    assert names_of("model") == tuple(NUMBERS)
    assert set(names_of("kernels")) < set(names_of("weights")) < set(names_of("cache")) < set(NUMBERS)


@pytest.mark.parametrize("header", get_args(Header))
def test_every_status_has_words_and_a_text_of_its_own(header: Header) -> None:
    texts = [status.text for status in statuses_of(header, FACTS)]
    assert len(set(texts)) == len(texts) == len(names_of(header))
    assert all(texts)
    for status in STATUSES:
        words = status.words.get(header)
        assert words is None or bool(words.remark) == (status.name != "OK")


def test_texts_have_the_facts_of_a_header() -> None:
    texts = {status.name: status.text for status in statuses_of("cache", FACTS)}
    assert "between 1 and 5" in texts["ERROR_SIZE"]
    assert "more than 99" in texts["ERROR_LENGTH"]
    assert texts["ERROR_GPU"].endswith("but for h200")
    assert "between 1 and 7" in {each.name: each.text for each in statuses_of("weights", FACTS)}["ERROR_SIZE"]
    with pytest.raises(KeyError, match="max_m"):
        contract_values("weights", gpus="h200")
    with pytest.raises(ValueError, match="not fit for a string"):
        statuses_of("kernels", {"gpus": '"'})
    assert all(type(each.text) is Fragment for each in statuses_of("model", FACTS))


@pytest.mark.parametrize("header", get_args(Header))
def test_headers_have_the_tables_statuses(header: Header, headers: Mapping[Header, str]) -> None:
    """Their enumerators and cases are those, and nothing that they return is none of them."""
    text = headers[header]
    numbers = re.findall(r"^  SMALL_(OK|ERROR_\w+) = (\d+),?(?:  *(/\* .* \*/))?$", text, re.MULTILINE)
    expected = [(status.name, str(status.number)) for status in STATUSES if header in status.words]
    assert [row[:2] for row in numbers] == expected
    assert [bool(remark) for _, _, remark in numbers] == [name != "OK" for name, _ in expected]
    cases = re.findall(r"^    case SMALL_(\w+): return \"", text, re.MULTILINE)
    assert cases == [name for name, _ in expected]
    assert set(re.findall(r"\bSMALL_(ERROR_\w+)", text)) <= set(names_of(header))
    assert f"#define SMALL_ABI_VERSION {ABI_VERSION}\n" in text


def test_templates_have_no_number_of_the_contract() -> None:
    """It comes from the table: a status, a version or a size of arguments that one writes down by hand is found."""
    files = sorted((templates_directory() / "host").glob("*.j2"))
    assert len(files) >= 10
    for file in files:
        text = file.read_text()
        assert not re.findall(r"_(?:OK|ERROR_\w+) = \d", text), file.name
        assert not re.findall(r"_ABI_VERSION \d", text), file.name
        assert not re.findall(r"args\) == \d", text), file.name


def test_statuses_are_symbols_that_no_other_header_may_have() -> None:
    assert {f"SMALL_{name}" for name in NUMBERS} <= model_headers("small", [], []).symbols


def test_sizes_of_arguments_are_asserted(headers: Mapping[Header, str]) -> None:
    assert "    sizeof(small_args) == 96 &&\n" in headers["weights"]
    assert "    sizeof(small_args) == 184 + sizeof(void*) &&\n" in headers["cache"]
    assert "    sizeof(small_append_args) == 152 + sizeof(void*) &&\n" in headers["cache"]
    for header in LIBRARIES:
        structs = re.findall(r"^\} (small_(?:\w+_)?args);$", headers[header], re.MULTILINE)
        assert structs == re.findall(
            r"^    sizeof\((small_(?:\w+_)?args)\) == ", headers[header], re.MULTILINE
        )
