"""The controller-side loops of one CSI driver: what external-provisioner, -attacher and -resizer are in the field.

Owns the translation between Kubernetes' objects and CSI's controller calls, with upstream's annotations, finalizers,
conditions, events and messages. Knows of the driver only its socket and what it tells of itself, so that any CSI v1
driver will do; and keeps nothing that it could not find again in the API server or by asking the driver once more.

    provisioner.py  claims -> volumes, and their end;  topology.py  where they may be;  parameters.py  what classes say
    attacher.py     VolumeAttachments;  resync.py  what the driver says of them;  resizer.py  claims that grow
    driver.py       the driver over gRPC;  retries.py  patience;  nodes.py  what is read of nodes
    app.py          the process;  metrics.py  what it tells of itself
"""
