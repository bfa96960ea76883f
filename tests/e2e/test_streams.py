"""Streams as users open them: exec, attach, cp, port-forward and proxy, with the stock kubectl."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster, kubectl

SERVE = "mkdir -p /tmp/www/sub; echo top > /tmp/www/index.html; echo deep > /tmp/www/sub/a.txt; "
SERVE += "dd if=/dev/urandom of=/tmp/www/big bs=1024 count=8192 2>/dev/null; exec httpd -f -p 8080 -h /tmp/www"
# How kubectl is told to leave WebSockets alone, as versions before 1.31 do by themselves.
SPDY = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"}
TRANSPORTS = [pytest.param({}, id="websocket"), pytest.param(SPDY, id="spdy")]


@pytest.fixture(scope="module")
def web(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(namespace, pod): a web server on port 8080."""
    namespace = "streams"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("run", "web", "-n", namespace, "--image=busybox", "--port=8080", "--", "sh", "-c", SERVE)
    cluster.kubectl("expose", "pod", "web", "-n", namespace, "--port=80", "--target-port=8080")
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/web", "--timeout=60s")
    yield namespace, "web"
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")


def run(
    cluster: Cluster, extra: dict[str, str], *arguments: str, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [kubectl(), *arguments],
        env={**cluster.environment, **extra},
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_exec(cluster: Cluster, web: tuple[str, str], extra: dict[str, str]) -> None:
    namespace, pod = web
    done = run(cluster, extra, "exec", "-n", namespace, pod, "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert done.stdout == b"out\n"
    assert done.stderr == b"err\ncommand terminated with exit code 3\n"
    assert done.returncode == 3
    blob = os.urandom(2_000_000)
    assert run(cluster, extra, "exec", "-i", "-n", namespace, pod, "--", "cat", stdin=blob).stdout == blob


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_exec_where_there_is_nothing(cluster: Cluster, web: tuple[str, str], extra: dict[str, str]) -> None:
    namespace, pod = web
    done = run(cluster, extra, "exec", "-n", namespace, pod, "-c", "zz", "--", "ls")
    assert b"container zz is not valid for pod web" in done.stderr


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, cluster: Cluster, extra: dict[str, str], *arguments: str) -> None:
        self.output = b""
        self._pid, self._fd = pty.fork()
        if self._pid == 0:
            os.execve(kubectl(), [kubectl(), *arguments], {**cluster.environment, **extra})

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def until(self, wanted: bytes, seconds: float = 20.0) -> bool:
        deadline = time.monotonic() + seconds
        while wanted not in self.output and time.monotonic() < deadline:
            if select.select([self._fd], [], [], 0.1)[0]:
                try:
                    self.output += os.read(self._fd, 4096)
                except OSError:  # the program has ended
                    break
        return wanted in self.output

    def asks(self, command: str, wanted: bytes) -> None:
        """Type a command until its answer is there: a new size takes a moment to arrive."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.type(command + "\r")
            if self.until(wanted, 0.5):
                return
        raise AssertionError(f"no {wanted!r} in {self.output!r}")

    def wait(self) -> int:
        """The exit code; the program is killed if it does not end."""
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            self.until(b"\0never\0", 0.1)
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                os.close(self._fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        raise AssertionError(f"did not end: {self.output!r}")


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_a_terminal_follows_its_size(cluster: Cluster, web: tuple[str, str], extra: dict[str, str]) -> None:
    namespace, pod = web
    terminal = Terminal(cluster, extra, "exec", "-it", "-n", namespace, pod, "--", "sh")
    terminal.resize(33, 99)
    terminal.asks("stty size", b"33 99")
    terminal.resize(20, 70)
    terminal.asks("stty size", b"20 70")
    terminal.type("exit 5\r")
    assert terminal.wait() == 5


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_attach_to_a_terminal(cluster: Cluster, web: tuple[str, str], extra: dict[str, str]) -> None:
    namespace, name = web[0], "shell-spdy" if extra else "shell"
    cluster.kubectl(
        "run", name, "-n", namespace, "-it", "--attach=false", "--image=busybox", "--restart=Never", "--", "sh"
    )
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    terminal = Terminal(cluster, extra, "attach", "-it", "-n", namespace, name)
    terminal.asks("echo four$((2+2))", b"four4")
    terminal.type("exit\r")
    assert terminal.wait() == 0
    phase = "--for=jsonpath={.status.phase}=Succeeded"
    cluster.kubectl("wait", "-n", namespace, phase, f"pod/{name}", "--timeout=30s")


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_cp_both_ways(cluster: Cluster, web: tuple[str, str], tmp_path: Path, extra: dict[str, str]) -> None:
    namespace, pod = web
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "a.txt").write_text("a\n")
    (tmp_path / "tree" / "sub" / "blob").write_bytes(os.urandom(300_000))
    target = "/tmp/copy-spdy" if extra else "/tmp/copy"
    there = run(cluster, extra, "cp", "-n", namespace, str(tmp_path / "tree"), f"{pod}:{target}")
    assert there.returncode == 0, there.stderr
    back = run(cluster, extra, "cp", "-n", namespace, f"{pod}:{target}", str(tmp_path / "back"))
    assert back.returncode == 0, back.stderr
    for name in ("a.txt", "sub/blob"):
        assert (tmp_path / "back" / name).read_bytes() == (tmp_path / "tree" / name).read_bytes()


@contextlib.contextmanager
def forward(
    cluster: Cluster, extra: dict[str, str], namespace: str, target: str, *ports: str
) -> Iterator[tuple[list[int], subprocess.Popen[str]]]:
    """(local ports, kubectl) of a port-forward that listens."""
    environment = {**cluster.environment, **extra}
    argv = [kubectl(), "port-forward", "--address=127.0.0.1", "-n", namespace, target, *(f":{port}" for port in ports)]
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        local = []
        for _ in ports:
            line = process.stdout.readline()
            found = re.match(r"Forwarding from 127\.0\.0\.1:(\d+) -> ", line)
            assert found, (line, process.communicate(timeout=10)[1])
            local.append(int(found[1]))
        yield local, process
    finally:
        process.kill()
        process.communicate()


def fetch(port: int, path: str = "/") -> bytes:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=20) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("extra", TRANSPORTS)
@pytest.mark.parametrize("target", ["pod/web", "service/web"])
def test_port_forward(cluster: Cluster, web: tuple[str, str], target: str, extra: dict[str, str]) -> None:
    port = "8080" if target.startswith("pod") else "80"
    with forward(cluster, extra, web[0], target, port) as ((local,), _):
        for _ in range(3):
            assert fetch(local) == b"top\n"
        first = fetch(local, "/big")
        assert len(first) == 8 * 1024 * 1024
        assert fetch(local, "/big") == first


@pytest.mark.parametrize("extra", TRANSPORTS)
def test_port_forward_where_nothing_listens(cluster: Cluster, web: tuple[str, str], extra: dict[str, str]) -> None:
    with forward(cluster, extra, web[0], "pod/web", "8080", "81") as ((good, bad), process):
        assert fetch(good) == b"top\n"
        with pytest.raises((urllib.error.URLError, ConnectionError, OSError)):
            fetch(bad)
        told = process.communicate(timeout=20)[1]
        assert "error forwarding port 81 to pod" in told
        assert "connection refused" in told


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param("pods/web/proxy/", "top\n", id="pod"),
        pytest.param("pods/http:web:8080/proxy/sub/a.txt", "deep\n", id="scheme-and-port"),
        pytest.param("services/web:80/proxy/", "top\n", id="service"),
    ],
)
def test_proxy(cluster: Cluster, web: tuple[str, str], path: str, answer: str) -> None:
    assert cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{web[0]}/{path}") == answer


def test_proxy_where_nothing_listens(cluster: Cluster, web: tuple[str, str]) -> None:
    told = cluster.kubectl("get", "--raw", f"/api/v1/namespaces/{web[0]}/pods/web:81/proxy/", check=False)
    assert re.search(r"error trying to reach service: dial tcp [\d.]+:81: connect: connection refused", told)


def test_run_and_see_what_a_quick_command_said(cluster: Cluster, web: tuple[str, str]) -> None:
    told = cluster.kubectl(
        "run", "quick", "-n", web[0], "-i", "--rm", "-q", "--image=busybox", "--restart=Never", "--", "cat",
        stdin="through and through\n",
    )  # fmt: skip
    assert "through and through" in told
