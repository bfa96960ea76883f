"""The README's two commands on a machine that has only Debian's base system, python3 and git.

`python -m tests.fresh_machine` debootstraps that machine, enters it in namespaces of its own (mount, pid, network,
cgroup), clones this checkout there and runs `./nanokube up`, the README's session, `down` and `./nanokube test`.
Not part of the suite: it takes as long as the suite and needs a package mirror.
"""
