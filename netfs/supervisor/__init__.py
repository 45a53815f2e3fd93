"""The process that holds the mount's fate: watches the worker, aborts, unmounts, mounts again.

Imports the standard library only (and netfs.systemd), does not touch the mount, and never waits
for the network: it must work when nothing else does.
"""
