"""Volumes that grow are looked at side by side, and a defect about one of them is no other's trouble."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from kubelet.volumes.csi.pod_csi import LOOK_SECONDS, PodCsi
from machinery.clock import VirtualClock


class Expansion:
    """Hangs for one volume, fails for another, and notes the rest."""

    def __init__(self) -> None:
        self.followed: list[str] = []

    async def follow(self, pod: Any, volume: Any, claim: str, path: Any, staging: str) -> None:
        if volume.unique == "hangs":
            await asyncio.Event().wait()
        if volume.unique == "fails":
            raise KeyError("a defect")
        self.followed.append(volume.unique)


async def test_one_that_hangs_or_fails_holds_up_no_other() -> None:
    clock, expansion = VirtualClock(), Expansion()
    devices: Any = SimpleNamespace(turn=lambda unique: asyncio.Lock())
    nothing: Any = None
    csi = PodCsi(nothing, clock, nothing, devices, nothing, nothing, nothing, expansion, "n0")  # type: ignore[arg-type]
    for unique, claim in (("hangs", "a"), ("fails", "b"), ("good", "c"), ("inline", "")):
        use: Any = SimpleNamespace(pod=None, volume=SimpleNamespace(unique=unique), claim=claim, path=None, staging="")
        csi._uses["uid", unique] = use
    running = asyncio.ensure_future(csi.run())
    await clock.advance(LOOK_SECONDS)
    assert expansion.followed == ["good"]
    assert not running.done()
    del csi._uses["uid", "hangs"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
