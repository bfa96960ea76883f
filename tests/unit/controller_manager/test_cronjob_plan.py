from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.models import batch_v1, core_v1, meta_v1
from controller_manager.cronjob.plan import SCHEDULED, NeverDue, is_late, job_for, job_name, plan_due, plan_history
from machinery.clock import VirtualClock
from machinery.cron import Fields, ScheduleError, parse, times, zone_of

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def cron(schedule: str = "*/5 * * * *", last: datetime | None = None, **spec: Any) -> batch_v1.CronJob:
    template = core_v1.PodTemplateSpec(spec=core_v1.PodSpec(containers=[core_v1.Container(name="main")]))
    return batch_v1.CronJob(
        metadata=meta_v1.ObjectMeta(name="tick", namespace="default", uid="uid-cron", creationTimestamp=NEW_YEAR),
        spec=batch_v1.CronJobSpec(
            schedule=schedule,
            jobTemplate=batch_v1.JobTemplateSpec(
                metadata=meta_v1.ObjectMeta(labels={"a": "b"}), spec=batch_v1.JobSpec(template=template)
            ),
            **spec,
        ),
        status=batch_v1.CronJobStatus(lastScheduleTime=last),
    )


@pytest.mark.parametrize(
    ("text", "zone", "after", "then"),
    [
        pytest.param("* * * * *", None, "2026-01-01T00:00:30", "2026-01-01T00:01:00", id="every minute"),
        pytest.param("*/15 * * * *", None, "2026-01-01T00:15:00", "2026-01-01T00:30:00", id="step"),
        pytest.param("5/20 * * * *", None, "2026-01-01T00:26:00", "2026-01-01T00:45:00", id="start and step"),
        pytest.param("0 9-17/4 * * *", None, "2026-01-01T10:00:00", "2026-01-01T13:00:00", id="range and step"),
        pytest.param("0 0 * feb mon-wed", None, "2026-01-30T00:00:00", "2026-02-02T00:00:00", id="names"),
        pytest.param("0 0 13 * fri", None, "2026-01-01T00:00:00", "2026-01-02T00:00:00", id="either day"),
        pytest.param("0 0 */2 * fri", None, "2026-01-03T00:00:00", "2026-01-05T00:00:00", id="a step is no star"),
        pytest.param("0 0 ? * sun", None, "2026-01-01T00:00:00", "2026-01-04T00:00:00", id="question mark"),
        pytest.param("0 0 31 * *", None, "2026-01-31T00:00:00", "2026-03-31T00:00:00", id="short months"),
        pytest.param("0 0 29 2 *", None, "2026-01-01T00:00:00", "2028-02-29T00:00:00", id="leap year"),
        pytest.param("@daily", None, "2026-01-01T00:00:00", "2026-01-02T00:00:00", id="daily"),
        pytest.param("@hourly", None, "2026-01-01T00:59:59", "2026-01-01T01:00:00", id="hourly"),
        pytest.param("@yearly", None, "2026-01-01T00:00:00", "2027-01-01T00:00:00", id="yearly"),
        pytest.param("@every 1h30m", None, "2026-01-01T00:00:00", "2026-01-01T01:30:00", id="every"),
        pytest.param("0 9 * * *", "Europe/Berlin", "2026-01-01T08:00:00", "2026-01-02T08:00:00", id="zone"),
        pytest.param("0 9 * * *", "Europe/Berlin", "2026-07-01T08:00:00", "2026-07-02T07:00:00", id="summer"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-03-28T02:00:00", "2026-03-30T00:30:00", id="skipped hour"),
        pytest.param("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25T01:30:00", id="repeated hour"),
        pytest.param("0 0 * * *", "America/Santiago", "2026-09-05T05:00:00", "2026-09-07T03:00:00", id="no midnight"),
        pytest.param("0 12 * * *", "Asia/Kolkata", "2026-01-01T00:00:00", "2026-01-01T06:30:00", id="half hours"),
    ],
)
def test_next_time(text: str, zone: str | None, after: str, then: str) -> None:
    assert parse(text).after(utc(after), zone_of(zone)) == utc(then)


def test_a_day_that_never_comes() -> None:
    assert parse("0 0 30 2 *").after(NEW_YEAR, UTC) is None


@pytest.mark.parametrize(
    "text",
    [
        *["", "* * * *", "* * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7"],
        *["5-1 * * * *", "*/0 * * * *", "a * * * *", "@never", "@every x", "@every 5", "-1 * * * *", "1,,2 * * * *"],
    ],
)
def test_unreadable_schedules(text: str) -> None:
    with pytest.raises(ScheduleError):
        parse(text)


def test_unknown_zone() -> None:
    with pytest.raises(ScheduleError, match="unknown time zone Mars/Base"):
        zone_of("Mars/Base")


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    span = st.tuples(number, number).map(lambda two: f"{min(two)}-{max(two)}")
    step = st.tuples(st.one_of(st.just("*"), span), st.integers(1, 9)).map(lambda two: f"{two[0]}/{two[1]}")
    return st.one_of(st.just("*"), number.map(str), span, step)


@given(
    st.tuples(field(0, 59), field(0, 23), field(1, 31), field(1, 12), field(0, 6)),
    st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]),
    st.sampled_from(["2026-01-30T20:11:00", "2026-03-28T22:59:00", "2026-04-04T10:00:00", "2026-10-24T20:30:00"]),
)
def test_times_are_those_of_a_plain_walk_over_all_minutes(fields: tuple[str, ...], zone: str, start: str) -> None:
    schedule, where = parse(" ".join(fields)), ZoneInfo(zone)
    assert isinstance(schedule, Fields)
    begin = utc(start)
    end = begin + timedelta(hours=40)
    walked = []
    for minute in range(1, 40 * 60 + 1):
        local = (begin + timedelta(minutes=minute)).astimezone(where)
        if (
            local.minute in schedule.minutes
            and local.hour in schedule.hours
            and local.month in schedule.months
            and schedule.day_matches(local)
        ):
            walked.append(begin + timedelta(minutes=minute))
    assert list(times(schedule, where, begin, end)) == walked


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        pytest.param("0 * * * *", 31 * 24, id="hourly"),
        pytest.param("*/5 * * * *", 31 * 24 * 12, id="every five minutes"),
        pytest.param("30 6 * * mon-fri", 22, id="working days"),
        pytest.param("@weekly", 4, id="weekly"),
        pytest.param("0 0 1,15 * *", 2, id="twice"),
    ],
)
async def test_a_month(schedule: str, expected: int) -> None:
    """January on the virtual clock: every run once, each with a name of its own."""
    clock = VirtualClock(NEW_YEAR - timedelta(seconds=1))
    wanted = cron(schedule, last=NEW_YEAR - timedelta(minutes=1))
    names = []
    while True:
        due = plan_due(wanted, clock.now())
        if due.run is not None:
            assert due.missed == 1
            names.append(job_name(wanted, due.run))
            assert wanted.status is not None
            wanted.status.lastScheduleTime = due.run
            assert plan_due(wanted, clock.now()).run is None, "no run is due twice"
        assert due.next is not None
        if due.next >= datetime(2026, 2, 1, tzinfo=UTC):
            break
        await clock.advance((due.next - clock.now()).total_seconds(), settle=0)
    assert len(names) == len(set(names)) == expected


