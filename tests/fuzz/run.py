"""The loop: rounds of requests from a seed, each answer judged, everything stored read back, then tidied away.

Findings are sentences; a run without any is a pass. What is judged: no 500 but the known ones, no lost connection, no
hang, every refusal a Status that says the code it came with, no traceback in the log, memory that stays where it was
after the first rounds, and every stored object readable in every form.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from api.resources import RESOURCES, Resource
from tests.fuzz import inputs
from tests.fuzz.inputs import Wanted
from tests.fuzz.target import TOKEN, Fuzzed
from tests.fuzz.wire import Answer, Wire

WORKERS = 6
ROUND = 1500  # requests between two looks at everything stored
GROWTH = 80.0  # MiB over what was resident after the warm-up rounds
WARM_ROUNDS = 3
LIMIT = 100  # findings that are told
FORMS = (
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;as=Table;v=v1;g=meta.k8s.io",
    "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
)
LIST_FORMS = tuple(form.replace("Metadata;", "MetadataList;") for form in FORMS)
# Answers with a code of 500 and more that a real API server gives as well, by (code, part of the message), and why:
# "recorded" ones were seen, the others follow from upstream's source (docs/fuzz.md).
KNOWN: tuple[tuple[int, str, str], ...] = (
    (500, "resourceVersion should not be set on objects to be created", "recorded: a plain error of the storage"),
    (500, "failed to create typed patch object", "recorded: the typed parser's error is wrapped so"),
    (500, "unknown patch type", "recorded: an untyped error of strategic merge"),
    (500, "expected a map in a list of maps", "an untyped error of strategic merge"),
    (500, "does not contain declared merge key", "recorded: an untyped error of strategic merge"),
    (500, "strconv.ParseUint: parsing", "a resourceVersion that is no number, in a patched object"),
    (500, "resourceVersion: Invalid value", "an error of the storage layer that lists do not translate"),
    (500, "target.name: Required value", "a binding's findings are passed on as a plain error"),
    (500, "target.kind: Unsupported value", "a binding's findings are passed on as a plain error"),
    (500, "the spec replicas field", "a read of the scale of an object that says no replicas"),
    (503, "has not reported the address of its kubelet", "proxies: there is no kubelet"),
    (503, "no endpoints available", "proxies: there is nobody behind the Service"),
    (504, "Timeout", "the request asked for less time than it takes"),
    (504, "Too large resource version", "a version that this cluster has not reached, after waiting for it"),
)
KEPT = "/serviceaccounts/default"  # without it no Pod is admitted
CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "fuzzers.fuzz.example.com"},
    "spec": {
        "group": "fuzz.example.com",
        "scope": "Namespaced",
        "names": {"plural": "fuzzers", "singular": "fuzzer", "kind": "Fuzzer", "listKind": "FuzzerList"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "subresources": {
                    "status": {},
                    "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
                },
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {
                                "type": "object",
                                "x-kubernetes-validations": [{"rule": "!has(self.text) || size(self.text) < 100"}],
                                "properties": {
                                    "replicas": {"type": "integer", "minimum": 0, "default": 1},
                                    "text": {"type": "string", "pattern": "^[a-z]*$", "maxLength": 50},
                                    "list": {
                                        "type": "array",
                                        "x-kubernetes-list-type": "map",
                                        "x-kubernetes-list-map-keys": ["key"],
                                        "items": {
                                            "type": "object",
                                            "required": ["key"],
                                            "properties": {"key": {"type": "string"}, "value": {"type": "integer"}},
                                        },
                                    },
                                    "any": {"x-kubernetes-preserve-unknown-fields": True},
                                },
                            },
                            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                        },
                    }
                },
            }
        ],
    },
}


@dataclass
class Report:
    """What a run saw."""

    seed: int
    seconds: float = 0.0
    requests: int = 0
    codes: Counter[int] = field(default_factory=Counter)
    read_back: int = 0
    memory: list[float] = field(default_factory=list)  # MiB resident after each round
    slowest: float = 0.0
    findings: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def find(self, what: str, detail: str = "") -> None:
        """Told once for each `what`, with the first occurrence's detail."""
        if what not in self._seen and len(self.findings) < LIMIT:
            self._seen.add(what)
            self.findings.append(f"{what}: {detail}" if detail else what)
            print("finding:", self.findings[-1][:2000], file=sys.stderr, flush=True)


