"""Attaches volumes to the nodes of pods that use them, and detaches them: upstream's attachdetach-controller.

Owns VolumeAttachments and `status.volumesAttached` of Nodes. Never talks to a driver: whoever attaches for real answers
in the VolumeAttachment's status. Talks to the API server only.
"""
