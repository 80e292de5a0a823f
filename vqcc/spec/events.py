"""YAML events -> plain data with spans, refusing what a spec has no use for.

Values are built from the parser's events without recursion, so no input can exhaust the stack.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import DiagnosticList, Span
from vqcc.spec.scalars import resolve

if TYPE_CHECKING:
    import yaml

MAX_DEPTH = 32
MAX_NODES = 10_000
TOO_DEEP, TOO_DEEP_HELP = f"nested more than {MAX_DEPTH} deep", "a spec needs about four levels"
# Past this many, more of the same help nobody.
MAX_DIAGNOSTICS = 20

FieldPath = tuple[str | int, ...]

# What YAML 1.2 does not call printable, and the byte order mark inside a text. Written as what is refused:
# a class of all that is allowed takes milliseconds to compile.
NOT_PRINTABLE = re.compile(
    "[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f]|[\ud800-\udfff]|\ufeff|[\ufffe\uffff]"
)
# A key that no scalar of a file can be: text with this character is refused.
_NO_KEY = "\0"


@dataclass
class _Open:
    """A mapping or list under construction; `key` is the pending key of a mapping."""

    node: dict[str, Any] | list[Any]
    where: FieldPath
    start: Span
    key: str | None = None


@dataclass
class TreeBuilder:
    """Builds one document. After `run`: `root` if `has_root`, spans by path, and what was refused."""

    path: str
    most_nodes: int = MAX_NODES
    root: Any = None
    has_root: bool = False
    values: dict[FieldPath, Span] = field(default_factory=dict)
    keys: dict[FieldPath, Span] = field(default_factory=dict)
    diagnostics: DiagnosticList = field(default_factory=DiagnosticList)
    stack: list[_Open] = field(default_factory=list)
    nodes: int = 0
    documents: int = 0

    def run(self, text: str) -> None:
        """Consume the text; what is wrong with it is added to `diagnostics`."""
        import yaml

        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            for event in yaml.parse(text, Loader=loader):
                if not self._take(event) or len(self.diagnostics) >= MAX_DIAGNOSTICS:
                    return
        except yaml.MarkedYAMLError as error:
            self._syntax_error(error, text)
        except yaml.YAMLError as error:
            self.diagnostics.error("VQ0105", f"not YAML: {error}", span=Span(self.path, 1, 1))

    def _take(self, event: yaml.Event) -> bool:
        """Handle one event; False ends the parse."""
        import yaml

        if isinstance(event, yaml.NodeEvent):
            return self._node(event)
        if isinstance(event, yaml.CollectionEndEvent):
            self._close(event)
        elif isinstance(event, yaml.DocumentStartEvent):
            return self._document(event)
        return True

    def _document(self, event: yaml.DocumentStartEvent) -> bool:
        self.documents += 1
        if event.version or event.tags:
            self._refuse("VQ0107", "a YAML directive", event, "remove the line that starts with %")
        if self.documents > 1:
            self._refuse(
                "VQ0112", "a second YAML document", event, "one spec per file: remove the `---` line"
            )
            return False
        return True

    def _node(self, event: yaml.NodeEvent) -> bool:
        import yaml

        self.nodes += 1
        if self.nodes > self.most_nodes:
            message = f"the file has more than {self.most_nodes} YAML nodes"
            self._error("VQ0111", message, event, "split the file")
            return False
        if len(self.stack) >= MAX_DEPTH and isinstance(event, yaml.CollectionStartEvent):
            self._error("VQ0110", TOO_DEEP, event, TOO_DEEP_HELP)
            return False
        self._guard(event)
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)
        else:
            self._open({} if isinstance(event, yaml.MappingStartEvent) else [], event)
        return True

    def _guard(self, event: yaml.NodeEvent) -> None:
        import yaml

        if isinstance(event, yaml.AliasEvent):
            self._refuse("VQ0106", f"alias *{str(event.anchor)[:80]}", event, "write the value out")
        elif event.anchor is not None:
            self._refuse(
                "VQ0106", f"anchor &{event.anchor[:80]}", event, "remove it and write values out where needed"
            )
        tag = getattr(event, "tag", None)
        if tag is not None:
            self._refuse("VQ0107", f"tag {tag[:80]}", event, "remove it; quote a value to make it text")

    def _alias(self, event: yaml.AliasEvent) -> None:
        if self._expects_key():
            self.stack[-1].key = _NO_KEY
        else:
            self._place(None, event)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        bad = NOT_PRINTABLE.search(event.value)
        if bad:
            message = f"the text holds the character U+{ord(bad[0]):04X}"
            self._error("VQ0104", message, event, "remove the escape")
        if self._expects_key():
            self._key(event)
            return
        value: Any = event.value
        if event.implicit[0]:
            try:
                value = resolve(event.value)
            except ValueError as error:
                self._error("VQ0105", str(error), event, "a spec needs no such number")
                value = None
        self._place(value, event)

    def _expects_key(self) -> bool:
        top = self.stack[-1] if self.stack else None
        return top is not None and isinstance(top.node, dict) and top.key is None

    def _key(self, event: yaml.ScalarEvent) -> None:
        top = self.stack[-1]
        assert isinstance(top.node, dict)
        key, where = event.value, (*top.where, event.value)
        plain = event.implicit[0]
        if plain and key == "<<":
            self._refuse("VQ0108", "merge key <<", event, "write the fields out")
        elif plain and not isinstance(resolve(key[:40]), str):
            self._error(
                "VQ0114",
                f"the key {key[:40]} is not text" if key else "a key is missing",
                event,
                "field names are words",
            )
        elif key in top.node:
            first = self.keys.get(where)
            hint = f"first given on line {first.line}; remove one" if first else "remove one"
            self._error("VQ0109", f"'{key[:80]}' is given twice", event, hint)
        else:
            self.keys[where] = self._span(event)
        top.key = key

    def _open(self, node: dict[str, Any] | list[Any], event: yaml.NodeEvent) -> None:
        if self._expects_key():
            if _NO_KEY not in self.stack[-1].where:
                self._error("VQ0114", "a mapping or list cannot be a key", event, "field names are words")
            # Build it under a name no scalar key can have, so that the value after it finds its place.
            self.stack.append(_Open(node, (*self.stack[-1].where, _NO_KEY), self._span(event)))
            return
        where = self._place(node, event)
        self.stack.append(_Open(node, where, self._span(event)))

    def _close(self, event: yaml.CollectionEndEvent) -> None:
        done = self.stack.pop()
        end = event.end_mark
        assert end is not None
        if done.where in self.values and done.start.line == end.line + 1:
            self.values[done.where] = replace(done.start, end_column=end.column + 1)
        if done.where[-1:] == (_NO_KEY,):
            self.stack[-1].key = _NO_KEY

    def _place(self, value: Any, event: yaml.NodeEvent) -> FieldPath:
        """Put a value where the parse stands; returns its path."""
        if not self.stack:
            where: FieldPath = ()
            self.root, self.has_root = value, True
        else:
            where = self._put(self.stack[-1], value)
        self.values.setdefault(where, self._span(event))
        return where

    @staticmethod
    def _put(top: _Open, value: Any) -> FieldPath:
        if isinstance(top.node, list):
            top.node.append(value)
            return (*top.where, len(top.node) - 1)
        key = top.key if top.key is not None else _NO_KEY
        top.node.setdefault(key, value)
        top.key = None
        return (*top.where, key)

    def _span(self, event: yaml.Event) -> Span:
        start, end = event.start_mark, event.end_mark
        assert start is not None
        assert end is not None
        # A block mapping has no extent here, and what spans lines none to underline.
        last = end.column + 1 if end.line == start.line and end.column > start.column else None
        return Span(self.path, start.line + 1, start.column + 1, last)

    def _refuse(self, code: str, what: str, event: yaml.Event, help_text: str) -> None:
        self._error(code, f"{what} is not accepted", event, help_text)

    def _error(self, code: str, message: str, event: yaml.Event, help_text: str) -> None:
        self.diagnostics.error(code, message, span=self._span(event), help=help_text)

    def _syntax_error(self, error: yaml.MarkedYAMLError, text: str) -> None:
        mark, start = error.problem_mark, error.context_mark
        if start is not None and (mark is None or mark.index >= len(text.rstrip())):
            # The end of the file is no place to look for a bracket or quote that was not closed.
            mark, start = start, None
        span = Span(self.path, mark.line + 1, mark.column + 1) if mark else Span(self.path, 1, 1)
        if "nesting depth" in str(
            error.problem
        ):  # libyaml's scanner, which runs ahead, has a limit of its own
            self.diagnostics.error("VQ0110", TOO_DEEP, span=span, help=TOO_DEEP_HELP)
            return
        context = f" ({error.context})" if error.context else ""
        hint = f"look at what starts on line {start.line + 1}" if start is not None else None
        if mark is not None and text[mark.index : mark.index + 1] == "\t":
            hint = "YAML indents with spaces, not tabs"
        self.diagnostics.error("VQ0105", f"{error.problem}{context}", span=span, help=hint)
