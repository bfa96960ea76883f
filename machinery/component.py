"""The life of a component process: flags, loop, signals, health endpoint, clean exit.

`run` is the only place where a process gets an event loop. It returns when the component's main ends or a
SIGTERM/SIGINT asked it to (`ctx.stop`), and cancels what is left after a bounded grace.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from machinery import log as logs
from machinery.clock import Clock, RealClock
from machinery.health import HealthServer

STOP_GRACE = 10.0  # real seconds between the wish to stop and cancellation
GC_THRESHOLDS = (3000, 20, 20)
"""Allocations before a young collection, and collections before an older one. With Python's own (700, 10, 10) an API
server under load spent 11-14 % of its time collecting next to nothing, with these 2-5 %, and pauses are as short."""


@dataclass
class ComponentContext:
    """What every component's main is given."""

    name: str
    clock: Clock
    stop: asyncio.Event
    health: HealthServer
    log: logging.Logger
    failed: bool = field(default=False)

    async def until_stopped(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work` until it ends or `stop` is set; then cancel it. Errors of `work` propagate."""
        task = asyncio.ensure_future(work)
        stopper = asyncio.ensure_future(self.stop.wait())
        try:
            await asyncio.wait({task, stopper}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            for each in (task, stopper):
                each.cancel()
            await asyncio.gather(task, stopper, return_exceptions=True)


def parser(prog: str, description: str) -> argparse.ArgumentParser:
    """An argument parser with the flags that every component has."""
    made = argparse.ArgumentParser(prog=prog, description=description)
    made.add_argument("--time-scale", type=float, default=1.0, help="cluster seconds per real second (default 1)")
    made.add_argument("--log-level", choices=logs.LEVELS, default="info")
    made.add_argument(
        "--log-max-size", type=int, default=0, metavar="MIB", help="rotate the file that standard error is (0: never)"
    )
    made.add_argument(
        "--healthz",
        default="",
        metavar="ADDRESS",
        help="serve /healthz /livez /readyz /metrics on unix:PATH or HOST:PORT",
    )
    return made


def run(name: str, args: argparse.Namespace, main: Callable[[ComponentContext], Awaitable[None]]) -> int:
    """Run a component to its end; returns the exit code (0 after a wish to stop, 1 after an error)."""
    import uvloop

    os.umask(0o022)  # what is made for containers must be readable in them, whatever the user's habit is
    # Components start programs (nft, conmon) by fork and exec while gRPC's threads run; gRPC must not act on that.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    logs.setup(name, args.log_level, args.log_max_size)
    log = logs.get(name)
    try:
        clock = RealClock(args.time_scale)
    except ValueError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2

    async def body() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        health = HealthServer(args.healthz)
        await health.start()
        context = ComponentContext(name, clock, stop, health, log)
        task = asyncio.ensure_future(main(context))
        waiter = asyncio.ensure_future(stop.wait())
        gc.collect()
        gc.set_threshold(*GC_THRESHOLDS)
        gc.freeze()  # what start-up made lives as long as the process: full collections need not look at it
        try:
            await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                log.info("Stopping")
                await asyncio.wait({task}, timeout=STOP_GRACE + getattr(args, "shutdown_delay_duration", 0.0))
            if not task.done():
                log.warning("Cancelled work that did not stop in time")
        finally:
            for each in (task, waiter):
                each.cancel()
            results = await asyncio.gather(task, return_exceptions=True)
            await health.close()
        if isinstance(results[0], Exception):
            raise results[0]

    try:
        uvloop.run(body())
    except KeyboardInterrupt:
        return 0
    except SystemExit as wish:
        return int(wish.code or 0)
    except OSError as error:
        log.error("Failed", extra=logs.kv(error=error))  # noqa: TRY400  a missing file or taken port needs no traceback
        return 1
    except Exception:
        log.exception("Failed")
        return 1
    return 0
