"""The one process that keeps the others alive lives on, whatever it is asked and whatever the machine lacks."""

from __future__ import annotations

import os
import selectors
import socket
from pathlib import Path
from typing import Any

import msgspec
import pytest

from cli.layout import ClusterConfig, ClusterPaths
from cli.process_table import Managed
from cli.processes import ProcessSpec
from cli.supervisor import Supervisor


class OneRequest:
    """A listening socket with one client that has already sent its request."""

    def __init__(self, raw: bytes) -> None:
        self.client, self._server = socket.socketpair()
        self.client.sendall(raw)
        self.client.shutdown(socket.SHUT_WR)

    def accept(self) -> tuple[socket.socket, None]:
        return self._server, None


@pytest.fixture
def supervisor(tmp_path: Path) -> Supervisor:
    paths = ClusterPaths(tmp_path)
    paths.make()
    return Supervisor(paths, ClusterConfig("demo", 0), "etcd")


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(b"[]\n", id="no object"),
        pytest.param(b"{}\n", id="no command"),
        pytest.param(b'{"command": 1}\n', id="no name"),
        pytest.param(b'{"command": "dance", "node": "x"}\n', id="unknown"),
        pytest.param(b'{"command": "node-kill"}\n', id="no node"),
        pytest.param(b'{"command": "node-add", "node": ["x"]}\n', id="a list for a name"),
        pytest.param(b"[" * 20000 + b"\n", id="deep"),
        pytest.param(b"\xff\xfe\n", id="no text"),
    ],
)
def test_malformed_requests_are_answered(supervisor: Supervisor, raw: bytes) -> None:
    request: Any = OneRequest(raw)
    supervisor._answer(request)
    with request.client:
        assert msgspec.json.decode(request.client.recv(65536)).keys() == {"error"}


def test_a_request_that_never_ends_is_dropped(supervisor: Supervisor) -> None:
    request: Any = OneRequest(b"{")
    supervisor._answer(request)
    with request.client:
        assert request.client.recv(1) == b""


def test_a_full_disk_does_not_end_it(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "run" / ".processes.json").mkdir()  # nothing can be written there
    supervisor._table.record()


def test_what_cannot_be_forked_is_tried_again_later(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("os.fork", exhausted)
    managed = Managed(ProcessSpec("x", "x", "", (), ""))
    supervisor._table.entries["x"] = managed
    supervisor._table.start(managed)
    wait = supervisor._table.until_retry()
    assert not managed.running
    assert wait is not None
    assert 0 < wait <= 0.1


@pytest.mark.parametrize(
    ("command", "restart", "again"),
    [
        pytest.param("kill -9 $$", False, False, id="a kubelet that was killed stays dead"),
        pytest.param("exit 0", False, False, id="one that was asked to end, too"),
        pytest.param("exit 1", False, True, id="one that failed by itself does not"),
        pytest.param("kill -9 $$", True, True, id="others always come back"),
    ],
)
def test_who_comes_back(supervisor: Supervisor, command: str, restart: bool, again: bool) -> None:
    managed = Managed(ProcessSpec("x", "x", "", ("/bin/sh", "-c", command), "", restart=restart))
    supervisor._table.entries["x"] = managed
    managed.pid = os.posix_spawn("/bin/sh", ["sh", "-c", command], os.environ)
    managed.fd = os.pidfd_open(managed.pid)
    supervisor._selector.register(managed.fd, selectors.EVENT_READ, managed)
    supervisor._table.reap(managed)
    assert managed.wanted == again
    assert (supervisor._table.until_retry() is not None) == again
