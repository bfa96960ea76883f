"""The vertical pod autoscaler: recommends requests from what containers used, and gives them to pods.

Owns: histograms of usage and the recommendations made of them (VerticalPodAutoscaler, VerticalPodAutoscalerCheckpoint),
the resizing and eviction of pods whose requests are wrong, and the webhook that gives new pods the right ones. Never
decides how many pods there are. Talks to the API server (gRPC; metrics.k8s.io by REST); asked by it as a webhook.
"""
