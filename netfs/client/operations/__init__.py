"""What each request of the kernel does: the table of handlers, beside that of refusals.

A handler is a function ``(context, request)`` named after its opcode.  It returns a ``Reply`` if it
can answer now and a coroutine if it must wait; errors are raised as OSError.  INIT, INTERRUPT,
DESTROY and NOTIFY_REPLY are the dispatcher's own; every other opcode is here or in ``REFUSED``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from netfs.client.operations import directories, files, metadata, namespace
from netfs.client.operations.refused import REFUSED
from netfs.fuse.abi import Opcode

if TYPE_CHECKING:
    from netfs.client.dispatcher import Handler

__all__ = ["HANDLERS", "REFUSED"]

HANDLERS: Final[Mapping[Opcode, Handler]] = {
    Opcode.LOOKUP: namespace.lookup,
    Opcode.FORGET: namespace.forget,
    Opcode.BATCH_FORGET: namespace.forget,
    Opcode.READLINK: namespace.readlink,
    Opcode.SYMLINK: namespace.symlink,
    Opcode.MKNOD: namespace.mknod,
    Opcode.MKDIR: namespace.mkdir,
    Opcode.UNLINK: namespace.unlink,
    Opcode.RMDIR: namespace.rmdir,
    Opcode.RENAME: namespace.rename,
    Opcode.RENAME2: namespace.rename,
    Opcode.LINK: namespace.link,
    Opcode.GETATTR: metadata.getattr_,
    Opcode.SETATTR: metadata.setattr_,
    Opcode.STATX: metadata.statx,
    Opcode.ACCESS: metadata.access,
    Opcode.STATFS: metadata.statfs,
    Opcode.OPENDIR: directories.opendir,
    Opcode.READDIR: directories.readdir,
    Opcode.READDIRPLUS: directories.readdirplus,
    Opcode.RELEASEDIR: directories.releasedir,
    Opcode.OPEN: files.open_,
    Opcode.CREATE: files.create,
    Opcode.READ: files.read,
    Opcode.WRITE: files.write,
    Opcode.FLUSH: files.flush,
    Opcode.FSYNC: files.fsync,
    Opcode.RELEASE: files.release,
    Opcode.FALLOCATE: files.fallocate,
    Opcode.LSEEK: files.lseek,
    Opcode.COPY_FILE_RANGE: files.copy_file_range,
}
