"""Brings an answer into the form that two runs of one server share: uids, times, versions and names by rule."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.golden.conversations import AGE, ageless

Obj = dict[str, Any]

_UUID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_GO_TIME = re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)? [+-]\d{4} [A-Z]{2,4}( m=[+-][\d.]+)?")
_JWT = re.compile(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+")
_EVENT_NAME = re.compile(r"\.[0-9a-f]{16}\b")
_ACCESS_VOLUME = re.compile(r"\bkube-api-access-[a-z0-9]{5}\b")
_RANDOM = "[bcdfghjklmnpqrstvwxz2456789]{5}"  # the alphabet of generated names
_AGE_AGO = re.compile(r"\((\d+[smhdy])+ ago\)")
_MESSAGE_RULES = [
    (re.compile(r"(current: )\d+"), r"\1<rv>"),
    (re.compile(r"(resource version: \d+ \()\d+\)"), r"\1<rv>)"),
    (re.compile(r"[Rr]esourceVersion: ?\"?\d+\"?"), "resourceVersion: <rv>"),
    (re.compile(r"(ResourceVersion in (?:the precondition|record)) \(\d+\)"), r"\1 (<rv>)"),
    (re.compile(r'(resourceVersion\\?":\\?")\d+'), r"\1<rv>"),
    (re.compile(r"0x[0-9a-f]{6,}"), "<pointer>"),
    (re.compile(r"https?://127\.0\.0\.1:\d+"), "<server>"),
]
HASH_LABELS = ("pod-template-hash", "controller-revision-hash", "controller.kubernetes.io/hash")
AGE_COLUMNS = {"age", "last seen", "first seen", "last schedule", "duration", "requestedduration"}


class Normaliser:
    """Turns a response into a form that two runs of the same server share."""

    def __init__(self, scenario: Obj) -> None:
        text = json.dumps([s.get("body") for s in scenario["steps"]])
        self.own_times = {m[0] for m in _TIME.finditer(text)}
        self.own_uuids = set(_UUID.findall(text))
        self.own_ips = set(re.findall(r"\b\d+\.\d+\.\d+\.\d+\b", text))
        self.own_ports = {int(p) for p in re.findall(r"\b3[0-2]\d{3}\b", text)}
        prefixes = sorted(
            {
                s["body"]["metadata"]["generateName"]
                for s in scenario["steps"]
                if isinstance(s.get("body"), dict)
                and isinstance(s["body"].get("metadata"), dict)
                and s["body"]["metadata"].get("generateName")
            }
        )
        self.generated = prefixes and re.compile(f"({'|'.join(map(re.escape, prefixes))}){_RANDOM}(?![a-z0-9])")
        self.replacements: dict[str, str] = {}  # literal -> {{variable}}
        self.hashes = 0

    def learn(self, name: str, value: Any) -> None:
        if isinstance(value, str) and len(value) >= 5 and not value.isdigit():
            self.replacements[value] = "{{" + name + "}}"

    def learn_hashes(self, document: Any) -> None:
        """Template and revision hashes depend on the server's Go types: they become <hash 1>, <hash 2>, …"""
        if isinstance(document, list):
            for item in document:
                self.learn_hashes(item)
        elif isinstance(document, dict):
            for key, value in document.items():
                if key in HASH_LABELS and isinstance(value, str) and len(value) >= 5:
                    if value not in self.replacements:
                        self.hashes += 1
                        self.replacements[value] = f"<hash {self.hashes}>"
                else:
                    self.learn_hashes(value)

    def text(self, s: str) -> str:
        for literal in sorted(self.replacements, key=len, reverse=True):
            s = s.replace(literal, self.replacements[literal])
        s = _JWT.sub("<jwt>", s)
        s = _UUID.sub(lambda m: m[0] if m[0] in self.own_uuids else "<uid>", s)
        s = _EVENT_NAME.sub(".<event id>", s.replace("\u00a0", " "))
        s = _ACCESS_VOLUME.sub("kube-api-access-<5 random>", s)
        if self.generated:
            s = self.generated.sub(r"\1<5 random>", s)
        s = _GO_TIME.sub("<go time>", s)
        return _TIME.sub(lambda m: m[0] if m[0] in self.own_times else "<time%s>" % (" micro" if m[1] else ""), s)

    def message(self, s: str) -> str:
        s = self.text(s)
        for pattern, replacement in _MESSAGE_RULES:
            s = pattern.sub(replacement, s)
        return s

    def value(self, v: Any, key: str = "") -> Any:
        if isinstance(v, dict):
            out = {self.text(k): self.value(x, k) for k, x in v.items()}
            generated, name = out.get("generateName"), out.get("name")
            if isinstance(generated, str) and isinstance(name, str) and name.startswith(generated) and generated:
                rest = name[len(generated) :]
                if rest != "<5 random>":
                    out["name"] = generated + ("<5 random>" if re.fullmatch(_RANDOM, rest) else "<other random>")
            if isinstance(out.get("managedFields"), list):
                out["managedFields"].sort(
                    key=lambda m: [str(m.get(k, "")) for k in ("operation", "manager", "subresource", "apiVersion")]
                )
            if out.get("kind") == "SelfSubjectRulesReview":
                for rules in ("resourceRules", "nonResourceRules"):  # the real order changes from run to run
                    (out.get("status", {}).get(rules) or []).sort(key=lambda r: json.dumps(r, sort_keys=True))
            if out.get("kind") == "Table":
                self.table(out)
            return out
        if isinstance(v, list):
            return [self.value(x, key) for x in v]
        if isinstance(v, str):
            if key in ("resourceVersion", "observedResourceVersion") and v.isdigit() and v != "0":
                return "<rv>"
            if key == "continue" and v:
                return "<continue>"
            if key in ("clusterIP", "clusterIPs") and v not in ("", "None") and v not in self.own_ips:
                return "<cluster ip>"
            if key == "message":
                return self.message(v)
            return self.text(v)
        if isinstance(v, int) and not isinstance(v, bool):
            if key in ("nodePort", "healthCheckNodePort") and v >= 30000 and v not in self.own_ports:
                return "<node port>"
            if key == "retryAfterSeconds":
                return "<seconds>"
        return v

    def table(self, table: Obj) -> None:
        columns = [c.get("name", "").lower() for c in table.get("columnDefinitions") or []]
        for column in table.get("columnDefinitions") or []:
            column.pop("description", None)
        for row in table.get("rows") or []:
            for i, cell in enumerate(row.get("cells") or []):
                if not isinstance(cell, str):
                    continue
                cell = _AGE_AGO.sub("(<age> ago)", cell)
                name = columns[i] if i < len(columns) else ""
                if name in AGE_COLUMNS and AGE.fullmatch(cell):
                    cell = "<age>"
                if name == "cluster-ip" and re.fullmatch(r"\d+\.\d+\.\d+\.\d+", cell) and cell not in self.own_ips:
                    cell = "<cluster ip>"
                if name == "port(s)":
                    cell = re.sub(
                        r":(3[0-2]\d{3})/", lambda m: m[0] if int(m[1]) in self.own_ports else ":<node port>/", cell
                    )
                obj = row.get("object") or {}
                meta = obj.get("metadata") or {}
                if name == "name" and str(meta.get("name", "")).endswith("random>"):
                    cell = meta["name"]
                row["cells"][i] = cell
            if not columns:
                row["cells"] = ageless(row)["cells"]