class Fuzz:
    """One run against one server."""

    def __init__(self, target: Fuzzed, seed: int) -> None:
        self._target = target
        self._report = Report(seed)
        self._rng = random.Random(seed)
        self._logged = 0

    async def run(self, seconds: float) -> Report:
        """Rounds until the time is over, and the look at everything after the last one."""
        began = time.monotonic()
        await self._prepare()
        wires = [self._wire() for _ in range(WORKERS)]
        minutes = asyncio.create_task(self._tell(began))
        while self._target.alive and time.monotonic() - began < seconds:
            await self._round(wires, began + seconds)
            await self._look()
            self._report.memory.append(self._target.rss() if self._target.alive else 0.0)
        minutes.cancel()
        for wire in wires:
            wire.close()
        self._report.seconds = time.monotonic() - began
        self._judge_memory()
        return self._report

    async def _tell(self, began: float) -> None:
        """A line a minute on standard error, so that a long run can be watched."""
        while True:
            await asyncio.sleep(60)
            memory = " ".join(f"{key} {value:.0f}" for key, value in self._target.memory().items())
            line = f"{(time.monotonic() - began) / 60:.0f} min: {self._report.requests:,} requests; MiB: {memory}"
            print(line, f"; findings: {len(self._report.findings)}", file=sys.stderr, flush=True)

    async def rounds(self, count: int, requests: int) -> None:
        """So many rounds of so many requests each, each with the look at everything and the tidying after it."""
        if not self._report.requests:
            await self._prepare()
        wires = [self._wire() for _ in range(WORKERS)]
        for _ in range(count):
            await self._round(wires, math.inf, requests)
            await self._look()
        for wire in wires:
            wire.close()

    @property
    def report(self) -> Report:
        """What has been seen so far."""
        return self._report

    def _wire(self) -> Wire:
        return Wire(self._target.host, self._target.port, TOKEN)

    async def _prepare(self) -> None:
        wire = self._wire()
        for name in inputs.NAMESPACES:
            await _must(wire, "POST", "/api/v1/namespaces", {"metadata": {"name": name}})
            await _must(wire, "POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        await _must(wire, "POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
        wire.close()

    async def _round(self, wires: list[Wire], until: float, requests: int = ROUND) -> None:
        pending = [inputs.make(self._rng) for _ in range(requests)]
        pending.reverse()

        async def work(wire: Wire) -> None:
            while pending and self._target.alive and time.monotonic() < until:
                await self._one(wire, pending.pop())

        async with asyncio.TaskGroup() as group:
            for wire in wires:
                group.create_task(work(wire))

    async def _one(self, wire: Wire, wanted: Wanted) -> None:
        answer = await self._send(wire, wanted)
        if answer is not None and wanted.stored and answer.code in (200, 201) and self._report.requests % 3 == 0:
            for form in FORMS:
                seen = await self._send(wire, Wanted("GET", wanted.stored, (("accept", form),)))
                if seen is not None and seen.code not in (200, 404):
                    what = f"stored, but not readable as {form}: {seen.code}"
                    self._report.find(what, f"{seen.body[:300]!r} after {wanted.describe()}")
                self._report.read_back += 1

    async def _send(self, wire: Wire, wanted: Wanted) -> Answer | None:
        began = time.monotonic()
        try:
            answer = await wire.send(wanted)
        except TimeoutError:
            wire.close()
            self._report.find("no answer in time", wanted.describe())
            return None
        except (ValueError, IndexError, asyncio.LimitOverrunError) as error:
            wire.close()
            self._report.find(f"no HTTP ({error})", wanted.describe())
            return None
        except OSError as error:
            wire.close()
            self._report.find(f"{error!r}", wanted.describe())
            return None
        self._report.requests += 1
        self._report.codes[answer.code] += 1
        self._report.slowest = max(self._report.slowest, time.monotonic() - began)
        self._judge(wanted, answer)
        return answer

    def _judge(self, wanted: Wanted, answer: Answer) -> None:
        if answer.code == 0:
            if not wanted.raw:
                self._report.find("closed without an answer", wanted.describe())
            return
        if answer.code >= 500:
            text = answer.body.decode(errors="replace")
            headless = wanted.method == "HEAD"
            if not any(answer.code == code and (headless or part in text) for code, part, _ in KNOWN):
                self._report.find(f"{answer.code} {_gist(text)}", f"{text[:400]} for {wanted.describe()}")
        if wanted.raw or wanted.method == "HEAD" or answer.code < 400:
            return
        if answer.headers.get("content-type", "").startswith("application/json"):
            try:
                status = json.loads(answer.body)
            except ValueError:
                self._report.find(
                    f"{answer.code} with a body that is no JSON", f"{answer.body[:200]!r} for {wanted.describe()}"
                )
                return
            if status.get("kind") != "Status" or status.get("code") != answer.code or "message" not in status:
                self._report.find(f"{answer.code} without a Status", f"{answer.body[:300]!r} for {wanted.describe()}")

    async def _look(self) -> None:
        """Read everything back in every form, then delete it; see what the log says."""
        wire = self._wire()
        for resource in RESOURCES:
            if not resource.storable or "list" not in resource.verbs:
                continue
            path = _everywhere(resource)
            for form in LIST_FORMS:
                answer = await self._send(wire, Wanted("GET", path, (("accept", form),)))
                if answer is not None and answer.code != 200:
                    self._report.find(f"list of {path} as {form}: {answer.code}", f"{answer.body[:400]!r}")
            if resource.plural not in inputs.DRY and "deletecollection" in resource.verbs:
                prefix = _everywhere(resource).removesuffix(f"/{resource.plural}")
                roots = [f"{prefix}/namespaces/{name}/{resource.plural}" for name in inputs.NAMESPACES]
                await self._tidy(wire, roots if resource.namespaced else [_everywhere(resource)])
        await self._tidy(wire, [inputs.CUSTOM.format(name) for name in inputs.NAMESPACES])
        wire.close()
        text = self._target.log()
        news, self._logged = text[self._logged :], len(text)
        for place in re.finditer(r"Traceback \(most recent call last\)", news):
            trace = news[place.start() :][:6000].split("\nE1", 1)[0]
            frames = re.findall(r'File "[^"]*/([^"/]+/[^"/]+)", line (\d+)', trace)
            self._report.find(f"traceback in the log at {frames[-1] if frames else ''}", trace[-1500:])
        if not self._target.alive:
            self._report.find(f"the server ended: {text[-2000:]}")

    async def _tidy(self, wire: Wire, paths: Sequence[str]) -> None:
        """Delete what is listed there: in the namespaces everything, elsewhere what has a name of ours."""
        for path in paths:
            answer = await self._send(wire, Wanted("GET", path))
            if answer is None or answer.code != 200:
                continue
            for item in json.loads(answer.body)["items"]:
                name = item["metadata"]["name"]
                if ("/namespaces/" not in path and name not in inputs.NAMES) or f"{path}/{name}".endswith(KEPT):
                    continue
                where = f"{path}/{name}"
                if item["metadata"].get("finalizers"):
                    body, kind = b'{"metadata":{"finalizers":null}}', "application/merge-patch+json"
                    await self._send(wire, Wanted("PATCH", where, (), body, kind))
                await self._send(wire, Wanted("DELETE", f"{where}?gracePeriodSeconds=0"))

    def _judge_memory(self) -> None:
        memory = self._report.memory
        if len(memory) > WARM_ROUNDS and memory[-1] > memory[WARM_ROUNDS - 1] + GROWTH:
            self._report.find(f"memory grew: {', '.join(f'{each:.0f}' for each in memory)} MiB")


def _gist(text: str) -> str:
    """What is the same in two answers of one cause."""
    found = re.search(r'"message":"([^"]*)"', text)
    return re.sub(r"\d+", "N", (found.group(1) if found else text)[:60])


def _everywhere(resource: Resource) -> str:
    prefix = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
    return f"{prefix}/{resource.plural}"


async def _must(wire: Wire, method: str, path: str, body: object) -> None:
    answer = await wire.send(Wanted(method, path, (), json.dumps(body).encode(), "application/json"))
    if answer.code not in (200, 201, 409):
        raise RuntimeError(f"{method} {path}: {answer.code} {answer.body!r}")
