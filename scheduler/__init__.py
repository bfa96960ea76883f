"""The scheduler: decides on which node each new pod runs, and binds it.

Owns the queue of unscheduled pods and the decision. Never starts a pod, never writes anything but bindings, the
PodScheduled condition, nominated nodes and events, for claims that wait for their pod the chosen volume or node, and
for victims of preemption their condition and deletion. Talks to the API server only (and to extenders, where some are
configured); answers `explain` on a socket of its own.

    framework/    pure: snapshot of the cluster as arrays, extension points, evaluation of one pod
    plugins/      what a node must have and what makes it better; registry.py is the table
    queue.py      who is next, who backs off, who waits for which event
    scheduler.py  event handlers and the loop;  relations.py  what else decisions depend on
    binder.py     bindings and conditions;  volume_writer.py  what PreBind writes;  evictor.py  preemption's writes
    extenders.py  other people's filters, over HTTP;  extended.py  decisions in which they have a say
    decisions.py  the last decisions;  explanations.py  why;  explain.py  the door that tells it
    configuration.py  the KubeSchedulerConfiguration file;  plugin_args.py  its plugins' arguments;  app.py  the process
"""

import os

# NumPy's OpenBLAS would start a thread per core and reserve tens of MiB for matrix products that nobody computes here;
# it reads this once, when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
