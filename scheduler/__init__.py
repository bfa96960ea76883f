"""The scheduler: decides on which node each new pod runs, and binds it.

Owns the queue of unscheduled pods and the decision. Never starts a pod, never writes anything but bindings, the
PodScheduled condition and events. Talks to the API server only.

    framework/    pure: snapshot of the cluster as arrays, extension points, evaluation of one pod
    plugins/      what a node must have and what makes it better; registry.py is the table
    queue.py      who is next, who backs off, who waits for which event
    scheduler.py  event handlers and the loop;  binder.py  the writes
    app.py        the process
"""

import os

# NumPy's OpenBLAS would start a thread per core and reserve tens of MiB for matrix products that nobody computes here;
# it reads this once, when NumPy is first imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
