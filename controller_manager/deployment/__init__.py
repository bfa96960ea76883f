"""Deployment: rolls ReplicaSets out and back.

template.py   which ReplicaSet is the new one: template equality and the pod-template-hash
rolling.py    how many replicas each ReplicaSet should have (rolling update, scaling, saturation)
revisions.py  revision annotations and what the history limit removes
status.py     status and conditions
controller.py acts on all of these
"""
