"""Launching containers through conmon, and crun's own verbs.

Owns the command lines, the pipes conmon reports through, and the private view of cgroups that crun needs on hybrid
machines. A conmon outlives this process: it keeps the container's stdio and log, and writes its exit code to a file.
Called by the container lifecycle and by exec.
"""

from __future__ import annotations

import asyncio
import os
import re
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from linux.cgroup import Layout
from machinery.log import get
from runtime.child import PIPE, Child, read_all
from runtime.faults import RuntimeFault
from runtime.fdio import Descriptor

OUTPUT_LIMIT = 1 << 20
LAUNCH_TIMEOUT = 60.0  # real seconds; a loaded machine is slow, a stuck one must not block a slot forever
_MISSING = re.compile(r"executable file `(?P<name>[^`]*)` not found in \$PATH")

log = get("runtime.conmon")


class LaunchError(RuntimeFault):
    """The OCI runtime refused to create the container; the message is for the user."""


class _Report(msgspec.Struct):
    data: int | None = None
    pid: int | None = None
    message: str = ""


@dataclass(frozen=True)
class Launch:
    """What conmon needs to know of one container."""

    identity: str
    bundle: Path
    log_path: str
    tty: bool
    stdin: bool
    stdin_once: bool = False


def plan_start_error(message: str, argv0: str) -> str:
    """The OCI runtime's complaint in the words users of Kubernetes know. Pure."""
    text = message.strip().splitlines()[-1].strip() if message.strip() else "unknown error"
    missing = _MISSING.search(text)
    if missing:
        name = missing["name"]
        reason = f"stat {name}: no such file or directory" if "/" in name else "executable file not found in $PATH"
        text = f'exec: "{name}": {reason}'
    elif "open executable" in text or ("Permission denied" in text and "exec" in text):
        text = f'exec: "{argv0}": permission denied'
    return text


