"""PodStatus: computed from what the machine knows (pure), written by patches."""
