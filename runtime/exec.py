"""Commands inside running containers.

`crun exec` is run once per command; it enters the container's namespaces and group and passes the exit code on. It is
told the whole process, the container's own with another command: by itself it would run commands as root. Whether the
command ever ran is told by the pid file. Called by ExecSync and by the stream server.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from linux.pidfd import ProcessRef
from runtime import orphans
from runtime.child import PIPE, Child, read_all
from runtime.conmon import Crun, plan_start_error
from runtime.containers import Container
from runtime.faults import BadConfig, RuntimeFault, WrongState
from runtime.records import RUNNING

OUTPUT_LIMIT = 16 << 20  # the CRI's bound for ExecSync
KILL_WAIT = 5.0


class ExecFailed(RuntimeFault):
    """The command could not be run at all."""


@dataclass
class ExecResult:
    """What a finished command left."""

    stdout: bytes
    stderr: bytes
    exit_code: int


def plan_process(spec: dict[str, Any], command: list[str], *, tty: bool) -> dict[str, Any]:
    """The container's process with another command: same user, groups, capabilities, environment, folder. Pure."""
    process = dict(spec["process"])
    environment = list(process.get("env") or ())
    if tty and not any(each.startswith("TERM=") for each in environment):
        environment.append("TERM=xterm")
    return {**process, "args": command, "env": environment, "terminal": tty}


@dataclass
class ExecFiles:
    """Scratch files of one exec: whose pid it is, and what crun complained."""

    folder: Path
    token: str = field(default_factory=lambda: secrets.token_hex(8))

    @property
    def pid(self) -> Path:
        """Where crun writes the command's pid, once it runs."""
        return self.folder / f"exec-{self.token}.pid"

    @property
    def errors(self) -> Path:
        """Where crun writes its own errors, apart from the command's stderr."""
        return self.folder / f"exec-{self.token}.log"

    @property
    def process(self) -> Path:
        """What is to be run, as crun reads it."""
        return self.folder / f"exec-{self.token}.json"

    @property
    def console(self) -> Path:
        """Where crun hands over the terminal."""
        return self.folder / f"{self.token}.con"

    def argv(self, crun: Crun, container: Container, command: list[str], *, tty: bool = False) -> list[str]:
        """crun's command line; writes the process file. Raises WrongState when the container is gone meanwhile."""
        try:
            spec = json.loads((crun.state_folder(container.record.id) / "config.json").read_bytes())
        except OSError as error:
            raise WrongState(f"container is not running: {error.strerror}") from error
        process = json.dumps(plan_process(spec, command, tty=tty)).encode()
        descriptor = os.open(self.process, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:  # it holds the container's environment
            file.write(process)
        extra = ["--tty", "--console-socket", str(self.console)] if tty else []
        return [
            crun.command, *crun.global_args, "--log", f"file:{self.errors}", "exec", *extra,
            "--pid-file", str(self.pid), "--process", str(self.process), container.record.id,
        ]  # fmt: skip

    def failure(self, command: list[str]) -> ExecFailed | None:
        """Why the command never ran; None when it did."""
        if self.pid.exists():
            return None
        said = ""
        with suppress(OSError):
            said = self.errors.read_text(errors="replace")
        reason = plan_start_error(said, command[0])
        return ExecFailed(
            f"failed to exec in container: OCI runtime exec failed: unable to start container process: {reason}"
        )

    def kill(self) -> None:
        """Kill the command, if it runs."""
        with suppress(OSError, ValueError):
            ref = ProcessRef.of(int(self.pid.read_text()))
            if ref is not None:
                ref.send(signal.SIGKILL)

    def remove(self) -> None:
        """Delete the scratch files, and collect a command that outlived its crun."""
        orphans.collect_all()
        for path in (self.pid, self.errors, self.process, self.console):
            path.unlink(missing_ok=True)


async def exec_sync(crun: Crun, container: Container, command: list[str], timeout: float | None) -> ExecResult:
    """Run a command to its end. Raises DEADLINE_EXCEEDED past the timeout, and ExecFailed when it cannot run."""
    if not command:
        raise BadConfig("exec needs a command")
    if container.record.state != RUNNING:
        raise WrongState(f"container is in {container.record.state} state")
    files = ExecFiles(crun.sockets)
    try:
        child = Child(files.argv(crun, container, command), stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(timeout):
                stdout, stderr, code = await asyncio.gather(
                    read_all(child.stdout, OUTPUT_LIMIT), read_all(child.stderr, OUTPUT_LIMIT), child.wait()
                )
        except TimeoutError:
            raise RuntimeFault(
                f"failed to exec in container: timeout {timeout:g}s exceeded: context deadline exceeded",
                "DEADLINE_EXCEEDED",
            ) from None
        finally:
            if not child.ended:
                files.kill()
            await child.finish(KILL_WAIT)
        failure = files.failure(command) if code else None
        if failure is not None:
            raise failure
        return ExecResult(stdout, stderr, code)
    finally:
        files.remove()