class Crun:
    """crun's command line for one state folder."""

    def __init__(self, state: Path, layout: Layout, *, crun: str = "crun", conmon: str = "conmon") -> None:
        self._binary = _find(crun)
        self._conmon = _find(conmon)
        self._root = state / "crun"
        self.exits = state / "exits"
        self.sockets = state / "sockets"
        for folder in (self._root, self.exits, self.sockets):
            folder.mkdir(parents=True, exist_ok=True)
        self.command = self._binary
        if layout.hybrid and not layout.unified:
            self.command = str(self._write_wrapper(state / "crun-v1", str(layout.v2)))

    def _write_wrapper(self, path: Path, v2: str) -> Path:
        """crun takes a machine with v1 and v2 mounts for a broken one: run it where the v2 mount is not seen."""
        text = (
            "#!/bin/sh\n"
            "exec unshare --mount --propagation slave /bin/sh -c "
            f'\'umount {v2}; exec {self._binary} "$@"\' crun "$@"\n'
        )
        with suppress(FileNotFoundError):
            if path.read_text() == text:
                return path
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.chmod(0o755)
        temporary.rename(path)
        return path

    @property
    def global_args(self) -> list[str]:
        """Arguments before every verb."""
        return ["--root", str(self._root), "--cgroup-manager", "cgroupfs"]

    def argv(self, *args: str) -> list[str]:
        """A complete crun command line."""
        return [self.command, *self.global_args, *args]

    def state_folder(self, identity: str) -> Path:
        """Where crun keeps one container."""
        return self._root / identity

    def forget(self, identity: str) -> None:
        """Drop crun's and conmon's notes of a dead container: what `crun delete` does, without a process."""
        shutil.rmtree(self.state_folder(identity), ignore_errors=True)
        (self.exits / identity).unlink(missing_ok=True)

    async def create(self, launch: Launch) -> tuple[int, int]:
        """Create the container, its process waiting to be released; returns (its pid, conmon's pid)."""
        bundle = launch.bundle
        report_read, report_write = os.pipe()
        start_read, start_write = os.pipe()
        argv = [
            self._conmon, "--api-version", "1", "-c", launch.identity, "-u", launch.identity, "-n", launch.identity,
            "-r", self.command, *(part for arg in self.global_args for part in ("--runtime-arg", arg)),
            "-b", str(bundle), "-p", str(bundle / "pid"), "-P", str(bundle / "conmon.pid"),
            "-l", f"k8s-file:{launch.log_path or os.devnull}", "--exit-dir", str(self.exits),
            "--persist-dir", str(bundle), "--log-level", "error", "--full-attach", "--no-sync-log",
        ]  # fmt: skip
        if launch.tty:
            argv.append("-t")
        if launch.stdin:
            argv.append("-i")
            if not launch.stdin_once:
                argv.append("--leave-stdin-open")
        env = {
            "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
            "_OCI_SYNCPIPE": str(report_write),
            "_OCI_STARTPIPE": str(start_read),
            "XDG_RUNTIME_DIR": "/run",
        }
        errors = os.open(bundle / "conmon.err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        report = Descriptor(report_read)
        try:
            # conmon leaves a file "oom" in its working folder, besides the one in the persist folder that is read here.
            child = Child(
                argv,
                stderr=errors,
                pass_fds=(report_write, start_read),
                env=env,
                new_session=True,
                folder=str(bundle),
            )
        except BaseException:
            report.close()
            os.close(start_write)
            raise
        finally:
            for fd in (errors, report_write, start_read):
                os.close(fd)
        try:
            os.write(start_write, b"\0")
            async with asyncio.timeout(LAUNCH_TIMEOUT):
                raw = await _read_line(report)
                await child.wait()  # conmon has detached itself by now
        except TimeoutError:
            raise LaunchError("the container runtime did not answer in time", "DEADLINE_EXCEEDED") from None
        finally:
            os.close(start_write)
            report.close()
            child.kill()
        return self._created(raw, bundle)

    @staticmethod
    def _created(raw: bytes, bundle: Path) -> tuple[int, int]:
        try:
            report = msgspec.json.decode(raw, type=_Report)
        except (msgspec.DecodeError, msgspec.ValidationError):
            report = _Report()
        pid = report.data if report.data is not None else report.pid
        if pid is None or pid <= 0:
            said = (bundle / "conmon.err").read_text(errors="replace")[-500:]
            raise LaunchError(report.message or said or "conmon failed")
        try:
            return pid, int((bundle / "conmon.pid").read_text())
        except (OSError, ValueError) as error:
            raise LaunchError(f"conmon left no pid: {error}") from error

    async def release(self, identity: str) -> None:
        """Let a created container's process run: what `crun start` does, without a process where possible."""
        fifo = self.state_folder(identity) / "exec.fifo"
        try:
            fd = os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            code, _, errors = await self.run("start", identity)
            if code != 0:
                raise LaunchError(errors.decode(errors="replace")) from None
            return
        try:
            os.write(fd, b"\0")
        finally:
            os.close(fd)
        fifo.unlink(missing_ok=True)  # its absence is how crun knows that the container was started

    async def run(self, *args: str, timeout: float = LAUNCH_TIMEOUT) -> tuple[int, bytes, bytes]:
        """Run a crun verb to its end: (exit code, stdout, stderr)."""
        child = Child(self.argv(*args), stdout=PIPE, stderr=PIPE)
        try:
            async with asyncio.timeout(timeout):
                out, errors, code = await asyncio.gather(
                    read_all(child.stdout, OUTPUT_LIMIT), read_all(child.stderr, OUTPUT_LIMIT), child.wait()
                )
        except TimeoutError:
            raise RuntimeFault(f"crun {args[0]} did not end in time", "DEADLINE_EXCEEDED") from None
        finally:
            await child.finish(1.0)
        return code, out, errors

    def exit_code(self, identity: str) -> tuple[int, int] | None:
        """(exit code, when in ns) that conmon wrote, or None."""
        path = self.exits / identity
        try:
            text = path.read_text()
            return int(text), path.stat().st_mtime_ns
        except (OSError, ValueError):
            return None


def reopen_log(bundle: Path) -> None:
    """Tell conmon to reopen its log file."""
    control(bundle, b"2 0 0\n")


def resize(bundle: Path, width: int, height: int) -> None:
    """Set the size of a container's terminal."""
    control(bundle, f"1 {height} {width}\n".encode())


def control(bundle: Path, message: bytes) -> None:
    """Write to conmon's control file. Raises RuntimeFault when conmon is gone."""
    try:
        fd = os.open(bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise RuntimeFault(f"the container's monitor is gone: {error.strerror}") from error
    try:
        os.write(fd, message)
    finally:
        os.close(fd)


async def _read_line(source: Descriptor) -> bytes:
    """Bytes up to the first newline or the end."""
    data = b""
    while b"\n" not in data and (piece := await source.read()):
        data += piece
    return data.split(b"\n", 1)[0]


def _find(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise RuntimeFault(f"{name} is not installed on this machine (package {name})", "FAILED_PRECONDITION")
    return found
