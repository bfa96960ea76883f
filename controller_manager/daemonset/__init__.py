"""DaemonSet: one pod on every node that it wants and that wants it.

eligibility.py  which nodes those are, and the pod made for a node
plan.py         which pods to make and delete, and what the status says
controller.py   acts on these
"""
