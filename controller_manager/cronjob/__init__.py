"""CronJob: start a Job at every minute that the schedule names.

schedule.py   the schedule: five fields or @daily and the like, in a time zone
plan.py       which run is due, which Jobs of the past to delete
controller.py acts on these

Schedules, starting deadlines and time zones are calendar time: no time scale makes midnight come earlier. What scales
are only the controllers' own timers (retries), and everything that the started Jobs do.
"""
