"""The owner garbage collector: deletes objects whose owners are gone, and sees deletions with dependents through.

graph.py       who owns whom, as the watches show it
plan.py        what to do with an object, given the state of its owners
controller.py  metadata-only watches of every kind, live verification, the writes
"""
