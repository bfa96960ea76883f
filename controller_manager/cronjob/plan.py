"""Decisions of the CronJob controller: which run is due, when the next one is, which finished Jobs go.

Pure: the time is handed in. Called by controller.py.
"""
# mypy: disable-error-code="union-attr"
# Objects from the server carry metadata, spec and status; the models call them optional.

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from api.models import batch_v1, meta_v1
from client.listers import copied
from controller_manager.job.status import COMPLETE, FAILED, finished_condition
from controller_manager.objects import controller_reference
from machinery.cron import Every, Schedule, ScheduleError, parse, times, zone_of
from machinery.meta import rfc3339

MANY: Final = 100
SCHEDULED: Final = "batch.kubernetes.io/cronjob-scheduled-timestamp"
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


class NeverDue(ScheduleError):
    """The schedule can be read but names no day that comes, as 30 February."""


class Due(NamedTuple):
    """The latest run that has come up and was not started yet, how many were missed, and when the next one comes."""

    run: datetime | None
    missed: int
    next: datetime | None

    @property
    def too_many(self) -> bool:
        return self.missed > MANY


def plan_due(cron: batch_v1.CronJob, now: datetime) -> Due:
    """What has come up since the last run (or the creation, or the starting deadline).

    Raises ScheduleError, and NeverDue where nothing ever comes up.
    """
    schedule, zone = parse(cron.spec.schedule), zone_of(cron.spec.timeZone)
    since = cron.metadata.creationTimestamp or now
    last = cron.status.lastScheduleTime if cron.status is not None else None
    if last is not None:
        since = last
    deadline = cron.spec.startingDeadlineSeconds
    if deadline is not None:
        since = max(since, now - timedelta(seconds=deadline))
    if schedule.after(since, zone) is None:
        raise NeverDue("time difference between two schedules is less than 1 second")
    latest, missed = _latest(schedule, cron, since, now)
    following = schedule.after(latest or since, zone)
    if following is not None and following <= now:
        following = schedule.after(now, zone)
    return Due(latest, missed, following)


def _latest(schedule: Schedule, cron: batch_v1.CronJob, since: datetime, now: datetime) -> tuple[datetime | None, int]:
    """The last time up to now, and how many there were: counted to a few more than MANY, then found from the end."""
    zone = zone_of(cron.spec.timeZone)
    latest: datetime | None = None
    missed = 0
    for moment in times(schedule, zone, since, now):
        latest = moment
        missed += 1
        if missed > MANY:
            break
    else:
        return latest, missed
    if isinstance(schedule, Every):
        whole = int((now - since).total_seconds() // schedule.seconds)
        return since + timedelta(seconds=whole * schedule.seconds), whole
    # Look back from now in doubling steps instead of walking through years of minutes.
    back = timedelta(minutes=2)
    while True:
        start = max(since, now - back)
        for moment in times(schedule, zone, start, now):
            latest = moment
        if start == since or (latest is not None and latest > start):
            return latest, missed
        back *= 2


def is_late(cron: batch_v1.CronJob, run: datetime, now: datetime) -> bool:
    """Whether the run has missed its starting deadline."""
    deadline = cron.spec.startingDeadlineSeconds
    return deadline is not None and run + timedelta(seconds=deadline) < now


def job_name(cron: batch_v1.CronJob, run: datetime) -> str:
    """One name per scheduled minute: a run cannot be started twice."""
    return f"{cron.metadata.name}-{int(run.timestamp()) // 60}"


def job_for(cron: batch_v1.CronJob, run: datetime) -> batch_v1.Job:
    """The Job to create for a run."""
    template = cron.spec.jobTemplate
    given = template.metadata or meta_v1.ObjectMeta()
    zone = zone_of(cron.spec.timeZone)
    local = run.astimezone(zone)
    stamp = rfc3339(run) if zone is UTC else local.isoformat(timespec="seconds")
    return batch_v1.Job(
        metadata=meta_v1.ObjectMeta(
            name=job_name(cron, run),
            namespace=cron.metadata.namespace,
            labels=dict(given.labels or {}) or None,
            annotations={**(given.annotations or {}), SCHEDULED: stamp},
            ownerReferences=[controller_reference(cron)],
        ),
        spec=copied(template.spec),
    )


def plan_history(cron: batch_v1.CronJob, jobs: Iterable[batch_v1.Job]) -> list[batch_v1.Job]:
    """Finished Jobs beyond the history limits, oldest first."""
    succeeded, failed = [], []
    for job in jobs:
        condition = finished_condition(job)
        if condition is not None and condition.type == COMPLETE:
            succeeded.append(job)
        elif condition is not None and condition.type == FAILED:
            failed.append(job)
    return [
        *_oldest(succeeded, cron.spec.successfulJobsHistoryLimit),
        *_oldest(failed, cron.spec.failedJobsHistoryLimit),
    ]


def _oldest(jobs: list[batch_v1.Job], limit: int | None) -> list[batch_v1.Job]:
    if limit is None:
        return []
    ordered = sorted(jobs, key=lambda job: (_started(job), job.metadata.name or ""))
    return ordered[: max(0, len(ordered) - limit)]


def _started(job: batch_v1.Job) -> datetime:
    started = job.status.startTime if job.status is not None else None
    return started or job.metadata.creationTimestamp or _FIRST
