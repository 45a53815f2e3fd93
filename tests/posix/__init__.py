"""POSIX system calls, one file per call, on a mount and (to prove the tests) on a local disk.

Run as root on a mount with ``allow_other,default_permissions``; calls are made by an actor process
as root or as one of two users. What SFTP v3 forces to differ is listed in ``forced.py``.
"""
