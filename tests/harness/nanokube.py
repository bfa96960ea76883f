"""A real cluster driven as a user drives it: `./nanokube` and kubectl as programs, and polling with a deadline."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
CHECKOUT = Path(__file__).resolve().parents[2]
STATE = Path(os.environ.get("NANOKUBE_STATE") or "/var/lib/nanokube")
COMMAND_TIMEOUT = 120.0


def eventually(probe: Callable[[], T], what: str, timeout: float = 60.0, pause: float = 0.05) -> T:
    """Call `probe` until it returns something true; AssertionError with its last answer after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, f"waited {timeout:.0f} s for {what}; last: {found!r}"
        time.sleep(pause)


class Cluster:
    """One cluster by name, in the machine's state folder, with a home folder (kubeconfig, caches) of its own."""

    def __init__(self, name: str, home: Path) -> None:
        self.name = name
        self.root = STATE / name
        self.environment = {**os.environ, "KUBECONFIG": str(home / "kubeconfig"), "HOME": str(home)}
        self.environment["PATH"] += ":/usr/sbin:/sbin"

    def nanokube(self, *arguments: str, check: bool = True, timeout: float = COMMAND_TIMEOUT) -> str:
        """Run `./nanokube …` on this cluster; returns standard output."""
        command, *rest = arguments
        return self._run([str(CHECKOUT / "nanokube"), command, "--name", self.name, *rest], check, timeout)

    def fails(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `./nanokube …`, expecting a non-zero exit."""
        command, *rest = arguments
        done = subprocess.run(
            [str(CHECKOUT / "nanokube"), command, "--name", self.name, *rest],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=COMMAND_TIMEOUT,
            check=False,
        )
        assert done.returncode != 0, done.stdout
        return done

    def kubectl(self, *arguments: str, check: bool = True, stdin: str | None = None, timeout: float = 90.0) -> str:
        """Run the stock kubectl; returns standard output (and error, when it may fail)."""
        return self._run([kubectl(), *arguments], check, timeout, stdin)

    def _run(self, argv: list[str], check: bool, timeout: float, stdin: str | None = None) -> str:
        done = subprocess.run(
            argv,
            env=self.environment,
            input=stdin,
            stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check:
            assert done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
            return done.stdout
        return done.stdout + done.stderr

    def get(self, *arguments: str) -> Any:
        """`kubectl get … -o json`, decoded."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def items(self, *arguments: str) -> list[dict[str, Any]]:
        """The items of a list."""
        found: list[dict[str, Any]] = self.get(*arguments)["items"]
        return found

    def processes(self) -> list[dict[str, Any]]:
        """`nanokube status -o json`."""
        found: list[dict[str, Any]] = json.loads(self.nanokube("status", "-o", "json"))
        return found

    def pid(self, component: str, node: str = "") -> int:
        """Pid of a process, 0 while it does not run."""
        for entry in self.processes():
            if (entry["component"], entry["node"]) == (component, node):
                return int(entry["pid"])
        raise AssertionError(f"no {component} {node}")

    def ready_nodes(self) -> set[str]:
        """Names of Ready nodes."""
        return {
            node["metadata"]["name"]
            for node in self.items("nodes")
            for condition in node["status"].get("conditions", ())
            if condition["type"] == "Ready" and condition["status"] == "True"
        }

    def pods(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Pods by label selector."""
        return self.items("pods", "-n", namespace, "-l", selector)

    def running(self, selector: str, namespace: str = "default") -> list[dict[str, Any]]:
        """Pods that are Ready and not going away."""
        return [pod for pod in self.pods(selector, namespace) if is_ready(pod)]


def brought_up(cluster: Cluster, *arguments: str) -> Iterator[Cluster]:
    """`up` before and `down` after, whatever happens: the body of a fixture."""
    cluster.nanokube("down")
    try:
        cluster.nanokube("up", *arguments)
        yield cluster
    finally:
        cluster.nanokube("down")


def is_ready(pod: dict[str, Any]) -> bool:
    """Whether a pod is Ready and stays."""
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def kubectl() -> str:
    """The machine's kubectl, or the one `./nanokube kubectl` brought; the variable KUBECTL names another to try."""
    if chosen := os.environ.get("KUBECTL"):
        return chosen
    found = shutil.which("kubectl")
    if found:
        return found
    private = STATE / "tools" / "kubectl" / "usr" / "bin" / "kubectl"
    assert private.exists(), "no kubectl: run `./nanokube test`, which brings one"
    return str(private)


def traces(cluster: Cluster) -> list[str]:
    """What a cluster may leave on the machine."""
    found = []
    for folder, _, _ in os.walk("/sys/fs/cgroup"):
        if folder.endswith(f"/nanokube/{cluster.name}"):
            found.append(folder)
    mounts = Path("/proc/self/mountinfo").read_text()
    found += [line for line in mounts.splitlines() if f"{cluster.root}/" in line]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"({cluster.name})" in line or f"{cluster.root}/" in line:
            found.append(line)
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if f"{cluster.root}/" in backing.read_text():
                found.append(str(backing))
    if cluster.root.exists():
        found.append(str(cluster.root))
    return found
