"""What the REST door asks: may this request run?

Owns: the classification of requests and its cache, the levels with their shares of the server, and the refusals. A
request that finds its level idle costs one dictionary look-up and a few additions. Fed by `feed` with the objects;
until it is, everything is let in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import ceil
from time import monotonic
from typing import Any, NamedTuple

from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo
from apiserver.flowcontrol.level import Full, Level, LevelSpec
from apiserver.flowcontrol.matching import Schema, in_order, schema_of
from apiserver.metrics import Histogram
from apiserver.rest.responses import Header, PlainRefusal
from machinery.caching import is_short

SERVER_SEATS = 600  # upstream's --max-requests-inflight and --max-mutating-requests-inflight together
WAIT_SECONDS = 15.0  # a quarter of the request timeout
WAIT_BUCKETS = (0.0, 0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0)  # seconds, as upstream's
RETRY_SECONDS = 1
LIST_PER_SEAT, MOST_SEATS = 100, 10  # objects of a list that are worth a seat
CACHE_LIMIT = 8192
SCHEMA_HEADER, LEVEL_HEADER = b"x-kubernetes-pf-flowschema-uid", b"x-kubernetes-pf-prioritylevel-uid"

Obj = Mapping[str, Any]


class Place(NamedTuple):
    """Where a kind of request belongs."""

    schema: Schema
    level: Level
    flow: str
    headers: tuple[Header, ...]
    names: tuple[str, str]  # of level and schema


def too_many() -> PlainRefusal:
    """The refusal in upstream's words: plain text."""
    details = {"retryAfterSeconds": RETRY_SECONDS}
    text = "Too many requests, please try again later."
    return PlainRefusal(text, code=429, reason="TooManyRequests", details=details)


class FlowControl:
    """Levels and schemas of one server."""

    def __init__(self, total: int = SERVER_SEATS, wait: float = WAIT_SECONDS) -> None:
        self._total = total
        self._wait = wait
        self._schemas: list[Schema] = []
        self._levels: dict[str, Level] = {}
        self._places: dict[tuple[str, ...], Place | None] = {}
        self.rejected: Counter[tuple[str, str, str]] = Counter()  # (level, schema, reason)
        self.dispatched: Counter[tuple[str, str]] = Counter()  # (level, schema)
        self.waits = Histogram(WAIT_BUCKETS)
        """How long requests waited for their seats, by (whether they then ran, schema, level)."""

    @property
    def levels(self) -> Iterable[Level]:
        return self._levels.values()

    def configure(self, levels: Iterable[Obj], schemas: Iterable[Obj]) -> None:
        """Take over the stored objects. Schemas whose level is missing are left out."""
        specs = level_specs(levels, self._total)
        for spec in specs:
            known = self._levels.get(spec.name)
            if known is None:
                self._levels[spec.name] = Level(spec, self._may_borrow)
            else:
                known.change(spec)
        names = {spec.name for spec in specs}
        self._levels = {name: level for name, level in self._levels.items() if name in names}
        read = (schema_of(each) for each in schemas)
        self._schemas = in_order([schema for schema in read if schema.level in names])
        self._places.clear()

    def place(self, user: UserInfo, asked: Attributes) -> Place | None:
        """The schema and level of a request; None while none is known."""
        key = (
            user.name,
            asked.verb,
            asked.resource or asked.path,
            asked.namespace,
            asked.subresource,
            asked.group,
            *user.groups,
        )
        try:
            return self._places[key]
        except KeyError:
            pass
        found = self._classify(user, asked)
        if is_short(*key):
            if len(self._places) >= CACHE_LIMIT:
                self._places.clear()
            self._places[key] = found
        return found

    def _classify(self, user: UserInfo, asked: Attributes) -> Place | None:
        for schema in self._schemas:
            if schema.matches(user, asked):
                level = self._levels[schema.level]
                headers = ((SCHEMA_HEADER, schema.uid.encode()), (LEVEL_HEADER, level.spec.uid.encode()))
                names = (schema.level, schema.name)
                return Place(schema, level, schema.flow(user, asked.namespace), headers, names)
        return None

    async def wait(self, place: Place, seats: int) -> None:
        """Until the request has its seats; for those whose `level.take` failed. Raises PlainRefusal (429)."""
        began, level, schema = monotonic(), place.level.spec.name, place.schema.name
        try:
            await place.level.wait(schema, place.flow, seats, self._wait)
            self.waits.observe(("true", schema, level), monotonic() - began)
        except Full as full:
            if full.reason == "time-out":
                self.waits.observe(("false", schema, level), monotonic() - began)
            self.rejected[place.level.spec.name, place.schema.name, full.reason] += 1
            raise too_many() from None

    def _may_borrow(self, level: Level, seats: int) -> bool:
        """Idle seats that other levels lend, less what has been borrowed already."""
        lent = borrowed = 0
        for other in self._levels.values():
            spec = other.spec
            if spec.exempt:
                continue
            if other is not level:
                lent += max(0, min(spec.lendable, spec.seats - other.seats))
            borrowed += max(0, other.seats - spec.seats)
        wanted = seats if level.seats >= level.spec.seats else level.seats + seats - level.spec.seats
        return borrowed + wanted <= lent


def seats_of(objects: Callable[[], int]) -> int:
    """What a list weighs: one of many objects is several requests."""
    return min(MOST_SEATS, max(1, ceil(objects() / LIST_PER_SEAT)))


def level_specs(levels: Iterable[Obj], total: int) -> list[LevelSpec]:
    """The levels with their shares of `total` seats."""
    read = [(each, each.get("spec") or {}) for each in levels]
    parts = [(obj, spec, spec.get("exempt" if spec.get("type") == "Exempt" else "limited") or {}) for obj, spec in read]
    sum_of_shares = sum(part.get("nominalConcurrencyShares") or 0 for _, _, part in parts) or 1
    found = []
    for obj, spec, part in parts:
        seats = ceil(total * (part.get("nominalConcurrencyShares") or 0) / sum_of_shares)
        response = part.get("limitResponse") or {}
        queuing = response.get("queuing") or {}
        queued = response.get("type") == "Queue"
        percent = part.get("borrowingLimitPercent")
        found.append(
            LevelSpec(
                obj["metadata"]["name"],
                obj["metadata"].get("uid") or "",
                spec.get("type") == "Exempt",
                seats,
                round(seats * (part.get("lendablePercent") or 0) / 100),
                None if percent is None else round(seats * percent / 100),
                (queuing.get("queues") or 64) if queued else 0,
                queuing.get("handSize") or 8,
                queuing.get("queueLengthLimit") or 50,
            )
        )
    return found
