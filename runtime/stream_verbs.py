"""What happens on an accepted stream: a command, a container's own stdio, or TCP connections into a pod.

Pumps between the WebSocket's channels and descriptors until either side ends. Called by the stream server.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from linux import netns
from proto.cri.v1 import cri_pb2 as cri
from runtime import conmon
from runtime.child import NULL, PIPE, Child
from runtime.conmon import Crun
from runtime.containers import Container
from runtime.exec import KILL_WAIT, ExecFiles
from runtime.faults import RuntimeFault, WrongState
from runtime.fdio import CHUNK, Descriptor
from runtime.records import RUNNING
from runtime.streams import CLOSE, ERROR, RESIZE, STDERR, STDIN, STDOUT, Channels, parse_size, plan_status

CONSOLE_TIMEOUT = 30.0
CONNECT_TIMEOUT = 10.0
DRAIN_TIMEOUT = 2.0  # real seconds for output that is still on its way when the command has ended
_ATTACH_STDERR = 3  # conmon's mark of a packet from stderr

Write = Callable[[bytes], Awaitable[None]]
Resize = Callable[[int, int], None]


async def _feed(channels: Channels, write: Write | None, finish: Callable[[], None], resize: Resize | None) -> None:
    """Pass the client's messages on until it is gone."""
    while (message := await channels.receive()) is not None:
        channel, data = message
        if channel == STDIN and write is not None and data:
            with suppress(OSError):
                await write(data)
        elif channel == RESIZE and resize is not None:
            size = parse_size(data)
            if size is not None:
                with suppress(OSError, RuntimeFault):
                    resize(*size)
        elif channel == CLOSE and data[:1] == bytes([STDIN]):
            finish()
            write = None


