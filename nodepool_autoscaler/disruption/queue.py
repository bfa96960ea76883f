"""Commands under way: nodes are marked, replacements launched and awaited, then the old claims deleted.

Source: karpenter.sh, "Disruption Controller". Owns one task for each command. A command that fails leaves its nodes as
they were; what a crash leaves behind is cleaned up by whoever starts next (`controller`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Final

from client.backoff import Backoff
from machinery import log
from machinery.clock import Clock
from machinery.errors import Conflict, StatusError
from machinery.log import kv
from nodepool_autoscaler.disruption.candidates import Candidate
from nodepool_autoscaler.disruption.commands import Command
from nodepool_autoscaler.disruption.ports import Hands, Site

LOOK: Final = 1.0
TIMEOUT: Final = 600.0
SETTLE: Final = 30.0  # for the caches to show that a deleted claim is being deleted
UNWIND: Final = 60.0
CONFLICTS: Final = 5
_log = log.get(__name__)


class CommandFailed(Exception):
    """The nodes stay; why."""


class Queue:
    """`busy`: claims of commands under way; `marked`: those of them that are as good as gone, once what replaces them
    has been asked for. `done(command, error)` is told at the end of each."""

    def __init__(self, site: Site, hands: Hands, clock: Clock, done: Callable[[Command, str], None]) -> None:
        self._site = site
        self._hands = hands
        self._clock = clock
        self._done = done
        self._tasks: set[asyncio.Task[None]] = set()
        self.busy: dict[str, Command] = {}
        self.marked: set[str] = set()

    async def start(self, command: Command) -> Command:
        """Mark the nodes and launch what replaces them; the rest is done in the background. What is carried out: a
        node that could not be marked is left out of a mere deletion. Raises CommandFailed with nothing changed."""
        if any(each.claim in self.busy for each in command.candidates):
            raise CommandFailed("a candidate is being disrupted already")
        self.busy |= {each.claim: command for each in command.candidates}
        launched: list[str] = []
        try:
            kept = await self._mark(command)
            for planned in command.replacements:
                launched.append(await self._hands.launch(planned, command.reason))
        except (CommandFailed, StatusError) as error:
            await self._unwind(command, launched)
            why = (
                str(error) if isinstance(error, CommandFailed) else f"launching replacement nodeclaim, {error.message}"
            )
            raise CommandFailed(why) from error
        self._forget([each for each in command.candidates if each not in kept])
        made = replace(command, candidates=tuple(kept))
        # Only now: as soon as nodes count as leaving, room is made for their pods by whoever looks.
        self.marked |= {each.claim for each in kept}
        self._hands.nominate(
            made.placed, {name: each.pods for name, each in zip(launched, made.replacements, strict=True)}
        )
        task = asyncio.ensure_future(self._follow(made, launched))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return made

    async def stop(self) -> None:
        """Give up what is under way; marks are cleaned by whoever starts next."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _forget(self, candidates: Iterable[Candidate]) -> None:
        for each in candidates:
            self.busy.pop(each.claim, None)
            self.marked.discard(each.claim)

    async def _mark(self, command: Command) -> list[Candidate]:
        kept: list[Candidate] = []
        trouble = ""
        for each in command.candidates:
            try:
                await self._mark_one(each, command)
            except StatusError as error:
                trouble = f"marking disrupted, {each.name}: {error.message}"
                _log.warning("Did not mark node", extra=kv(node=each.name, error=error))
            else:
                kept.append(each)
        if trouble and (command.replacements or not kept):
            raise CommandFailed(trouble)
        return kept

    async def _mark_one(self, candidate: Candidate, command: Command) -> None:
        """A kubelet or the claim's own lifecycle may write at the same moment."""
        for _ in range(CONFLICTS):
            try:
                return await self._hands.mark(candidate.state, command.reason)
            except Conflict:
                await self._clock.sleep(LOOK)
        return await self._hands.mark(candidate.state, command.reason)

    async def _follow(self, command: Command, launched: Sequence[str]) -> None:
        error = ""
        try:
            ends = self._clock.monotonic() + TIMEOUT
            await self._await_ready(command, launched, ends)
            await self._delete(command, ends)
        except CommandFailed as failure:
            error = str(failure)
        except Exception as failure:  # noqa: BLE001  a defect here must not leave nodes marked for good
            _log.exception("Command failed")
            error = f"{type(failure).__name__}: {failure}"
        if error:
            _log.warning("Disruption failed", extra=kv(command=command, error=error))
            await self._unwind(command, ())
        else:
            await self._settle(command)
        self._done(command, error)

    async def _await_ready(self, command: Command, launched: Sequence[str], ends: float) -> None:
        waiting = dict.fromkeys(launched)
        told: set[str] = set()
        while waiting:
            for name in list(waiting):
                claim = self._site.claim(name)
                if claim is None or claim.deleting:
                    raise CommandFailed(f"replacement was deleted, nodeclaim {name}")
                if claim.initialized:
                    del waiting[name]
                elif name not in told:
                    told.add(name)
                    self._hands.claim_event(name, "DisruptionLaunching", f"Launching NodeClaim: {command.reason}")
                    self._hands.claim_event(
                        name, "DisruptionWaitingReadiness", "Waiting on readiness to continue disruption"
                    )
            if waiting and self._clock.monotonic() > ends:
                raise CommandFailed(
                    "command reached timeout, waiting for replacement initialization, "
                    f"nodeclaim {', '.join(waiting)} not initialized"
                )
            if waiting:
                await self._clock.sleep(LOOK)

    async def _delete(self, command: Command, ends: float) -> None:
        for each in command.candidates:
            claim = each.state.claim
            assert claim is not None
            backoff = Backoff(initial=LOOK, cap=10.0)
            while True:
                try:
                    await self._hands.delete_claim(claim)
                except StatusError as error:
                    if self._clock.monotonic() > ends:
                        raise CommandFailed(f"command reached timeout, {error.message}") from error
                    await self._clock.sleep(backoff.next())
                else:
                    break
            self._hands.node_event(each.name, "DisruptionTerminating", f"Disrupting Node: {command.reason}")
            self._hands.claim_event(each.claim, "DisruptionTerminating", f"Disrupting NodeClaim: {command.reason}")

    async def _settle(self, command: Command) -> None:
        """Keep the marks until everybody sees that the claims are being deleted."""
        ends = self._clock.monotonic() + SETTLE
        left = [each.claim for each in command.candidates]
        while left and self._clock.monotonic() < ends:
            left = [name for name in left if (claim := self._site.claim(name)) is not None and not claim.deleting]
            if left:
                await self._clock.sleep(LOOK)
        self._forget(command.candidates)

    async def _unwind(self, command: Command, launched: Sequence[str]) -> None:
        """Everything as it was; replacements that nobody will wait for go too."""
        ends = self._clock.monotonic() + UNWIND
        backoff = Backoff(initial=LOOK, cap=10.0)
        left = list(command.candidates)
        while True:
            try:
                while left:
                    await self._hands.unmark(left[-1].state)
                    left.pop()
                for name in launched:
                    claim = self._site.claim(name)
                    if claim is not None:
                        await self._hands.delete_claim(claim)
            except StatusError as error:
                if self._clock.monotonic() > ends:
                    _log.warning("Left marks on nodes", extra=kv(nodes=[each.name for each in left], error=error))
                    break
                await self._clock.sleep(backoff.next())
            else:
                break
        self._forget(command.candidates)
