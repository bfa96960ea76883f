"""Pod volumes: payloads are planned purely, written atomically, removed with the pod."""
