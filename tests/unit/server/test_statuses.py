"""The errno policy is total and its messages are distinct."""

from __future__ import annotations

import errno
import os

import pytest

from netfs.server.statuses import status_of
from netfs.sftp.codes import Status

EXPECTED = {
    errno.ENOENT: Status.NO_SUCH_FILE,
    errno.ENOTDIR: Status.NO_SUCH_FILE,
    errno.ELOOP: Status.NO_SUCH_FILE,
    errno.EACCES: Status.PERMISSION_DENIED,
    errno.EPERM: Status.PERMISSION_DENIED,
    errno.EROFS: Status.PERMISSION_DENIED,
    errno.ENOSYS: Status.OP_UNSUPPORTED,
    errno.EOPNOTSUPP: Status.OP_UNSUPPORTED,
}


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_errno_has_its_status_and_name(number: int) -> None:
    response = status_of(OSError(number, os.strerror(number), "/srv/private/path"))
    assert response.code == EXPECTED.get(number, Status.FAILURE)
    name = response.message.decode().rpartition("(")[2].removesuffix(")")
    assert getattr(errno, name) == number
    assert b"private" not in response.message


def test_messages_are_distinct() -> None:
    messages = {
        status_of(OSError(number, os.strerror(number))).message for number in errno.errorcode
    }
    assert len(messages) == len(errno.errorcode)


@pytest.mark.parametrize("error", [OSError("words only"), OSError(99999, "?"), OSError()])
def test_an_error_without_a_known_errno_is_eio(error: OSError) -> None:
    response = status_of(error)
    assert response.code == Status.FAILURE
    assert response.message == b"Input/output error (EIO)"
