from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apiserver.rest import query
from apiserver.streams.logs import log_options
from apiserver.streams.remote import open_message
from apiserver.streams.sessions import choose_protocol, to_frame, to_input
from apiserver.streams.targets import dial_failure, kubelet_address, plan_container
from machinery.errors import BadRequest, Invalid, ServiceUnavailable
from proto.kubelet.v1 import kubelet_pb2 as pb


def pod(containers: list[str], init: list[str] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": name} for name in containers]}
    if init:
        spec["initContainers"] = [{"name": name} for name in init]
    return {"metadata": {"name": "web"}, "spec": spec}


@pytest.mark.parametrize(
    ("found", "wanted", "chosen"),
    [
        pytest.param(pod(["c"]), "", "c", id="only-one"),
        pytest.param(pod(["a", "b"]), "b", "b", id="named"),
        pytest.param(pod(["a"], ["i"]), "i", "i", id="named-init"),
    ],
)
def test_plan_container(found: dict[str, Any], wanted: str, chosen: str) -> None:
    assert plan_container(found, wanted) == chosen


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        pytest.param(
            pod(["a", "b"]), "", "a container name must be specified for pod web, choose one of: [a b]", id="two"
        ),
        pytest.param(pod(["a"], ["i"]), "", "[a] or one of the init containers: [i]", id="one-and-init"),
        pytest.param(pod(["a"]), "x", "container x is not valid for pod web", id="unknown"),
    ],
)
def test_no_container(found: dict[str, Any], wanted: str, message: str) -> None:
    with pytest.raises(BadRequest) as caught:
        plan_container(found, wanted)
    assert caught.value.message.endswith(message)


def node(*addresses: tuple[str, str], port: int | None = 10250) -> dict[str, Any]:
    endpoints = {"kubeletEndpoint": {"Port": port}} if port else {}
    told = [{"type": kind, "address": address} for kind, address in addresses]
    return {"metadata": {"name": "n"}, "status": {"addresses": told, "daemonEndpoints": endpoints}}


@pytest.mark.parametrize(
    ("found", "address"),
    [
        pytest.param(node(("Hostname", "h"), ("InternalIP", "10.0.0.1")), "10.0.0.1:10250", id="ip-first"),
        pytest.param(node(("Hostname", "h")), "h:10250", id="name"),
        pytest.param(node(("InternalIP", "fd00::1")), "[fd00::1]:10250", id="ipv6"),
    ],
)
def test_kubelet_address(found: dict[str, Any], address: str) -> None:
    assert kubelet_address(found) == address


@pytest.mark.parametrize("found", [{"metadata": {"name": "n"}}, node(), node(("InternalIP", "1.2.3.4"), port=None)])
def test_a_node_that_has_not_reported(found: dict[str, Any]) -> None:
    with pytest.raises(ServiceUnavailable, match="has not reported"):
        kubelet_address(found)


def test_protocols() -> None:
    assert choose_protocol(["v4.channel.k8s.io", "v5.channel.k8s.io"]) == "v5.channel.k8s.io"
    with pytest.raises(BadRequest):
        choose_protocol(["v3.channel.k8s.io"])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"\x00ls\n", pb.StreamInput(stdin=b"ls\n"), id="stdin"),
        pytest.param(
            b'\x04{"Width":80,"Height":24}', pb.StreamInput(resize=pb.TerminalSize(width=80, height=24)), id="resize"
        ),
        pytest.param(b"\xff\x00", pb.StreamInput(close_stdin=True), id="close-stdin"),
        pytest.param(b"\xff\x01", None, id="close-of-another"),
        pytest.param(b"\x04{}", None, id="bad-resize"),
        pytest.param(b"\x09x", None, id="unknown-channel"),
        pytest.param(b"\x00", None, id="empty-stdin"),
        pytest.param(b"", None, id="nothing"),
    ],
)
def test_to_input(data: bytes, message: pb.StreamInput | None) -> None:
    assert to_input(data) == message


@given(st.binary(max_size=60))
def test_no_frame_breaks_a_session(data: bytes) -> None:
    assert to_input(data) is None or isinstance(to_input(data), pb.StreamInput)


@pytest.mark.parametrize(
    ("output", "frame"),
    [
        (pb.StreamOutput(stdout=b"a"), b"\x01a"),
        (pb.StreamOutput(stderr=b"b"), b"\x02b"),
        (pb.StreamOutput(status_json=b"{}"), b"\x03{}"),
    ],
)
def test_to_frame(output: pb.StreamOutput, frame: bytes) -> None:
    assert to_frame(output) == frame


def test_open_message() -> None:
    parsed = query.parse(b"command=sh&command=-c&stdin=1&stdout=1&stderr=1&tty=1")
    opened = open_message(parsed, "a", "web", "c", execute=True)
    assert (list(opened.command), opened.stdin, opened.stdout, opened.stderr, opened.tty) == (
        ["sh", "-c"],
        True,
        True,
        False,
        True,
    )
    with pytest.raises(BadRequest, match="at least one of stdin"):
        open_message(query.parse(b"command=ls"), "a", "web", "c", execute=True)


def test_log_options() -> None:
    assert log_options(query.parse(b"follow=true&tailLines=0&limitBytes=1")) == {
        "follow": True,
        "previous": False,
        "timestamps": False,
        "since_time": "",
        "tail_lines": 0,
        "limit_bytes": 1,
    }


@pytest.mark.parametrize(
    "text",
    [
        b"tailLines=-1",
        b"limitBytes=0",
        b"sinceSeconds=0",
        b"sinceTime=x",
        b"sinceSeconds=5&sinceTime=2026-01-01T00:00:00Z",
    ],
)
def test_bad_log_options(text: bytes) -> None:
    with pytest.raises(Invalid):
        log_options(query.parse(text))


@pytest.mark.parametrize(
    ("details", "message"),
    [
        pytest.param("Connection refused (111)", "dial tcp 1.2.3.4:1: connect: connection refused", id="refused"),
        pytest.param("connect: No route to host (113)", "dial tcp 1.2.3.4:1: connect: no route to host", id="route"),
        pytest.param("FD shutdown: Timeout occurred", "dial tcp 1.2.3.4:1: i/o timeout", id="timeout"),
        pytest.param("odd", "dial tcp 1.2.3.4:1: odd", id="other"),
    ],
)
def test_dial_failure(details: str, message: str) -> None:
    found = dial_failure("1.2.3.4:1", details)
    assert (found.message, found.code, found.reason) == (f"error dialing backend: {message}", 500, "")
