"""How long admission takes, and what webhooks and policies decide, under upstream's names and labels.

Owns the histograms and counters of one API server. Fed on every write, so that what is counted often costs one list
access: a plugin's row is looked up once. Told by `apiserver.metric_sources`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

from apiserver.metrics import Histogram, Row

ADMIT, VALIDATE = "admit", "validate"
BUCKETS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5)
WEBHOOK_BUCKETS: Final = (*BUCKETS, 10.0, 25.0)
POLICY_BUCKETS: Final = (0.0000005, 0.001, 0.01, 0.1, 1.0)
MOST_CODE: Final = 600
"""Webhooks may answer any number; those beyond are one."""

Key = tuple[str, ...]


class Rows(dict[str, Row]):
    """One plugin's rows by operation, made at first use."""

    def __init__(self, row: Callable[[str], Row]) -> None:
        super().__init__()
        self._row = row

    def __missing__(self, operation: str) -> Row:
        found = self[operation] = self._row(operation)
        return found


class AdmissionTimes:
    """Keys are label values in the order of the labels' names."""

    def __init__(self) -> None:
        self.controllers = Histogram(BUCKETS)
        """By (name, operation, rejected, type)."""
        self.steps = Histogram(BUCKETS)
        """By (operation, rejected, type)."""
        self.webhooks = Histogram(WEBHOOK_BUCKETS)
        """By (name, operation, rejected, type)."""
        self.requests: Counter[Key] = Counter()
        """Of webhooks, by (code, name, operation, rejected, type)."""
        self.rejections: Counter[Key] = Counter()
        """Of webhooks, by (error_type, name, operation, rejection_code, type)."""
        self.open_failures: Counter[Key] = Counter()
        """Of webhooks that failed and did not matter, by (name, type)."""
        self.policies = Histogram(POLICY_BUCKETS)
        """Checks of ValidatingAdmissionPolicies, by (enforcement_action, error_type, policy, policy_binding)."""

    def plugin_rows(self, name: str, step: str) -> Rows:
        """The rows of what a plugin lets pass."""
        return Rows(lambda operation: self.controllers.row((name, operation, "false", step)))

    def step_rows(self, step: str) -> Rows:
        """The rows of what all plugins of a step let pass."""
        return Rows(lambda operation: self.steps.row((operation, "false", step)))

    def webhook_answered(
        self, name: str, operation: str, step: str, seconds: float, code: int, error: str = "", *, ignored: bool = False
    ) -> None:
        """A webhook was asked. `code` is 200 or why the write is refused; `error`: upstream's type of the failure."""
        rejected = "false" if code == 200 or ignored else "true"
        shown = str(min(code, MOST_CODE))
        self.webhooks.observe((name, operation, rejected, step), seconds)
        self.requests[shown, name, operation, rejected, step] += 1
        if ignored:
            self.open_failures[name, step] += 1
        elif rejected == "true":
            self.rejections[error or "no_error", name, operation, shown, step] += 1
