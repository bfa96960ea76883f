"""What the doors call to have a request recorded.

Owns: the cache of the policy's verdicts, the counters, and encoding. A request that the policy does not name costs one
dictionary look-up. Built by `apiserver.assembly` when there is a policy.
"""

from __future__ import annotations

from collections import Counter

from apiserver.audit.log import AuditLog
from apiserver.audit.policy import NONE, RECEIVED, Policy, Verdict
from apiserver.audit.record import Head, Record
from apiserver.auth.attributes import Attributes
from apiserver.auth.user import UserInfo
from machinery.caching import is_short

CACHE_LIMIT = 8192


class Auditor:
    """One policy, one log."""

    def __init__(self, policy: Policy, log: AuditLog) -> None:
        self._policy = policy
        self._log = log
        self._verdicts: dict[tuple[str, ...], Verdict] = {}
        self.events = 0
        self.levels: Counter[str] = Counter()

    def open(self) -> None:
        """Raises OSError when the log cannot be written."""
        self._log.open()

    def close(self) -> None:
        """Everything recorded is in the file."""
        self._log.close()

    @property
    def lost(self) -> int:
        """Events that could not be written."""
        return self._log.lost

    def verdict(self, user: UserInfo, asked: Attributes) -> Verdict:
        """How much of the request is recorded."""
        key = (
            user.name,
            asked.verb,
            asked.resource or asked.path,
            asked.subresource,
            asked.group,
            asked.namespace,
            asked.name if self._policy.names else "",
            *user.groups,
        )
        found = self._verdicts.get(key)
        if found is None:
            found = self._policy.verdict(user, asked)
            if is_short(*key):
                if len(self._verdicts) >= CACHE_LIMIT:
                    self._verdicts.clear()
                self._verdicts[key] = found
        return found

    def wants(self, verdict: Verdict) -> bool:
        """Count the request at its level; False when nothing of it is recorded."""
        self.levels[verdict.level] += 1
        return verdict.level != NONE

    def record(self, verdict: Verdict, user: UserInfo, asked: Attributes, head: Head) -> Record:
        """The record of a request that has just come in, told as RequestReceived."""
        record = Record(verdict, self._emit, user, asked, head)
        record.stage(RECEIVED)
        return record

    def _emit(self, line: bytes) -> None:
        self.events += 1
        self._log.write(line)
