"""CronJob: start a Job at every minute that the schedule names.

plan.py       which run is due by its schedule (machinery.cron), which Jobs of the past to delete
controller.py acts on these

Schedules, starting deadlines and time zones are calendar time: no time scale makes midnight come earlier. What scales
are only the controllers' own timers (retries), and everything that the started Jobs do.
"""
