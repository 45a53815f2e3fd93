"""POSIX system calls on a real mount, one file per call."""