async def _until_first(main: Awaitable[int], feeder: Awaitable[None]) -> int | None:
    """Run both; the code of `main`, or None when the client left first (then `main` is cancelled)."""
    work, feed = asyncio.ensure_future(main), asyncio.ensure_future(feeder)
    try:
        await asyncio.wait({work, feed}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        for task in (work, feed):
            task.cancel()
        await asyncio.gather(work, feed, return_exceptions=True)


async def serve_exec(channels: Channels, request: cri.ExecRequest, crun: Crun, container: Container) -> None:
    """Run a command with its stdio on the channels; its exit code ends the stream."""
    if container.record.state != RUNNING:
        raise WrongState(f"container is in {container.record.state} state")
    files = ExecFiles(crun.sockets)
    command = list(request.cmd)
    try:
        if request.tty:
            code = await _exec_tty(channels, request, crun, container, files)
        else:
            code = await _exec_pipes(channels, request, crun, container, files)
        failure = files.failure(command) if code else None
        if failure is not None:
            raise failure
        if code is not None:
            await channels.send(ERROR, plan_status(code))
    finally:
        files.kill()
        files.remove()


async def _exec_pipes(
    channels: Channels, request: cri.ExecRequest, crun: Crun, container: Container, files: ExecFiles
) -> int | None:
    argv = files.argv(crun, container, list(request.cmd))
    child = Child(argv, stdin=PIPE if request.stdin else NULL, stdout=PIPE, stderr=PIPE)

    def finish() -> None:
        if child.stdin is not None:
            child.stdin.close()

    async def pump(source: Descriptor | None, channel: int, wanted: bool) -> None:
        while source is not None and (data := await source.read()):
            if wanted:
                await channels.send(channel, data)

    async def run() -> int:
        await asyncio.gather(
            pump(child.stdout, STDOUT, request.stdout or not request.stderr), pump(child.stderr, STDERR, request.stderr)
        )
        return await child.wait()

    try:
        write = child.stdin.write if child.stdin is not None else None
        return await _until_first(run(), _feed(channels, write, finish, None))
    finally:
        if not child.ended:
            files.kill()
        await asyncio.shield(child.finish(KILL_WAIT))


async def _exec_tty(
    channels: Channels, request: cri.ExecRequest, crun: Crun, container: Container, files: ExecFiles
) -> int | None:
    folder = os.open(files.folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    child: Child | None = None
    terminal: Descriptor | None = None
    try:
        # By descriptor: the path may be longer than a socket's name can be.
        listener.bind(f"/proc/self/fd/{folder}/{files.console.name}")
        listener.listen(1)
        console = f"/proc/{os.getpid()}/fd/{folder}/{files.console.name}"
        argv = [
            console if each == str(files.console) else each
            for each in files.argv(crun, container, list(request.cmd), tty=True)
        ]
        child = Child(argv)
        ended = asyncio.ensure_future(child.wait())
        terminal = await _receive_terminal(listener, ended)
        if terminal is None:
            return await ended
        master = terminal

        def resize(width: int, height: int) -> None:
            fcntl.ioctl(master.fd, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

        async def run() -> int:
            output = asyncio.ensure_future(_pump_terminal(channels, master))
            try:
                code = await ended
                # A background process may keep the terminal open: what is there is sent, the rest is not waited for.
                await asyncio.wait({output}, timeout=DRAIN_TIMEOUT)
                return code
            finally:
                output.cancel()
                await asyncio.gather(output, return_exceptions=True)

        write = master.write if request.stdin else None
        return await _until_first(run(), _feed(channels, write, lambda: None, resize))
    finally:
        listener.close()
        os.close(folder)
        if child is not None:
            if not child.ended:
                files.kill()
            await asyncio.shield(child.finish(KILL_WAIT))
        if terminal is not None:
            terminal.close()


async def _pump_terminal(channels: Channels, terminal: Descriptor) -> None:
    while data := await terminal.read():
        await channels.send(STDOUT, data)


async def _receive_terminal(listener: socket.socket, ended: asyncio.Future[int]) -> Descriptor | None:
    """The terminal that crun hands over, or None when crun ended without."""
    loop = asyncio.get_running_loop()
    accepting = asyncio.ensure_future(loop.sock_accept(listener))
    try:
        waits: set[asyncio.Future[Any]] = {accepting, ended}
        await asyncio.wait(waits, timeout=CONSOLE_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not accepting.done():
            if ended.done():
                return None
            raise RuntimeFault("the container runtime handed over no terminal in time", "DEADLINE_EXCEEDED")
        connection, _ = accepting.result()
    finally:
        accepting.cancel()
    with connection:
        connection.setblocking(True)
        connection.settimeout(CONSOLE_TIMEOUT)
        _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, connection, 4096, 1)
    if not fds:
        raise RuntimeFault("the container runtime handed over no terminal")
    return Descriptor(fds[0])


async def serve_attach(channels: Channels, request: cri.AttachRequest, container: Container, bundle: Path) -> None:
    """Connect the channels with the stdio of the container's first process, through its conmon."""
    if container.record.state != RUNNING:
        raise WrongState(f"container is in {container.record.state} state")
    folder = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(f"/proc/self/fd/{folder}/attach")  # local and listening: never blocks
    except OSError as error:
        connection.close()
        raise RuntimeFault(f"cannot attach: {error.strerror}") from error
    finally:
        os.close(folder)
    stream = Descriptor(connection.detach())

    async def run() -> int:
        while packet := await stream.read():
            if packet[0] == _ATTACH_STDERR:
                if request.stderr or not request.tty:
                    await channels.send(STDERR, packet[1:])
            elif request.stdout or request.tty:
                await channels.send(STDOUT, packet[1:])
        return 0

    async def write(data: bytes) -> None:
        for offset in range(0, len(data), 8192):  # conmon reads packets of at most this size
            await stream.write(data[offset : offset + 8192])

    def finish() -> None:
        with suppress(OSError), socket.socket(fileno=os.dup(stream.fd)) as other:
            other.shutdown(socket.SHUT_WR)

    def resize(width: int, height: int) -> None:
        conmon.resize(bundle, width, height)

    try:
        wants_stdin = request.stdin and container.config.stdin
        feeder = _feed(channels, write if wants_stdin else None, finish, resize if container.config.tty else None)
        if await _until_first(run(), feeder) is not None:
            await channels.send(ERROR, plan_status(0))
    finally:
        stream.close()


async def serve_port_forward(channels: Channels, ports: list[int], namespace: str) -> None:
    """One TCP connection per port to the pod's loopback, data on channel 2i and errors on 2i+1."""
    if not ports:
        raise RuntimeFault("port-forward needs a port", "INVALID_ARGUMENT")
    loop = asyncio.get_running_loop()
    connected: list[asyncio.Future[asyncio.StreamWriter | None]] = [loop.create_future() for _ in ports]

    async def serve(number: int, port: int) -> None:
        head = struct.pack("<H", port)
        await channels.send(2 * number, head)
        await channels.send(2 * number + 1, head)
        try:
            reader, writer = await _connect(namespace, port)
        except OSError as error:
            connected[number].set_result(None)
            reason = (error.strerror or str(error)).lower()
            text = (
                f"failed to connect to localhost:{port} inside namespace: dial tcp4 127.0.0.1:{port}: connect: {reason}"
            )
            await channels.send(2 * number + 1, text.encode())
            return
        connected[number].set_result(writer)
        with suppress(ConnectionError):
            while data := await reader.read(CHUNK):
                await channels.send(2 * number, data)

    async def all_ports() -> int:
        await asyncio.gather(*(serve(number, port) for number, port in enumerate(ports)))
        return 0

    async def feed() -> None:
        while (message := await channels.receive()) is not None:
            channel, data = message
            if channel == CLOSE and data:
                channel, data = data[0], b""
            number, is_error = divmod(channel, 2)
            if is_error or number >= len(ports):
                continue
            writer = await asyncio.shield(connected[number])  # bounded by the connection's timeout
            if writer is None:
                continue
            with suppress(ConnectionError, RuntimeError):
                if data:
                    writer.write(data)
                    await writer.drain()
                elif writer.can_write_eof():
                    writer.write_eof()

    try:
        await _until_first(all_ports(), feed())
    finally:
        for future in connected:
            writer = future.result() if future.done() else None
            if writer is not None:
                writer.close()


async def _connect(namespace: str, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    def dial() -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), timeout=CONNECT_TIMEOUT)

    made = await asyncio.to_thread(netns.run_in, namespace, dial) if namespace else await asyncio.to_thread(dial)
    made.setblocking(False)
    return await asyncio.open_connection(sock=made)