@pytest.mark.parametrize(
    ("last", "deadline", "run", "missed"),
    [
        pytest.param("2026-01-01T11:55:00", None, "2026-01-01T12:00:00", 1, id="one"),
        pytest.param("2026-01-01T12:00:00", None, None, 0, id="none"),
        pytest.param("2026-01-01T11:00:00", None, "2026-01-01T12:00:00", 12, id="twelve"),
        pytest.param("2026-01-01T00:00:00", None, "2026-01-01T12:00:00", 101, id="more than can be told"),
        pytest.param("2016-01-01T00:00:00", None, "2026-01-01T12:00:00", 101, id="ten years"),
        pytest.param("2016-01-01T00:00:00", 600, "2026-01-01T12:00:00", 2, id="the deadline bounds the past"),
        pytest.param("2026-01-01T11:55:00", 60, None, 0, id="past the deadline"),
    ],
)
def test_missed_runs(last: str, deadline: int | None, run: str | None, missed: int) -> None:
    wanted = cron(last=utc(last), startingDeadlineSeconds=deadline)
    due = plan_due(wanted, utc("2026-01-01T12:02:00"))
    assert due.run == (utc(run) if run else None)
    assert due.missed == missed
    assert due.too_many == (missed > 100)
    assert due.next == utc("2026-01-01T12:05:00")


def test_a_clock_set_back_starts_nothing_twice() -> None:
    due = plan_due(cron(last=utc("2026-01-01T12:00:00")), utc("2026-01-01T09:00:00"))
    assert due.run is None


def test_a_day_that_never_comes_is_told() -> None:
    with pytest.raises(NeverDue, match="time difference between two schedules is less than 1 second"):
        plan_due(cron("59 23 31 2 *"), NEW_YEAR)


def test_lateness() -> None:
    wanted = cron(startingDeadlineSeconds=60)
    run = utc("2026-01-01T12:00:00")
    assert not is_late(wanted, run, run + timedelta(seconds=60))
    assert is_late(wanted, run, run + timedelta(seconds=61))
    assert not is_late(cron(), run, run + timedelta(days=9))


def test_the_job_of_a_run() -> None:
    made = job_for(cron(timeZone="Europe/Berlin"), utc("2026-07-01T07:00:00"))
    assert made.metadata is not None
    assert made.metadata.name == f"tick-{int(utc('2026-07-01T07:00:00').timestamp()) // 60}"
    assert made.metadata.labels == {"a": "b"}
    assert made.metadata.annotations == {SCHEDULED: "2026-07-01T09:00:00+02:00"}
    assert made.metadata.ownerReferences is not None
    assert made.metadata.ownerReferences[0].kind == "CronJob"


def test_history_limits() -> None:
    def job(name: str, type_: str | None, minute: int) -> batch_v1.Job:
        conditions = [batch_v1.JobCondition(type=type_, status="True")] if type_ else None
        return batch_v1.Job(
            metadata=meta_v1.ObjectMeta(name=name, creationTimestamp=NEW_YEAR),
            status=batch_v1.JobStatus(conditions=conditions, startTime=NEW_YEAR + timedelta(minutes=minute)),
        )

    jobs = [job("s3", "Complete", 3), job("s1", "Complete", 1), job("s2", "Complete", 2), job("a", None, 0)]
    jobs += [job("f1", "Failed", 1), job("f2", "Failed", 2)]
    wanted = cron(successfulJobsHistoryLimit=1, failedJobsHistoryLimit=1)
    assert [each.metadata.name for each in plan_history(wanted, jobs) if each.metadata] == ["s1", "s2", "f1"]
    assert plan_history(cron(), jobs) == []
