"""The process of the vertical pod autoscaler: flags, assembly, health, and its two loops."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from client.client import Client, add_client_flags, client_from_args, key_of
from client.events import EventRecorder
from client.informer import Informers
from client.rest import RestClient
from machinery import component, log
from machinery.clock import Clock
from machinery.component import ComponentContext
from machinery.decisions import DecisionServer
from machinery.errors import StatusError
from machinery.log import kv
from machinery.meta import ObjectKey
from machinery.tls import KeyPair
from proto.explain.v1 import explain_pb2 as pb
from vertical_autoscaler import conflicts, recommender, registration, updater
from vertical_autoscaler.admission import Admission
from vertical_autoscaler.checkpoints import Checkpoints
from vertical_autoscaler.door import Door
from vertical_autoscaler.explain import explained
from vertical_autoscaler.recommender import Reader, Recommender
from vertical_autoscaler.updater import Limiter, Updater
from vertical_autoscaler.world import World

NAME = "vertical-pod-autoscaler"
_log = log.get(__name__)


class Autoscaler:
    """Recommender, updater and admission, sharing their caches."""

    def __init__(self, client: Client, reader: Reader, clock: Clock, limiter: Limiter | None = None) -> None:
        self._client = client
        self._clock = clock
        self.informers = Informers(client, clock)
        self.world = World(client, self.informers)
        self.events = EventRecorder(client, clock, "vpa-updater")
        self.recommender = Recommender(client, self.world, reader, clock)
        self.checkpoints = Checkpoints(client, self.world, self.recommender, clock)
        self.updater = Updater(client, self.world, self.events, clock, limiter or Limiter())
        self.admission = Admission(self.world)

    async def run(self, url: str, authority: bytes, ready: Callable[[], None]) -> None:
        """Until cancelled. `url`: where the webhook is; `authority`: PEM of who signed its certificate."""
        wanted = registration.configuration(url, authority)

        async def recommend() -> None:
            await self.recommender.turn()
            await self.checkpoints.turn()

        async def update() -> None:
            # A pod that is evicted while nobody gives its successor anything would be evicted for ever.
            await registration.keep(self._client, wanted)
            await self.updater.turn()

        async def work() -> None:
            await self.informers.wait_synced()
            await self._insist(self.checkpoints.read, recommender.PERIOD)
            await self._insist(lambda: registration.keep(self._client, wanted), recommender.PERIOD)
            ready()
            async with asyncio.TaskGroup() as loops:
                loops.create_task(self._loop(recommend, recommender.PERIOD))
                loops.create_task(self._loop(update, updater.PERIOD))

        async with asyncio.TaskGroup() as group:
            group.create_task(self.informers.run())
            group.create_task(self.events.run())
            group.create_task(work())

    async def _insist(self, step: Callable[[], Awaitable[None]], period: float) -> None:
        """Do it until it was done."""
        while True:
            try:
                await step()
                return
            except StatusError as error:
                _log.warning("Failed to start", extra=kv(error=error.message))
            await self._clock.sleep(period / 10)

    async def _loop(self, turn: Callable[[], Awaitable[None]], period: float) -> None:
        while True:
            started = self._clock.monotonic()
            try:
                await turn()
            except StatusError as error:
                _log.warning("Failed a turn", extra=kv(error=error.message))
            except Exception:  # noqa: BLE001  logged: one odd object must not end the others' autoscaling
                _log.exception("Failed a turn")
            await self._clock.sleep(max(started + period - self._clock.monotonic(), period / 10))

    def explain(self, namespace: str, name: str) -> pb.Decision | None:
        """What is known of one autoscaler, for people."""
        key = ObjectKey(namespace, name)
        vpa = self.world.vpas.lister.get(key)
        if vpa is None:
            return None
        shared = conflicts.find([vpa], self.world.hpas.lister.list()).get(key_of(vpa), {})
        model, outcomes = self.recommender.models.get(key), self.updater.outcomes.get(key, [])
        return explained(vpa, self.world.target(vpa), model, shared, outcomes)


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Recommends requests from what containers used, and gives them to pods.")
    add_client_flags(made)
    made.add_argument("--rest-server", required=True, metavar="URL", help="the API server's REST door (metrics)")
    made.add_argument("--listen", required=True, metavar="HOST:PORT", help="HTTPS address of the webhook")
    made.add_argument("--tls-cert", type=Path, required=True, help="serving certificate")
    made.add_argument("--tls-key", type=Path, required=True, help="its key")
    made.add_argument("--explain", default="", metavar="unix:PATH", help="answer why pods were (not) changed")
    made.add_argument("--eviction-rate-limit", type=float, default=-1.0, help="evictions per second (below 0: any)")
    made.add_argument("--eviction-rate-burst", type=int, default=1)
    return made


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager=NAME)
    rest = RestClient(args.rest_server, KeyPair(args.ca, args.cert, args.key), user_agent=NAME)
    try:
        await context.until_stopped(_work(context, args, client, rest))
    finally:
        await rest.close()
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client, rest: RestClient) -> None:
    limiter = Limiter(args.eviction_rate_limit, args.eviction_rate_burst)
    autoscaler = Autoscaler(client, rest, context.clock, limiter)
    door = Door(autoscaler.admission.review, KeyPair(args.ca, args.tls_cert, args.tls_key))
    host, _, port = args.listen.rpartition(":")
    await door.start(host.strip("[]"), int(port))
    context.log.info("Serving", extra=kv(address=args.listen))
    context.health.ready("running", False)
    async with contextlib.AsyncExitStack() as ends:
        ends.push_async_callback(door.close)
        if args.explain:
            await ends.enter_async_context(DecisionServer(args.explain, {"vpa": autoscaler.explain}))
        url, authority = f"https://{args.listen}/", args.ca.read_bytes()
        await autoscaler.run(url, authority, lambda: context.health.ready("running"))


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    missing = args.ca is None or args.cert is None or args.key is None
    if missing or not args.listen.rpartition(":")[2].isdigit() or not args.rest_server.startswith("https://"):
        print(f"{NAME}: --ca, --cert, --key, --listen HOST:PORT and an https URL are required", file=sys.stderr)
        return 2
    return component.run(NAME, args, lambda context: serve(context, args))
