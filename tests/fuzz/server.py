"""Coverage-guided fuzzing of the server's codec and handlers, for a bounded time.

``python -m tests.fuzz.server [SECONDS]``; script/fuzz-server runs it.  Needs atheris; the same
properties are checked by hypothesis in tests/unit/server/test_fuzz.py.  A finding ends the run with
the input in the working directory.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
from pathlib import Path

CORPUS_PATHS = (b"/file", b"sub/../../outside/secret", b"abs", b"loop1", b"up/up", b"new", b"")
LIMIT_MB = 512


def main() -> int:
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: pip install atheris, then again", file=sys.stderr)
        return 2
    import atheris

    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    with atheris.instrument_imports():  # what is imported here is measured
        from netfs.server import handlers
        from netfs.sftp import requests
        from netfs.sftp.attrs import Attrs
        from netfs.sftp.errors import SftpError
        from netfs.sftp.requests import encode_request
    from tests.unit.server.tree import SECRET, make_tree

    init = b"\0\0\0\5\1\0\0\0\3"
    base = tempfile.TemporaryDirectory()
    tree = make_tree(Path(base.name))
    before = tree.outside_state()
    descriptors = len(os.listdir("/proc/self/fd"))
    runs = 0

    def one(data: bytes) -> None:
        nonlocal runs
        client = handlers.Client(tree.client.export, max_handles=8)
        try:
            events = client.connection.receive_data(init + data)
        except SftpError:
            return
        for event in events:
            answer = b"".join(map(bytes, handlers.answer(client, event)))
            assert SECRET not in answer, "something outside was read"
            assert b"internal error" not in answer, "a handler failed"
        assert client.handles.close_all() == []
        runs += 1
        if runs % 500 == 0:
            assert tree.outside_state() == before, "something outside was changed"
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2, "a descriptor leaked"

    corpus = Path(base.name) / "corpus"
    corpus.mkdir()
    for number, path in enumerate(CORPUS_PATHS):
        packets = [
            requests.Open(path, 0x1B, Attrs(mode=0o644)),
            requests.Write(b"\0" * 7 + b"\1", 0, (b"x",)),
            requests.Lstat(path),
            requests.Setstat(path, Attrs(size=3)),
            requests.Opendir(path),
            requests.Readdir(b"\0" * 7 + b"\2"),
            requests.Rename(path, b"other"),
        ]
        encoded = [bytes(part) for request in packets for part in encode_request(1, request)]
        (corpus / str(number)).write_bytes(b"".join(encoded))
    arguments = [f"-max_total_time={seconds}", f"-rss_limit_mb={LIMIT_MB}", "-max_len=4096"]
    atheris.Setup([sys.argv[0], *arguments, str(corpus)], one)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main())
