"""StatefulSet: pods with stable names and claims, made and replaced in order.

identity.py   names, labels and claims of the pod with a given ordinal
plan.py       the next step, and what the status says
controller.py acts on these
"""
