"""PersistentVolumes and their claims: binding, phases, reclaiming, provisioning, expansion.

    controller.py   the loop over claims and volumes (upstream's persistentvolume-binder-controller)
    claims.py       what becomes of a claim;  volumes.py  what becomes of a volume;  writes.py  the patches
    provisioner.py  the loop of a dynamic provisioner over a `Driver`;  node_local.py  our driver, folders on nodes
    expansion.py    hands grown claims to whoever resizes;  ephemeral.py  claims of generic ephemeral volumes

Binder and provisioner meet in annotations and objects only, as they do where the provisioner is somebody else's
process: a CSI driver takes the place of `provisioner.py` without a change here.
"""
