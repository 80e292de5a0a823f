"""Names that may reach emitted code."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.diagnostics import VqccError
from vqcc.spec.identifier import MAX_LENGTH, check_identifier, check_library_name, pattern, to_identifier
from vqcc.spec.load import parse_spec

C_IDENTIFIER = re.compile(r"[a-z][a-z0-9_]{0,62}\Z")


@pytest.mark.parametrize(
    "name", ["a", "a1", "a-b", "a_b", "llama7b-aqlm3-gemv", "a" * 63, "kernel", "vq-4-8-1"]
)
def test_good_names(name):
    assert check_identifier(name, "the name") == name
    assert C_IDENTIFIER.fullmatch(to_identifier(name))


@pytest.mark.parametrize(
    "name",
    [
        "", "A", "1a", "-a", "a-", "_a", "a_", "a--b", "a_-b", "a b", "a.b", "a/b", "a\\b", "a\n", "\na", "a\0",
        "é", "\u0430", "\uff41", "a\u0663", "a" * 64, "a;b", "a(b)", "#define", "a'", 'a"', "{{a}}",
        "${a}", "`a`", "a*/", "//a",
        "??/", "a\r", "a\u2028", "\u202ea", "..", "~", "a:b", "%s", "a,b", "a=b", "@a", "a+b",
    ],
)  # fmt: skip
def test_bad_names(name):
    with pytest.raises(ValueError, match="the name") as caught:
        check_identifier(name, "the name")
    assert caught.value.type == "VQ0207"
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "name",
    [
        "int", "float", "class", "struct", "for", "while", "return", "void", "switch", "default", "template",
        "namespace", "new", "delete", "this", "true", "nullptr", "and", "xor", "auto", "register", "restrict",
        "constexpr", "co-await", "static-assert", "thread-local", "char8-t", "half", "dim3", "unix",
        "linux", "main",
    ],
)  # fmt: skip
def test_reserved_names(name):
    with pytest.raises(ValueError, match="reserves") as caught:
        check_identifier(name, "the name")
    assert caught.value.type == "VQ0208"


@pytest.mark.parametrize("name", ["vqcc", "vqcc-weights", "vqcc_weights", "vqcc-driver", "vqccs"])
def test_names_of_our_own_headers(name):
    assert check_identifier(name, "a layer's name") == name
    with pytest.raises(ValueError, match="begin with vqcc") as caught:
        check_library_name(name, "the name")
    assert caught.value.type == "VQ0208"


@pytest.mark.parametrize("name", ["my-vqcc", "vqc", "a-vqcc-weights", "vq-cc"])
def test_names_that_are_not(name):
    assert check_library_name(name, "the name") == name


@pytest.mark.parametrize(("name", "code"), [("A", "VQ0207"), ("vqcc--x", "VQ0207"), ("int", "VQ0208")])
def test_names_of_libraries_are_identifiers(name, code):
    with pytest.raises(ValueError, match="the name") as caught:
        check_library_name(name, "the name")
    assert caught.value.type == code


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.text(max_size=80) | st.from_regex(pattern("_-"), fullmatch=True))
def test_what_passes_is_a_c_identifier_and_what_does_not_gets_a_usable_suggestion(name):
    try:
        check_identifier(name, "the name")
    except ValueError as error:
        help_text = error.context["help"]
        if ", such as " in help_text:
            suggestion = help_text.rsplit(", such as ", 1)[1]
            assert len(suggestion) <= MAX_LENGTH
            assert re.fullmatch("[a-z][a-z0-9_-]*", suggestion)
    else:
        assert C_IDENTIFIER.fullmatch(to_identifier(name))
        assert "__" not in to_identifier(name)


ATTACKS = [
    "*/ int x; /*", "a\n#include <evil.h>", "a\\\n#define b", '"; system("true"); //', "{{ 7*7 }}", "{% raw %}",
    "${HOME}", "$(true)", "`true`", "../../../etc/passwd", "/dev/null", "a\tb", "a;b", "\\u0061", "%n%s",
    "<script>",
    "__import__('os')", "!!python/object", "??/\n", "//", "/*", "R\"(", "_Pragma(\"x\")", "asm(\"trap;\")",
    "\u202eabc",
]  # fmt: skip
KMEANS = "family: kmeans, vector_size: 4, entries: 16"
FIELDS = {
    "name": "name: {}",
    "algorithm": "algorithm: {}",
    "family": "algorithm: {{family: {}, vector_size: 4, entries: 16}}",
    "codebook_dtype": f"algorithm: {{{{{KMEANS}, scope: tensor, scales: row, codebook_dtype: {{}}}}}}",
    "scope": f"algorithm: {{{{{KMEANS}, scope: {{}}, scales: row}}}}",
    "scales": f"algorithm: {{{{{KMEANS}, scope: tensor, scales: {{}}}}}}",
    "direction": f"algorithm: {{{{{KMEANS}, scope: tensor, scales: row, direction: {{}}}}}}",
    "kind": "op: {{kind: {}, m: [1], n: 8, k: 8}}",
    "n": "op: {{kind: gemv, m: [1], n: {}, k: 8}}",
    "dtype": "op: {{kind: gemv, m: [1], n: 8, k: 8, dtype: [{}]}}",
    "gpu": "gpu: {}",
    "gpu name": "gpu: {{name: {}}}",
    "gpu capability": "gpu: {{compute_capability: {}}}",
    "level": "level: {}",
    "key": "{}: 1",
}
REST = {
    "vqcc": "1",
    "name": "a",
    "algorithm": "vq-4-4-1",
    "op": "{kind: gemv, m: [1], n: 8, k: 8}",
    "gpu": "h200",
}


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("attack", ATTACKS)
def test_no_text_field_takes_code(field, attack):
    import json

    line = FIELDS[field].format(json.dumps(attack))
    rest = "\n".join(f"{key}: {value}" for key, value in REST.items() if not line.startswith(f"{key}:"))
    with pytest.raises(VqccError):
        parse_spec(f"{rest}\n{line}\n".encode(), "spec.yaml")
