"""block.csi.nanokube.io: a CSI driver for the block volumes of the emulated cloud.

Owns the translation between CSI v1 and the cloud's own service (`proto/cloud`), and what is done to an attached disk on
its machine: file systems and mounts. Knows nothing of Kubernetes; any orchestrator that speaks CSI can use it.

    controller.py  volumes: made, attached, grown, deleted (one process beside the cloud)
    node.py        mounts on one machine (a process on each); disks.py  the system calls below it
    cloud.py       the cloud as a client sees it;  answers.py  CSI's errors;  capabilities.py  what may be asked for
    identity.py, registration.py  who we are, told to orchestrators and to the kubelet's plugin watcher
"""
