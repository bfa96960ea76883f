"""YAML as JSON values.

Owns: a safe loader that keeps times as text (as Kubernetes' converter does) and the walk that makes keys strings and
stops documents whose anchors expand without end. Imported only when a YAML body or answer occurs: PyYAML costs memory.
"""

from __future__ import annotations

import math
import re
from typing import Any

import yaml

from machinery.nesting import MAX_DEPTH

TOO_DEEP, EXCESSIVE = "exceeded max depth", "document contains excessive aliasing"

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class Loader(_Base):  # type: ignore[misc]  # the C loader exists only where libyaml does
    """SafeLoader without implicit timestamps."""


_BOOL = "tag:yaml.org,2002:bool"
_LETTERS = re.compile(r"^[yYnN]$")

Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in _Base.yaml_implicit_resolvers.items()
}


# YAML 1.1 reads single letters as booleans too; PyYAML leaves that out, Kubernetes' converter does not.
Loader.add_implicit_resolver(_BOOL, _LETTERS, list("yYnN"))
Loader.bool_values = {**_Base.bool_values, "y": True, "n": False}


def check_expansion(raw: bytes, limit: int) -> None:
    """Raises ValueError on text that nests deeper than MAX_DEPTH, or whose anchors stand for more than `limit` nodes.

    Reads events, which costs a tenth of loading: the loader itself recurses in C, takes quadratic time in deep text,
    and expands merge keys (`<<`) before anybody could count.
    """
    sizes: list[int] = [0]
    names: list[str | None] = [None]
    anchors: dict[str | None, int] = {}
    for event in yaml.parse(raw, Loader=Loader):
        if isinstance(event, yaml.DocumentEndEvent):
            return
        if isinstance(event, yaml.CollectionStartEvent):
            if len(sizes) > MAX_DEPTH:
                raise ValueError(TOO_DEEP)
            sizes.append(1)
            names.append(event.anchor)
            anchors.pop(event.anchor, None)
        elif isinstance(event, yaml.CollectionEndEvent):
            size, name = sizes.pop(), names.pop()
            sizes[-1] += size
            if name:
                anchors[name] = size
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in names:
                raise ValueError(f"anchor '{event.anchor}' value contains itself")
            sizes[-1] += anchors.get(event.anchor, 1)
        elif isinstance(event, yaml.ScalarEvent):
            sizes[-1] += 1
            if event.anchor:
                anchors[event.anchor] = 1
        if sizes[-1] > limit:
            raise ValueError(EXCESSIVE)


def first_document(raw: bytes) -> Any:
    """The value of the first document; others are not looked at. Raises yaml.YAMLError."""
    loader = Loader(raw)
    try:
        return loader.get_data() if loader.check_data() else None
    finally:
        loader.dispose()


def to_json_values(value: Any, limit: int) -> Any:
    """The same value with string keys only. Raises ValueError past `limit` nodes or on what JSON cannot say."""
    budget = [limit]

    def convert(node: Any, depth: int) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise ValueError(f"yaml: {EXCESSIVE}")
        if depth > MAX_DEPTH:
            raise ValueError(f"yaml: {TOO_DEEP}")
        if isinstance(node, dict):
            return {_key(key): convert(inner, depth + 1) for key, inner in node.items()}
        if isinstance(node, (list, tuple, set)):
            return [convert(inner, depth + 1) for inner in node]
        if isinstance(node, float) and not math.isfinite(node):
            raise ValueError("yaml: json: unsupported value")
        if node is None or isinstance(node, (str, int, float, bool)):
            return node
        if isinstance(node, bytes):
            import base64

            return base64.b64encode(node).decode()
        raise ValueError(f"yaml: unsupported value of type {type(node).__name__}")

    return convert(value, 0)


def _key(key: Any) -> str:
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if key is None:
        return "null"
    if isinstance(key, (int, float)):
        return str(key)
    raise ValueError(f"yaml: invalid map key of type {type(key).__name__}")


class Dumper(_Dumper):  # type: ignore[misc]
    """Writes text that could be read as something else in double quotes, and lines as blocks, as Kubernetes does."""


def _represent_text(dumper: Any, text: str) -> Any:
    style = None
    if "\n" in text:
        style = "|"
    elif not text or dumper.resolve(yaml.ScalarNode, text, (True, False)) != "tag:yaml.org,2002:str":
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_implicit_resolver(_BOOL, _LETTERS, list("yYnN"))
Dumper.add_representer(str, _represent_text)


def dump(value: Any) -> bytes:
    """A value as the YAML text an `Accept: application/yaml` answer carries (keys sorted)."""
    text: str = yaml.dump(value, Dumper=Dumper, default_flow_style=False, sort_keys=True, allow_unicode=True)
    return text.encode()
