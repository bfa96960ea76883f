from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.rest import bodies
from apiserver.rest.negotiation import PROTOBUF
from apiserver.rest.responses import audit_id, warning_header
from apiserver.rest.yaml_values import dump
from machinery.errors import BadRequest, StatusError, TooLarge


class Sender:
    """An ASGI `receive` that plays messages."""

    def __init__(self, *messages: dict[str, Any]) -> None:
        self._messages = list(messages)

    async def __call__(self) -> MutableMapping[str, Any]:
        return self._messages.pop(0)


def part(body: bytes, *, more: bool) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_parts_are_joined() -> None:
    assert await bodies.read(Sender(part(b"a", more=True), part(b"b", more=False))) == b"ab"


async def test_reading_stops_past_the_limit() -> None:
    sender = Sender(part(b"x" * bodies.LIMIT, more=True), part(b"x", more=True), part(b"never asked for", more=False))
    with pytest.raises(TooLarge, match="limit is 3145728"):
        await bodies.read(sender)
    assert (await sender())["body"] == b"never asked for"


async def test_a_client_that_leaves_gets_no_answer() -> None:
    with pytest.raises(bodies.ClientGone):
        await bodies.read(Sender(part(b"a", more=True), {"type": "http.disconnect"}))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        pytest.param(b"a: 2026-01-01", {"a": "2026-01-01"}, id="times-stay-text"),
        pytest.param(b"a: yes", {"a": True}, id="yaml-1.1-booleans"),
        pytest.param(b"a: y\nb: N", {"a": True, "b": False}, id="yaml-1.1-letters"),
        pytest.param(b"2: a\ntrue: b\n", {"2": "a", "true": "b"}, id="keys-become-text"),
        pytest.param(b"a: &x [1]\nb: *x\n", {"a": [1], "b": [1]}, id="anchors"),
    ],
)
def test_yaml_values(text: bytes, value: dict[str, Any]) -> None:
    assert bodies.decode_yaml(text, "ConfigMap") == value


BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (name, name, b",".join([b"*%c" % (name - 1)] * 9)) for name in b"bcdefghi"
)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(BOMB, id="billion-laughs"),
        pytest.param(b"a: &a [*a]", id="endless"),
        pytest.param(b"a: [", id="broken"),
        pytest.param(b"a: !!python/object:os.system x", id="foreign-tag"),
        pytest.param(b"- a", id="no-object"),
        pytest.param(b"a: .nan", id="no-json-number"),
        pytest.param(b"\xff\xfe\xfa", id="no-text"),
    ],
)
def test_bad_yaml_is_a_bad_request(text: bytes) -> None:
    with pytest.raises(BadRequest, match="must be of type ConfigMap"):
        bodies.decode_yaml(text, "ConfigMap")


@given(st.binary(max_size=200), st.sampled_from(["application/json", "application/yaml", PROTOBUF, ""]))
def test_no_bytes_break_the_decoders(raw: bytes, content_type: str) -> None:
    try:
        assert isinstance(bodies.decode(raw, content_type, "ConfigMap"), dict)
    except StatusError as error:
        assert 400 <= error.code < 500


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 53), 1 << 53)
    | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Zs"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abc", min_size=1), json_values, max_size=4))
def test_yaml_answers_read_back(value: dict[str, Any]) -> None:
    assert bodies.load_yaml(dump(value)) == value


@given(st.text(max_size=50))
def test_warnings_are_clean_headers(text: str) -> None:
    _, value = warning_header(text)
    assert value.startswith(b'299 - "')
    assert all(byte >= 0x20 and byte != 0x7F for byte in value)


def test_audit_ids_are_uuids() -> None:
    import uuid

    found = uuid.UUID(audit_id().decode())
    assert found.version == 4
    assert found.variant == uuid.RFC_4122


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        pytest.param(r"\ud83d", "\ufffd", id="high half"),
        pytest.param(r"\uDE00x", "\ufffdx", id="low half"),
        pytest.param(r"\ud83d\ude00", "\U0001f600", id="pair"),
        pytest.param(r"\ud83d\ud83d\ude00", "\ufffd\U0001f600", id="half before a pair"),
        pytest.param(r"\ude00\ud83d", "\ufffd\ufffd", id="the wrong way round"),
        pytest.param(r"\ud83d\u0041", "\ufffdA", id="half before another escape"),
        pytest.param(r"\\ud83d", r"\ud83d", id="an escaped backslash"),
        pytest.param(r"\\\ud83d", "\\\ufffd", id="an escaped backslash and a half"),
    ],
)
def test_half_a_surrogate_pair_is_replaced(text: str, wanted: str) -> None:
    raw = b'{"a":"' + text.encode() + b'"}'
    assert bodies.decode(raw, "application/json", "Pod") == {"a": wanted}


@given(st.text(alphabet=st.sampled_from(list('\\udD83dE0"af'))))
def test_cleaning_never_changes_what_can_be_read(text: str) -> None:
    raw = b'{"a":"' + text.encode() + b'"}'
    try:
        wanted = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return
    assert msgspec.json.decode(bodies.clean(raw)) == wanted


@pytest.mark.parametrize(
    ("raw", "content_type", "slow"),
    [
        pytest.param(b"a: b", "application/yaml", False, id="small"),
        pytest.param(b"a: " + b"b" * 100_000, "application/yaml", True, id="large"),
        pytest.param(b"a: " + b"b" * 100_000, "application/apply-patch+yaml", True, id="apply"),
        pytest.param(b'{"a":"' + b"b" * 100_000, "application/apply-patch+yaml", False, id="apply of JSON"),
        pytest.param(b'{"a":"' + b"b" * 100_000, "", False, id="JSON"),
        pytest.param(b"k8s\0" + b"b" * 100_000, "application/vnd.kubernetes.protobuf", False, id="protobuf"),
    ],
)
def test_what_a_thread_reads(raw: bytes, content_type: str, *, slow: bool) -> None:
    assert bodies.is_slow(raw, content_type) is slow


def test_what_is_no_utf8_is_replaced() -> None:
    assert bodies.clean(b'{"\xed\xa0\xbd":1}') == '{"\ufffd\ufffd\ufffd":1}'.encode()  # half a surrogate pair
    assert bodies.decode(b'{"\xed\xa0\xbd":1}', "application/json", "Pod") == {"\ufffd\ufffd\ufffd": 1}
    assert bodies.decode(b'{"a":"x\xff"}', "application/json", "Pod") == {"a": "x\ufffd"}
    with pytest.raises(BadRequest, match="couldn't get version/kind"):
        bodies.decode(b'{"a":"\xff"', "application/json", "Pod")
