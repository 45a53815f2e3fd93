"""Renames over an existing name where the server has no rename that replaces.

The old target is moved aside, never removed before the new one has its name, and put back when
that fails.  Each step can be cut off and the whole begun again with the same aside name.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
from typing import Protocol

from netfs.sftp.attrs import Attrs


class Names(Protocol):
    """What the steps need of ``SftpFiles``."""

    async def lstat(self, path: bytes) -> Attrs: ...

    async def rename_new(self, old: bytes, new: bytes) -> None: ...

    async def remove(self, path: bytes) -> None: ...

    async def mkdir(self, path: bytes, mode: int) -> None: ...

    async def rmdir(self, path: bytes) -> None: ...


def aside_name(new: bytes) -> bytes:
    """A name in *new*'s directory that nothing has."""
    return new.rpartition(b"/")[0] + b"/.netfs-aside-" + secrets.token_hex(8).encode()


async def replace_by_steps(
    files: Names, old: bytes, new: bytes, aside: bytes, *, again: bool = False
) -> None:
    """Rename *old* to *new*, over what has that name.  Not atomic: *new* is missing in between.

    Args:
        again: an earlier attempt with this *aside* was cut off, after any of its steps.

    Raises:
        OSError: as rename(2); *new* is as it was.
    """
    source = await _look(files, old)
    if again:
        target = await _look(files, new)
        if await _look(files, aside) is not None:
            if source is None and target is None:
                await files.rename_new(aside, new)
            elif target is None:
                await _move_or_put_back(files, old, new, aside)
                return
            else:  # *old* has its new name, or somebody made another *new*: aside is obsolete
                await files.remove(aside)
        if source is None and target is not None:
            return
    if source is None:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), old, None, new)
    try:
        await files.rename_new(old, new)
        return
    except OSError as exc:
        if exc.errno != errno.EEXIST:
            raise
    target = await _look(files, new)
    if _is_dir(target):
        if not _is_dir(source):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), old, None, new)
        await _replace_directory(files, old, new, target)
    elif _is_dir(source) and target is not None:
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), old, None, new)
    else:
        if target is not None:
            await files.rename_new(new, aside)
        await _move_or_put_back(files, old, new, aside)


async def _move_or_put_back(files: Names, old: bytes, new: bytes, aside: bytes) -> None:
    try:
        await files.rename_new(old, new)
    except OSError:
        await files.rename_new(aside, new)
        raise
    await files.remove(aside)


async def _replace_directory(files: Names, old: bytes, new: bytes, target: Attrs | None) -> None:
    await files.rmdir(new)  # ENOTEMPTY is the right answer then
    try:
        await files.rename_new(old, new)
    except OSError:
        mode = target.mode if target is not None and target.mode is not None else 0o755
        await files.mkdir(new, stat.S_IMODE(mode))
        raise


async def _look(files: Names, path: bytes) -> Attrs | None:
    try:
        return await files.lstat(path)
    except OSError as exc:
        if exc.errno != errno.ENOENT:
            raise
        return None


def _is_dir(attrs: Attrs | None) -> bool:
    return attrs is not None and attrs.mode is not None and stat.S_ISDIR(attrs.mode)
