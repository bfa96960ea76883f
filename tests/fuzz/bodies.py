"""Bodies: real objects of every kind, mutated; objects drawn from the schema; encodings, and bytes that are none.

Owns no state: everything is drawn from the `random.Random` it is given.
"""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from api.resources import RESOURCES, Resource, lookup
from api.schema import SchemaNode, for_kind
from machinery import protobuf
from machinery.errors import StatusError

Obj = dict[str, Any]
CORPUS = Path(__file__).parent.parent / "unit" / "apiserver" / "registry" / "defaults" / "stored.json"
JSON, YAML, PROTOBUF = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
DEEP = 12

TEXTS = (
    "",
    " ",
    "a",
    "A",
    "-",
    "a.b",
    "../../etc/passwd",
    "%2e%2e%2f",
    "x" * 64,
    "x" * 254,
    "\u0000",
    "\ud83d\ude00",
    "e\u0301\u202e\ufeff",
    "ﬀ①Ⅷ",
    "a/b",
    "10.0.0.1",
    "::1",
    "300.1.1.1",
    "0x7f",
    "1e400",
    "NaN",
    "1Ki",
    "-1",
    "100%",
    "null",
    "true",
    "2026-01-01T00:00:00Z",
    "2026-13-45T99:00:00Z",
    "{}",
    "$(HOME)",
    "self.x == 1",
    "a in (b,",
    "application/json",
)
NUMBERS = (0, -1, 1, 2**31 - 1, 2**31, -(2**31), 2**53, 2**63 - 1, -(2**63), 2**63, 10**30, 1.5, -0.0, 1e308, 65536)


@cache
def corpus() -> tuple[tuple[Resource, Obj], ...]:
    """Objects that a server accepts, with their resources."""
    found = []
    for case in json.loads(CORPUS.read_text()):
        resource = lookup(case["group"], case["version"], case["plural"])
        if resource is not None:
            found.append((resource, case["body"]))
    return tuple(found)


