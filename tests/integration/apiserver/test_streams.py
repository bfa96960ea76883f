"""Logs, exec and attach: through the API server to a kubelet that says what the test wants."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from tests.harness.apiserver import ADMIN_TOKEN, RunningApiServer
from tests.integration.apiserver.stream_site import POD, EchoKubelet, websocket


async def test_logs_come_whole_and_with_options(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    answer = await server.rest().get(f"{POD}/log?tailLines=5&timestamps=true")
    assert (answer.status, answer.body) == (200, b"line 0\nline 1\nline 2\n")
    assert answer.header("content-type") == "text/plain"
    asked = kubelet.asked[0]
    assert (asked.container, asked.tail_lines, asked.timestamps, asked.follow) == ("c", 5, True, False)


@pytest.mark.parametrize(
    ("path", "status", "message"),
    [
        pytest.param(f"{POD}/log?previous=true", 400, "previous terminated container", id="kubelets-error"),
        pytest.param(f"{POD}/log?container=x", 400, "container x is not valid for pod web", id="no-container"),
        pytest.param(f"{POD}/log?tailLines=-1", 422, "tailLines: Invalid value: -1", id="bad-number"),
        pytest.param(f"{POD}/log?sinceTime=x", 422, "sinceTime", id="bad-time"),
        pytest.param(f"{POD.replace('web', 'ghost')}/log", 404, 'pods "ghost" not found', id="no-pod"),
        pytest.param(f"{POD}/exec?command=ls&stdout=1", 400, "Upgrade request required", id="exec-without-upgrade"),
        pytest.param(f"{POD}/exec?container=x&command=ls", 400, "container x is not valid for pod web", id="exec"),
        pytest.param(f"{POD}/attach?container=x", 400, "container x is not valid for pod web", id="attach-where"),
        pytest.param(f"{POD.replace('web', 'ghost')}/exec?command=ls", 404, 'pods "ghost" not found', id="gone"),
        pytest.param(f"{POD}/portforward", 400, "Upgrade request required", id="port-forward-without-upgrade"),
        pytest.param(f"{POD}/proxy", 400, "address not allowed", id="proxy-without-address"),
    ],
)
async def test_refusals(cluster: tuple[RunningApiServer, EchoKubelet], path: str, status: int, message: str) -> None:
    answer = await cluster[0].rest().get(path)
    assert answer.status == status
    assert message in answer.json["message"]


async def test_a_follower_that_leaves_frees_the_kubelet(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    rest = server.rest()
    reader, writer = await rest.connect()
    writer.write(rest.head("GET", f"{POD}/log?follow=true", b"", {}))
    async with asyncio.timeout(5):
        await reader.readuntil(b"line 2\n")
        writer.close()
        await kubelet.left.wait()


@pytest.mark.parametrize("protocol", ["v5.channel.k8s.io", "v4.channel.k8s.io"])
@pytest.mark.parametrize("verb", ["exec", "attach"])
async def test_a_session_of_channels(cluster: tuple[RunningApiServer, EchoKubelet], protocol: str, verb: str) -> None:
    server, kubelet = cluster
    path = f"{POD}/{verb}?command=sh&command=-c&stdin=true&stdout=true&stderr=true"
    async with websocket(server, path, f"{protocol}, v3.channel.k8s.io") as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        assert f"sec-websocket-protocol: {protocol}" in head.lower()
        assert await socket.receive() == (2, b"\x01sh -c")
        socket.send(0, b"hello")
        assert await socket.receive() == (2, b"\x02HELLO")
        socket.send_raw(b"\x00text", opcode=1)  # as the official Python client sends it
        assert await socket.receive() == (2, b"\x02TEXT")
        socket.send(4, b'{"Width":80,"Height":24}')
        assert await socket.receive() == (2, b"\x0180x24")
        socket.send(255, b"\x00")
        _, last = await socket.receive()
        assert last[0] == 3
        assert json.loads(last[1:])["details"]["causes"] == [{"reason": "ExitCode", "message": "7"}]
        opcode, code = await socket.receive()
        assert (opcode, int.from_bytes(code[:2], "big")) == (8, 1000)
    assert kubelet.asked[0].container == "c"


@pytest.mark.conformance(
    "[sig-node] Pods should support remote command execution over websockets [NodeConformance] [Conformance]"
)
@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [
        pytest.param("channel.k8s.io", "channel.k8s.io", id="binary"),
        pytest.param("base64.channel.k8s.io", "base64.channel.k8s.io", id="base64"),
        pytest.param("v4.base64.channel.k8s.io", "v4.base64.channel.k8s.io", id="base64-of-version-4"),
        pytest.param("", "", id="none"),
    ],
)
async def test_a_session_of_the_first_protocols(
    cluster: tuple[RunningApiServer, EchoKubelet], protocols: str, chosen: str
) -> None:
    path = f"{POD}/exec?command=sh&stdin=true&stdout=true&stderr=true"
    async with websocket(cluster[0], path, protocols) as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        assert (f"sec-websocket-protocol: {chosen}\r" in head.lower()) == bool(chosen)
        encoded = "base64" in chosen

        async def told() -> bytes:
            opcode, payload = await socket.receive()
            assert opcode == (1 if encoded else 2)
            return bytes([int(payload[:1])]) + base64.b64decode(payload[1:]) if encoded else payload

        assert await told() == b"\x01sh"
        if encoded:
            socket.send_raw(b"0" + base64.b64encode(b"hello"), opcode=1)
        else:
            socket.send(0, b"hello")
        assert await told() == b"\x02HELLO"
        if encoded:
            socket.send_raw(b"0%%%", opcode=1)
            socket.send_raw(b"?", opcode=1)
            socket.send_raw(b"4" + base64.b64encode(b'{"Width":80,"Height":24}'), opcode=1)
        else:
            socket.send(4, b'{"Width":80,"Height":24}')
        assert await told() == b"\x0180x24"
        if not encoded:
            socket.send(255, b"\x00")
            assert await told() == b"\x03seven"  # before version 4 a failure is its message


@pytest.mark.conformance(
    "[sig-node] Pods should support retrieving logs from the container over websockets [NodeConformance] [Conformance]"
)
@pytest.mark.parametrize(
    ("protocols", "opcode", "payload"),
    [
        pytest.param("", 2, b"line 0\n", id="none"),
        pytest.param("binary.k8s.io", 2, b"line 0\n", id="binary"),
        pytest.param("x, base64.binary.k8s.io", 1, base64.b64encode(b"line 0\n"), id="base64"),
    ],
)
async def test_a_log_over_a_websocket(
    cluster: tuple[RunningApiServer, EchoKubelet], protocols: str, opcode: int, payload: bytes
) -> None:
    async with websocket(cluster[0], f"{POD}/log", protocols) as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        assert await socket.receive() == (opcode, payload)
        await socket.receive()
        await socket.receive()
        assert await socket.receive() == (8, (1000).to_bytes(2, "big"))


async def test_a_follower_that_leaves_its_websocket_frees_the_kubelet(
    cluster: tuple[RunningApiServer, EchoKubelet],
) -> None:
    async with websocket(cluster[0], f"{POD}/log?follow=true", "") as (_, socket):
        assert await socket.receive() == (2, b"line 0\n")
    async with asyncio.timeout(5):
        await cluster[1].left.wait()


async def test_a_watch_over_a_websocket_is_a_frame_an_event(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server = cluster[0]
    maps = "/api/v1/namespaces/default/configmaps"
    for name in ("a", "b"):
        assert (await server.rest().post(maps, {"metadata": {"name": name}})).status == 201
    async with websocket(server, f"{maps}?watch=true&timeoutSeconds=1", "") as (head, socket):
        assert head.startswith("HTTP/1.1 101 ")
        events = []
        while (message := await socket.receive())[0] == 1:
            events.append(json.loads(message[1]))
        assert [(each["type"], each["object"]["metadata"]["name"]) for each in events] == [
            ("ADDED", "a"),
            ("ADDED", "b"),
        ]
        assert message == (8, (1000).to_bytes(2, "big"))


async def test_reading_over_a_websocket_needs_no_right_to_create(
    cluster: tuple[RunningApiServer, EchoKubelet],
) -> None:
    server = cluster[0]
    rights = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rule = {"apiGroups": [""], "resources": ["pods/log", "pods/exec", "pods"], "verbs": ["get", "watch"]}
    assert (await server.rest().post(f"{rights}/roles", {"metadata": {"name": "r"}, "rules": [rule]})).status == 201
    whole = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": whole, "kind": "Role", "name": "r"},
        "subjects": [{"apiGroup": whole, "kind": "User", "name": "joe"}],
    }
    assert (await server.rest().post(f"{rights}/rolebindings", binding)).status == 201
    wanted = [
        (f"{POD}/log", 101),
        ("/api/v1/namespaces/default/pods?watch=1", 101),
        ("/api/v1/namespaces/default/configmaps?watch=1", 403),
        (f"{POD}/exec?command=ls&stdout=1", 403),
    ]
    for path, status in wanted:
        async with websocket(server, path, "", as_user="joe") as (head, _):
            assert head.startswith(f"HTTP/1.1 {status} "), (path, head)


@pytest.mark.parametrize(
    ("path", "protocols", "token", "status"),
    [
        pytest.param(f"{POD}/exec?command=ls&stdout=1", "v9.channel.k8s.io", ADMIN_TOKEN, 400, id="unknown-protocol"),
        pytest.param(f"{POD}/log", "x.k8s.io", ADMIN_TOKEN, 403, id="unknown-protocol-of-a-log"),
        pytest.param(f"{POD}/log?container=x", "", ADMIN_TOKEN, 400, id="log-of-no-container"),
        pytest.param("/api/v1/pods?watch=1&labelSelector=%3D", "", ADMIN_TOKEN, 400, id="watch-of-nonsense"),
        pytest.param("/apis/x.io/v1/y?watch=1", "", ADMIN_TOKEN, 404, id="watch-of-nothing"),
        pytest.param("/api/v1/pods", "", ADMIN_TOKEN, 404, id="no-stream"),
        pytest.param(f"{POD}/exec?stdout=1", "v5.channel.k8s.io", ADMIN_TOKEN, 400, id="no-command"),
        pytest.param(f"{POD}/exec?command=ls&stdout=1", "v5.channel.k8s.io", "wrong", 401, id="wrong-token"),
        pytest.param(f"{POD}/portforward", "v5.channel.k8s.io", ADMIN_TOKEN, 400, id="port-forward"),
        pytest.param(f"{POD}/gizmo", "v5.channel.k8s.io", ADMIN_TOKEN, 404, id="no-such-stream"),
    ],
)
async def test_refused_handshakes(
    cluster: tuple[RunningApiServer, EchoKubelet], path: str, protocols: str, token: str, status: int
) -> None:
    async with websocket(cluster[0], path, protocols, token) as (head, _):
        assert head.startswith(f"HTTP/1.1 {status} ")


@pytest.mark.parametrize("verb", ["exec", "attach"])
async def test_a_kubelets_refusal_comes_as_bare_text(cluster: tuple[RunningApiServer, EchoKubelet], verb: str) -> None:
    path = f"{POD}/{verb}?command=refuse&stdin=1&stdout=1"
    async with websocket(cluster[0], path, "v5.channel.k8s.io") as (head, socket):
        assert head.startswith("HTTP/1.1 404 ")
        assert "text/plain" in head
        assert await socket.rest() == b"container c not found in pod web_default\n"


async def test_a_command_ends_with_its_user(cluster: tuple[RunningApiServer, EchoKubelet]) -> None:
    server, kubelet = cluster
    async with websocket(server, f"{POD}/exec?command=forever&stdout=1", "v5.channel.k8s.io") as (head, _):
        assert head.startswith("HTTP/1.1 101 ")
    async with asyncio.timeout(5):
        await kubelet.left.wait()
