"""ReplicaSet (and ReplicationController): keep spec.replicas live pods per set.

plan.py decides (which pods to make or delete, what the status is), controller.py acts.
"""
