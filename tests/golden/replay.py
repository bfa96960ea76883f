"""Runs one scenario: its surroundings, its steps in order, and cleaning up afterwards."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import random
import time
from typing import Any

from tests.golden.client import Client, Watch
from tests.golden.normalise import Normaliser
from tests.golden.paths import PLACEHOLDER, drop_path, fill, get_path, parse_path, request_body
from tests.golden.views import VIEWS, protobuf_envelope

Obj = dict[str, Any]


class Aborted(Exception):
    """A later step cannot run (a capture failed, a wait ran out, the connection broke)."""


class Runner:
    """One replay of one scenario. Raises Aborted when a later step cannot run."""

    def __init__(self, client: Client, scenario: Obj) -> None:
        self.client, self.scenario = client, scenario
        letters = "bcdfghjklmnpqrstvwxz"
        self.u = random.choice(letters) + "".join(random.choice(letters + "456789") for _ in range(5))
        self.variables: dict[str, Any] = {"u": self.u, "ns": f"gold-{self.u}-a", "ns2": f"gold-{self.u}-b"}
        self.normaliser = Normaliser(scenario)
        self.normaliser.replacements[self.u] = "{{u}}"
        self.created: list[str] = []
        self.watches: dict[str, Watch] = {}
        self.pending: dict[str, Any] = {}
        self.awaited = True

    # ---- surroundings

    def setup(self) -> None:
        """Make the namespaces that the scenario speaks of."""
        text = json.dumps(self.scenario["steps"])
        binary = b"".join(base64.b64decode(s.get("body_b64", "")) for s in self.scenario["steps"])
        for name, mark in (("ns", b"-a"), ("ns2", b"-b")):
            if "{{" + name + "}}" in text or b"gold-" + PLACEHOLDER.encode() + mark in binary:
                namespace = self.variables[name]
                status, body = self.client.json(
                    "POST",
                    "/api/v1/namespaces",
                    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
                )
                if status != 201:
                    raise Aborted(f"cannot create namespace: {status} {body}")
                self.created.append(f"/api/v1/namespaces/{namespace}")
                if "controllers" not in self.scenario["needs"]:
                    self.client.json(
                        "POST",
                        f"/api/v1/namespaces/{namespace}/serviceaccounts",
                        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}},
                    )
                    self.created.append(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
                else:
                    self._wait_for(f"/api/v1/namespaces/{namespace}/serviceaccounts/default")

    def _wait_for(self, path: str) -> None:
        deadline = time.monotonic() + 20
        while self.client.json("GET", path)[0] != 200:
            if time.monotonic() > deadline:
                raise Aborted(f"{path} did not appear")
            time.sleep(0.1)

    def cleanup(self) -> None:
        """Delete what was created, against finalizers too."""
        for path in reversed(self.created):
            with contextlib.suppress(OSError, http.client.HTTPException):
                self._remove(path)

    def _remove(self, path: str) -> None:
        options = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "gracePeriodSeconds": 0,
            "propagationPolicy": "Background",
        }
        status, body = self.client.json("DELETE", path, options)
        if status == 404 or not isinstance(body, dict):
            return
        if body.get("kind") == "Namespace" or (path.startswith("/api/v1/namespaces/") and path.count("/") == 4):
            status, body = self.client.json("GET", path)
            if status == 200 and "controllers" not in self.scenario["needs"]:
                body["spec"] = {"finalizers": []}
                self.client.json("PUT", path + "/finalize", body)
                if body["metadata"].get("finalizers"):
                    self._strip(path)
        elif (body.get("metadata") or {}).get("finalizers"):
            self._strip(path)

    def _strip(self, path: str) -> None:
        self.client.json("PATCH", path, {"metadata": {"finalizers": None}}, "application/merge-patch+json")

    # ---- steps

    def run_step(self, step: Obj) -> Obj:
        """Sends one step; returns the normalised answer {"status", "headers", "body"|"events"}."""
        self.awaited = True
        if step.get("pause_s"):
            time.sleep(step["pause_s"])
        headers = fill(step.get("headers", {}), self.variables)
        path = fill(step.get("path", ""), self.variables)
        if step.get("collect_from"):
            return self._collect(self.watches.pop(step["collect_from"]), step)
        if step.get("watch"):
            watch = Watch(
                self.client, path, headers, step.get("collect"), step.get("until_bookmark"), step.get("timeout_s", 5)
            )
            watch.start()
            if step.get("background"):
                watch.opened.wait(step.get("timeout_s", 5))
                time.sleep(0.2)
                self.watches[step["background"]] = watch
                return {"status": watch.status}
            return self._collect(watch, step)
        body = request_body(step, self.variables)
        if body is not None:
            headers = {"Content-Type": "application/json", **headers}
        deadline = time.monotonic() + step.get("timeout_s", 15)
        while True:
            status, got_headers, raw = self.client.request(step["method"], path, headers, body, step.get("auth"))
            document = self._decode(raw, got_headers)
            self.awaited = "until" not in step or self._holds(step["until"], status, document)
            if self.awaited or time.monotonic() > deadline:
                break
            time.sleep(step.get("poll_s", 0.1))
        if (
            status == 201
            and step["method"] in ("POST", "PUT", "PATCH")
            and "dryRun=" not in path
            and isinstance(document, dict)
        ):
            self._remember(step, path, document)
        self._capture(step, document)
        return self._answer(step, status, got_headers, document)

    def _answer(self, step: Obj, status: int, headers: http.client.HTTPMessage, document: Any) -> Obj:
        out: Obj = {"status": status, "headers": {}}
        if headers.get("Content-Type"):
            out["headers"]["Content-Type"] = headers["Content-Type"]
        if warnings := headers.get_all("Warning"):
            out["headers"]["Warning"] = [self.normaliser.message(text) for text in warnings]
        if step.get("view") and status == 200:
            document = VIEWS[step["view"]](document, step)
        elif isinstance(document, str):
            document = self.normaliser.message(document)
        if step.get("sort_by") and isinstance(document, dict) and isinstance(document.get("items"), list):
            document["items"].sort(key=lambda item: str(get_path(item, step["sort_by"])))
        if "controllers" in self.scenario["needs"]:
            self.normaliser.learn_hashes(document)
        out["body"] = self.normaliser.value(document)
        for ignored in step.get("ignore", []):
            drop_path(out["body"], parse_path(ignored))
        for name, value in self.pending.items():
            self.normaliser.learn(name, value)
        return out

    def _decode(self, raw: bytes, headers: http.client.HTTPMessage) -> Any:
        if headers.get("Content-Type", "").startswith("application/vnd.kubernetes.protobuf"):
            return protobuf_envelope(raw)
        try:
            return json.loads(raw)
        except ValueError:
            return raw.decode("utf-8", "replace")

    def _holds(self, until: Any, status: int, document: Any) -> bool:
        for condition in until if isinstance(until, list) else [until]:
            if "status" in condition:
                if status != condition["status"]:
                    return False
                continue
            value = get_path(document, condition["path"])
            if "equals" in condition and value != fill(condition["equals"], self.variables):
                return False
            if "exists" in condition and (value is not None) != condition["exists"]:
                return False
            if "length" in condition and len(value or []) != condition["length"]:
                return False
        return True

    def _remember(self, step: Obj, path: str, document: Obj) -> None:
        name = (document.get("metadata") or {}).get("name")
        if not name:
            return
        base = path.split("?")[0]
        self.created.append(base + "/" + name if step["method"] == "POST" else base)

    def _capture(self, step: Obj, document: Any) -> None:
        self.pending = {}
        for name, where in step.get("capture", {}).items():
            value = get_path(document, where)
            if value is None:
                raise Aborted(f"cannot capture {name}: nothing at {where}")
            self.variables[name] = self.pending[name] = value
        for left, operator, right in step.get("relations", []):
            a, b = self.variables.get(left), self.variables.get(right)
            numbers = str(a).isdigit() and str(b).isdigit()
            holds = {"eq": a == b, "ne": a != b, "lt": numbers and int(str(a)) < int(str(b))}[operator]
            if not holds:
                raise Aborted(f"relation {left} {operator} {right} does not hold ({a}, {b})")

    def _collect(self, watch: Watch, step: Obj) -> Obj:
        watch.join(watch.timeout + 5)
        self.pending = {}
        if watch.status != 200:
            if watch.status is None:
                raise Aborted("the watch got no answer")
            return self._answer(step, watch.status, watch.headers, self._decode(watch.body, watch.headers))
        if "controllers" in self.scenario["needs"]:
            self.normaliser.learn_hashes(watch.events)
        events = [self.normaliser.value(e) for e in watch.events]
        for ignored in step.get("ignore", []):
            drop_path(events, parse_path(ignored))
        if step.get("unordered"):
            events.sort(key=lambda e: json.dumps(e, sort_keys=True))
        return {"status": 200, "headers": {"Content-Type": watch.headers.get("Content-Type")}, "events": events}
