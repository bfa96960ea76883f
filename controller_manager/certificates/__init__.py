"""Certificate signing requests: approval of kubelets' own, signing for Kubernetes' signers, and tidying up."""
