"""Node lifecycle: notices nodes that stopped reporting, taints them, and marks their pods.

    health.py      is a node reporting? (leases and heartbeats against grace periods)
    taints.py      which taints follow from a node's conditions
    zones.py       how fast nodes may be given up, by the state of their zone
    controller.py  the monitor loop and the per-node reconciler

Evicting the pods of a tainted node is tainteviction's work.
"""
