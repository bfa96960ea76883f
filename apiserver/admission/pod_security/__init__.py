"""PodSecurity: the Pod Security Standards, asked for by labels of namespaces.

`checks` holds the single rules, `levels` which of them make up a level in a version, `plugin` asks them.
"""
