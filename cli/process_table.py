"""The processes of a cluster: forked, seen to end, started again with back-off, stopped.

Owns who is wanted and the note of what runs (`processes.json`), for a later supervisor or `down`. Part of the
supervisor: single-threaded, without a loop and without any gRPC object, so that forking is safe (grpc/grpc#13873).
"""

from __future__ import annotations

import contextlib
import importlib
import os
import select
import selectors
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from cli.layout import ClusterConfig, ClusterPaths
from cli.machines import cluster_cgroup, machine_of
from cli.processes import ProcessSpec
from cli.supervised_logs import cut_under, tell
from linux import pidfd
from linux.cgroup import Cgroups

FIRST_BACKOFF, LAST_BACKOFF, STABLE = 0.1, 5.0, 10.0  # seconds; a process that ran STABLE starts afresh
STOP_TIMEOUT = 8.0


@dataclass
class Managed:
    """One entry of the process table. `wanted` is False for what was stopped on purpose."""

    spec: ProcessSpec
    wanted: bool = True
    pid: int = 0
    fd: int = -1
    started: float = 0.0
    backoff: float = FIRST_BACKOFF
    retry_at: float = 0.0
    restarts: int = 0
    exit_code: int | None = None

    @property
    def running(self) -> bool:
        return self.pid != 0

    def describe(self) -> dict[str, Any]:
        spec = self.spec
        return {
            "name": spec.name,
            "component": spec.component,
            "node": spec.node,
            "pid": self.pid,
            "address": spec.address,
            "health": spec.health,
            "restarts": self.restarts,
            "exitCode": self.exit_code,
        }


class ProcessTable:
    """Entries by name. Whoever waits on the selector calls `reap` for an entry whose descriptor became readable."""

    def __init__(
        self, paths: ClusterPaths, config: ClusterConfig, cgroups: Cgroups, selector: selectors.BaseSelector
    ) -> None:
        self._paths = paths
        self._config = config
        self._cgroups = cgroups
        self._selector = selector
        self.entries: dict[str, Managed] = {}
        self.closing = False
        """Nobody is started again."""

    def of_node(self, node: str) -> list[Managed]:
        return [each for each in self.entries.values() if each.spec.node == node]

    def keep(self, specs: Iterable[ProcessSpec]) -> None:
        for spec in specs:
            managed = self.entries.get(spec.name)
            if managed is None:
                managed = self.entries[spec.name] = Managed(spec)
            managed.spec, managed.wanted, managed.backoff = spec, True, FIRST_BACKOFF
            if not managed.running:
                self.start(managed)
        self.record()

    def start(self, managed: Managed) -> None:
        spec = managed.spec
        try:
            pid = os.fork()
        except OSError as error:  # neither memory nor pids last for ever, nor does their lack
            tell(f"could not start {spec.name}: {error}")
            self._back_off(managed)
            return
        if pid == 0:
            self._child(spec)
        managed.pid, managed.started, managed.exit_code = pid, time.monotonic(), None
        managed.fd = os.pidfd_open(pid)
        self._selector.register(managed.fd, selectors.EVENT_READ, managed)

    def _child(self, spec: ProcessSpec) -> None:
        """Become the component; never returns."""
        code = 70
        try:
            os.setsid()
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_DFL)
            log = os.open(self._paths.logs / f"{spec.name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            null = os.open(os.devnull, os.O_RDONLY)
            os.dup2(null, 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.closerange(3, 4096)  # control socket, pidfds and epoll of the supervisor are not the child's
            if spec.node:
                machine_of(self._config, self._paths, self._config.node(spec.node)).enter(self._cgroups, os.getpid())
            else:
                self._cgroups.attach(f"{cluster_cgroup(self._config.name)}/control-plane", os.getpid())
            if spec.module:
                from setproctitle import setproctitle

                setproctitle(f"nanokube: {spec.component} {spec.node}".rstrip() + f" ({self._config.name})")
                code = importlib.import_module(f"{spec.module}.app").main(spec.argv)
            else:
                os.chdir(spec.folder)
                os.execv(spec.argv[0], spec.argv)
        except SystemExit as wish:
            code = wish.code if isinstance(wish.code, int) else 1
        except BaseException:  # noqa: BLE001  the child must not return into the supervisor's loop
            import traceback

            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def reap(self, managed: Managed) -> None:
        _, status = os.waitpid(managed.pid, 0)
        self._selector.unregister(managed.fd)
        os.close(managed.fd)
        managed.pid, managed.fd = 0, -1
        managed.exit_code = os.waitstatus_to_exitcode(status)
        # Killing a kubelet is an experiment, and it stays dead; one that failed by itself is restarted as any other.
        again = managed.spec.restart or managed.exit_code > 0
        if not (managed.wanted and again) or self.closing:
            managed.wanted = managed.wanted and again
            self.record()
            return
        if time.monotonic() - managed.started > STABLE:
            managed.backoff = FIRST_BACKOFF
        self._back_off(managed)
        self.record()

    @staticmethod
    def _back_off(managed: Managed) -> None:
        managed.retry_at = time.monotonic() + managed.backoff
        managed.backoff = min(managed.backoff * 2, LAST_BACKOFF)

    def until_retry(self) -> float | None:
        waiting = [each.retry_at for each in self.entries.values() if each.wanted and not each.running]
        return max(0.0, min(waiting) - time.monotonic()) if waiting else None

    def retry(self) -> None:
        due = [each for each in self.entries.values() if each.wanted and not each.running]
        for managed in due:
            if managed.retry_at <= time.monotonic() and not self.closing:
                managed.restarts += 1
                self.start(managed)
                self.record()

    def record(self) -> None:
        """What runs, for a later supervisor or `down` that finds this one dead."""
        table = [
            {"name": each.spec.name, "pid": each.pid, "start": pidfd.start_time(each.pid)}
            for each in self.entries.values()
            if each.running
        ]
        scratch = self._paths.run / ".processes.json"
        try:
            scratch.write_bytes(msgspec.json.encode(table))
            scratch.replace(self._paths.run / "processes.json")
        except OSError as error:  # a full disk must not end the one that keeps the others alive
            tell(f"could not note the processes down: {error}")

    def stop(self, stopping: Sequence[Managed]) -> None:
        """SIGTERM, bounded patience, SIGKILL. etcd goes last, when nobody needs it any more."""
        for last in (False, True):
            group = [each for each in stopping if each.running and (each.spec.component == "etcd") == last]
            for managed in group:
                managed.wanted = False
                os.kill(managed.pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT
            for managed in group:
                while managed.running:
                    if select.select([managed.fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
                        self.reap(managed)
                    else:
                        os.kill(managed.pid, signal.SIGKILL)
                        deadline = time.monotonic() + STOP_TIMEOUT

    def bound_logs(self, limit: int) -> None:
        """Cut the logs of programs that are no components of ours. Raises OSError."""
        for managed in self.entries.values():
            log = self._paths.logs / f"{managed.spec.name}.log"
            if not managed.spec.module and managed.running and log.stat().st_size > limit:
                cut_under(managed.pid, log)