def anything(rng: random.Random, depth: int = 0) -> Any:
    """Any JSON value."""
    roll = rng.random()
    if depth < 4 and roll < 0.15:
        return {rng.choice(TEXTS): anything(rng, depth + 1) for _ in range(rng.randrange(4))}
    if depth < 4 and roll < 0.3:
        return [anything(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice((None, True, False, rng.choice(NUMBERS), rng.choice(TEXTS)))


def mutate(value: Any, rng: random.Random, rate: float = 0.05) -> Any:
    """The same shape with some places changed: other values, other types, left out, doubled."""
    if rng.random() < rate:
        return _odd(value, rng)
    if isinstance(value, dict):
        changed = {key: mutate(item, rng, rate) for key, item in value.items() if rng.random() > rate / 3}
        if rng.random() < rate:
            changed[rng.choice((*TEXTS, *value))] = anything(rng)
        return changed
    if isinstance(value, list):
        items = [mutate(item, rng, rate) for item in value if rng.random() > rate / 3]
        return items * 2 if rng.random() < rate else items
    return value


def _odd(value: Any, rng: random.Random) -> Any:
    if rng.random() < 0.5:  # the same type, so that more than the decoder sees it
        if isinstance(value, str):
            return rng.choice(TEXTS)
        if isinstance(value, bool):
            return not value
        if isinstance(value, (int, float)):
            return rng.choice(NUMBERS)
        if isinstance(value, dict):
            return {}
        if isinstance(value, list):
            return []
    return anything(rng)


def shaped(node: SchemaNode, rng: random.Random, depth: int = 0) -> Any:
    """A value of the type that the schema asks for."""
    node = node.resolve()
    if rng.random() < 0.02:
        return anything(rng)
    if node.quantity or node.int_or_string:
        return rng.choice((1, "1", "100m", "1Gi", "25%", *TEXTS[:6]))
    if node.open:
        return anything(rng, 2)
    if node.type == "object" or node.properties:
        chance = 0.5 if depth < 3 else 0.15
        fields = {
            name: shaped(child, rng, depth + 1)
            for name, child in node.properties.items()
            if depth < DEEP and (name in node.required or rng.random() < chance)
        }
        if node.additional_properties is not None and depth < DEEP:
            for _ in range(rng.randrange(3)):
                fields[rng.choice(("a", "example.com/b", *TEXTS))] = shaped(node.additional_properties, rng, depth + 1)
        return fields
    if node.type == "array":
        inner = node.items
        return [shaped(inner, rng, depth + 1) for _ in range(rng.randrange(3))] if inner is not None else []
    if node.type == "integer":
        return rng.choice((0, 1, 80, 3, *NUMBERS[:8]))
    if node.type == "boolean":
        return rng.random() < 0.5
    if node.type == "number":
        return rng.choice(NUMBERS)
    return rng.choice(("a", "default", "web", "Always", "TCP", "2026-01-01T00:00:00Z", *TEXTS))


def an_object(rng: random.Random) -> tuple[Resource, Obj]:
    """A resource and something that may be one of it."""
    if rng.random() < 0.7:
        resource, body = rng.choice(corpus())
        return resource, mutate(body, rng, rng.choice((0.0, 0.01, 0.03, 0.1)))
    resource = rng.choice(RESOURCES)
    node = for_kind(resource.group, resource.version, resource.kind)
    made = shaped(node, rng) if node is not None else anything(rng)
    if isinstance(made, dict):
        made["apiVersion"], made["kind"] = resource.group_version, resource.kind
    return resource, made


def encoded(value: Any, rng: random.Random) -> tuple[str, bytes]:
    """(content type, bytes): mostly what fits, sometimes cut, flipped, or under another type's name."""
    roll = rng.random()
    content_type, raw = JSON, _json(value)
    if roll < 0.15:
        content_type, raw = YAML, _yaml(value)
    elif roll < 0.35 and isinstance(value, dict):
        content_type, raw = PROTOBUF, _protobuf(value)
    if rng.random() < 0.1:
        raw = damaged(raw, rng)
    if rng.random() < 0.03:
        content_type = rng.choice(
            (JSON, YAML, PROTOBUF, "", "text/plain", "application/json;charset=latin1", "a/b;;=", "*/*")
        )
    return content_type, raw


def damaged(raw: bytes, rng: random.Random) -> bytes:
    """Cut, flipped, doubled or strewn with other bytes."""
    data = bytearray(raw)
    for _ in range(rng.choice((1, 1, 3, 10))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                del data[at:]
            case 1 if data:
                data[at % len(data)] ^= 1 << rng.randrange(8)
            case 2:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                data[at:at] = data[: rng.randrange(64)]
    return bytes(data)


def bomb(rng: random.Random) -> tuple[str, bytes]:
    """Small bodies that stand for large values, deep ones, long ones."""
    match rng.randrange(6):
        case 0:
            levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 12))
            return YAML, f"l0: &l0 [lol]\n{levels}".encode()
        case 1:
            return JSON, b"[" * rng.choice((200, 5_000, 200_000))
        case 2:
            return JSON, b'{"a":' * rng.choice((200, 1_100, 5_000, 20_000)) + b"1" + b"}" * 20_000
        case 3:
            return YAML, b"[" * rng.choice((100, 3_000)) + b"]" * 100
        case 4:
            return PROTOBUF, b"k8s\x00" + rng.randbytes(rng.randrange(200))
        case _:
            return JSON, b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"big"},"data":{"a":"%b"}}' % (
                b"x" * rng.choice((1_000_000, 1_600_000, 3_145_728, 3_200_000))
            )


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "surrogatepass")


def _yaml(value: Any) -> bytes:
    try:
        return yaml.safe_dump(value, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return _json(value)


def _protobuf(value: Obj) -> bytes:
    try:
        return protobuf.encode(value)
    except (StatusError, UnicodeEncodeError):
        return _json(value)
