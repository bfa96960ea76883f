"""The process of one driver's controller-side loops: flags, leader election, health."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
from collections.abc import Sequence
from typing import Final

from client.backoff import Backoff
from client.client import Client, add_client_flags, client_from_args
from client.events import EventRecorder
from client.informer import Informers
from client.leases import LeaderElector
from csi_controllers.attacher import Attacher
from csi_controllers.driver import About, Driver, DriverError
from csi_controllers.metrics import CallMetrics, expose
from csi_controllers.provisioner import Provisioner
from csi_controllers.resizer import Resizer
from csi_controllers.resync import Resync
from machinery import component
from machinery.clock import Clock
from machinery.component import ComponentContext
from machinery.health import HealthServer
from machinery.log import kv

NAME: Final = "csi-controllers"
TIMEOUT: Final = 15.0


def parser() -> argparse.ArgumentParser:
    made = component.parser(NAME, "Provisions, attaches and resizes volumes by a CSI driver.")
    add_client_flags(made)
    made.add_argument("--csi-address", required=True, metavar="ADDRESS", help="the driver: unix:PATH")
    made.add_argument("--timeout", type=float, default=TIMEOUT, metavar="SECONDS", help="of a call of the driver")
    made.add_argument("--default-fstype", default="", help="of volumes whose class names none")
    made.add_argument("--leader-elect", action="store_true", help="work only while holding the Lease")
    return made


def lease_of(driver: str) -> str:
    """The Lease for which the candidates of a driver compete."""
    return f"{NAME}-{driver.replace('.', '-')}"


async def introduced(driver: Driver, clock: Clock, context: ComponentContext) -> About:
    """The driver when it answers: it may be started later than we are."""
    backoff = Backoff(initial=0.05, cap=2.0)
    while True:
        try:
            return await driver.about()
        except DriverError as error:
            context.log.debug("Waiting for the driver", extra=kv(error=error))
            await clock.sleep(clock.scale * backoff.next())


async def loops(
    client: Client,
    clock: Clock,
    informers: Informers,
    driver: Driver,
    about: About,
    default_fstype: str = "",
    health: HealthServer | None = None,
) -> None:
    """Everything the driver can do is done until cancelled; `health` is told of it."""
    provisioning = EventRecorder(client, clock, about.name)
    resizing = EventRecorder(client, clock, f"external-resizer {about.name}")
    provisioner = Provisioner(client, informers, clock, provisioning, driver, about, default_fstype)
    attacher = Attacher(client, informers, clock, driver, about)
    resizer = Resizer(client, informers, clock, resizing, driver, about)
    controllers = (provisioner.controller, attacher.controller, resizer.controller)
    if health is not None:
        driver.observe = CallMetrics(health, about.name).observe
        for each in controllers:
            expose(health, each)

    async def synced() -> None:
        await informers.wait_synced()
        if health is not None:
            health.ready("informers-synced")

    async with asyncio.TaskGroup() as group:
        for work in (informers.run(), synced(), provisioning.run(), resizing.run()):
            group.create_task(work)
        for controller in controllers:
            group.create_task(controller.run())
        group.create_task(Resync(informers, clock, driver, about, attacher).run())


async def serve(context: ComponentContext, args: argparse.Namespace) -> None:
    client = client_from_args(args, context.clock, field_manager=NAME)
    driver = Driver(args.csi_address, args.timeout)
    try:
        await context.until_stopped(_work(context, args, client, driver))
    finally:
        await driver.close()
        await client.close()


async def _work(context: ComponentContext, args: argparse.Namespace, client: Client, driver: Driver) -> None:
    clock = context.clock
    for condition in ("driver", "informers-synced"):
        context.health.ready(condition, False)
    about = await introduced(driver, clock, context)
    context.health.ready("driver")
    context.log.info(
        "Found the driver", extra=kv(driver=about.name, can=",".join(str(each) for each in sorted(about.can)))
    )
    informers = Informers(client, clock)

    async def work() -> None:
        await loops(client, clock, informers, driver, about, args.default_fstype, context.health)

    if args.leader_elect:
        identity = f"{socket.gethostname()}_{os.getpid()}"
        await LeaderElector(client, clock, "kube-system", lease_of(about.name), identity).run(work)
    else:
        await work()


def main(argv: Sequence[str]) -> int:
    args = parser().parse_args(argv)
    return component.run(NAME, args, lambda context: serve(context, args))
