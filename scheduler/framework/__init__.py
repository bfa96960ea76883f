"""The scheduling framework: a snapshot of the cluster as arrays, extension points, and the evaluation of one pod.

Pure: no clock, no I/O, no global state. The scheduler process drives it, and a cluster autoscaler can import it to
simulate on a forked snapshot. Plugins live in `scheduler.plugins`; nothing here names one of them.
"""
