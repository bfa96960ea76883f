"""The cluster autoscaler: adds machines for pods that find no room, takes away those that nobody needs.

Owns the decision and how it is carried out: sizes of node groups, taints and evictions on the way out, a status
ConfigMap, events. Never schedules or starts a pod. Talks to the API server, and to a cloud by cluster-autoscaler's own
externalgrpc contract; simulates with the scheduler's framework on a fork of a snapshot.

    provider.py       the cloud behind a Protocol;  cloud_view.py  what it said in this pass
    cluster.py        informers into a snapshot;  node_facts.py  what is read from nodes;  taints.py  our marks on them
    registry.py       sizes, readiness, requests that are under way, back-off
    simulation.py     placing pods on a fork;  templates.py  the next node of a group;  estimator.py  bin packing
    scale_up.py       which group to raise;  expanders.py  the best of several;  similar.py  groups that share a raise
    drainability.py   which pods hold a node;  scale_down.py  which nodes may go;  removal.py  taint, drain, delete
    autoscaler.py     the loop;  planner.py  one decision;  status.py, reports.py, explain.py  what is told of it
"""
