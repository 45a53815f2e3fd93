"""The kernel's FUSE protocol as a pure codec: bytes in, typed requests out, and back.

A *nodeid* is the kernel's key for an inode; each successful entry (LOOKUP, CREATE, MKDIR, ... and
every direntplus) counts one *nlookup* of it, FORGET takes them back, and only then may the daemon
drop the node.  An *fh* is the daemon's key for an open file.  *unique* names a request until it is
answered.  Nothing here knows SFTP, does I/O, or decides what is cached.
"""
