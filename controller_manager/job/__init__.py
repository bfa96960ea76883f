"""Job: run pods until enough of them have succeeded, or too many have failed.

indexes.py    sets of completion indexes as text: "0,2-5"
failures.py   what a failed pod means: failure policy, back-off, failures per index
tally.py      counts a Job's pods
plan.py       which pods to make or delete, and when the Job is over
status.py     conditions, and the bookkeeping of finished pods in the status
pods.py       the pods themselves
controller.py acts on all of these
"""
