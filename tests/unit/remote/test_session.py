"""Session on real sftp-servers whose links are cut at every point."""

import asyncio
import contextlib
import errno
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from netfs.client.config import Config, LinkConfig, MountConfig, SemanticsConfig, SourceConfig
from netfs.client.remote import api
from netfs.client.remote.channel import Receiver
from netfs.client.remote.link import LinkState
from netfs.client.remote.looking import Looking
from netfs.client.remote.pending import Disconnected, Expired
from netfs.client.remote.session import Session
from netfs.sftp.attrs import Attrs
from netfs.sftp.codes import PacketType
from tests.unit.remote.links import Cut, CutLink, World
from tests.unit.remote.pipe import PipeChannel, SftpServer, open_pipe


def config(*, rename_workaround: bool = False, **link: object) -> Config:
    return Config(
        source=SourceConfig(text="h:", host="h"),
        mount=MountConfig(mountpoint="/mnt"),
        link=LinkConfig(**link),  # type: ignore[arg-type]
        semantics=SemanticsConfig(rename_workaround=rename_workaround),
    )


@contextlib.asynccontextmanager
async def running(
    world: World, settings: Config | None = None, *, seconds: float = 20
) -> AsyncIterator[Session]:
    session = Session(settings or config(), world.connect)
    await session.start(await world.connect())
    task = asyncio.ensure_future(session.run())
    await asyncio.sleep(0)
    try:
        async with asyncio.timeout(seconds):
            yield session
    finally:
        await session.end()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        for link in world.links:
            link.lose()


async def refused(awaitable: Awaitable[object]) -> int:
    with pytest.raises(OSError) as caught:
        await awaitable
    assert caught.value.errno is not None
    return caught.value.errno


@pytest.fixture
def top(tmp_path: Path) -> bytes:
    return os.fsencode(tmp_path)


def content(path: bytes) -> bytes:
    return Path(os.fsdecode(path)).read_bytes()


def put(path: bytes, data: bytes) -> None:
    Path(os.fsdecode(path)).write_bytes(data)


P = PacketType


async def do_mkdir(session: Session, top: bytes) -> None:
    await session.mkdir(top + b"/new", 0o750)


async def do_rmdir(session: Session, top: bytes) -> None:
    await session.rmdir(top + b"/dir")


async def do_remove(session: Session, top: bytes) -> None:
    await session.remove(top + b"/a")


async def do_rename(session: Session, top: bytes) -> None:
    await session.rename(top + b"/a", top + b"/b")


async def do_rename_new(session: Session, top: bytes) -> None:
    await session.rename(top + b"/a", top + b"/new", replace=False)


async def do_rename_dir(session: Session, top: bytes) -> None:
    await session.rename(top + b"/dir", top + b"/new")


async def do_link(session: Session, top: bytes) -> None:
    await session.link(top + b"/a", top + b"/new")


async def do_symlink(session: Session, top: bytes) -> None:
    await session.symlink(b"target", top + b"/new")


async def do_setstat(session: Session, top: bytes) -> None:
    await session.setstat(top + b"/a", Attrs(size=3, mode=0o600))


async def do_create(session: Session, top: bytes) -> None:
    handle = await session.open(top + b"/new", api.WRITE | api.CREAT | api.EXCL, 0o640)
    await session.write(handle, 0, [b"created"])
    await session.close(handle)


async def do_truncate_open(session: Session, top: bytes) -> None:
    handle = await session.open(top + b"/a", api.WRITE | api.CREAT | api.TRUNC, 0o640)
    await session.write(handle, 0, [b"cut"])
    await session.close(handle)


async def do_write(session: Session, top: bytes) -> None:
    handle = await session.open(top + b"/a", api.READ | api.WRITE)
    await session.write(handle, 4, [b"WR", b"ITE"])
    await session.fsetstat(handle, Attrs(size=8))
    await session.fsync(handle)
    assert await session.read(handle, 0, 100) == b"the WRIT"
    await session.close(handle)


async def do_copy(session: Session, top: bytes) -> None:
    source = await session.open(top + b"/a", api.READ)
    dest = await session.open(top + b"/b", api.WRITE)
    await session.copy_data(source, 0, 3, dest, 1)
    await session.close(source)
    await session.close(dest)


CHANGES: list[tuple[Callable[[Session, bytes], Awaitable[None]], PacketType, bytes]] = [
    (do_mkdir, P.MKDIR, b""),
    (do_rmdir, P.RMDIR, b""),
    (do_remove, P.REMOVE, b""),
    (do_rename, P.EXTENDED, b"posix-rename"),
    (do_rename_new, P.LSTAT, b"/new"),
    (do_rename_new, P.RENAME, b""),
    (do_rename_dir, P.EXTENDED, b"posix-rename"),
    (do_link, P.EXTENDED, b"hardlink"),
    (do_symlink, P.SYMLINK, b""),
    (do_setstat, P.SETSTAT, b""),
    (do_create, P.OPEN, b"/new"),
    (do_create, P.LSTAT, b"/new"),
    (do_create, P.WRITE, b""),
    (do_create, P.CLOSE, b""),
    (do_truncate_open, P.OPEN, b""),
    (do_truncate_open, P.WRITE, b""),
    (do_write, P.WRITE, b""),
    (do_write, P.FSETSTAT, b""),
    (do_write, P.EXTENDED, b"fsync"),
    (do_write, P.READ, b""),
    (do_write, P.CLOSE, b""),
    (do_copy, P.OPEN, b"/b"),
    (do_copy, P.EXTENDED, b"copy-data"),
]


def prepare(top: bytes) -> bytes:
    os.mkdir(top)
    put(top + b"/a", b"the content of a")
    put(top + b"/b", b"bbbb")
    os.mkdir(top + b"/dir")
    return top


def picture(top: bytes) -> dict[bytes, object]:
    """The tree with what a user sees of it."""
    seen: dict[bytes, object] = {}
    for entry in os.scandir(top):
        mode = entry.stat(follow_symlinks=False).st_mode
        if entry.is_symlink():
            seen[entry.name] = (oct(mode), os.readlink(entry.path))
        elif entry.is_dir():
            seen[entry.name] = (oct(mode), os.listdir(entry.path))
        else:
            nlink = entry.stat().st_nlink
            seen[entry.name] = (oct(mode), nlink, content(entry.path))
    return seen


@pytest.mark.parametrize("point", ["before", "executed"])
@pytest.mark.parametrize(
    ("change", "kind", "name"), CHANGES, ids=lambda v: getattr(v, "__name__", None) or str(v)
)
async def test_a_change_cut_anywhere_ends_as_if_run_once(
    change: Callable[[Session, bytes], Awaitable[None]],
    kind: PacketType,
    name: bytes,
    point: str,
    top: bytes,
) -> None:
    whole, cut_off = prepare(top + b"/whole"), prepare(top + b"/cut")
    world = World()
    async with running(world) as session:
        await change(session, whole)
        cut = Cut(kind, point, name=name)
        world.cut(cut)
        await change(session, cut_off)
        assert cut.done
        await session.lstat(top)
        await session.lstat(top)
        assert len(world.links) == 2
        assert world.link.server is not None
        assert world.link.server.open_fds(top) == 0
    assert picture(cut_off) == picture(whole)


@pytest.mark.parametrize("point", ["before", "executed"])
@pytest.mark.parametrize("nth", range(1, 12))
async def test_a_rename_by_steps_cut_anywhere_ends_as_if_run_once(
    nth: int, point: str, top: bytes
) -> None:
    prepare(top + b"/cut")
    world = World()
    async with running(world, config(rename_workaround=True)) as session:
        kinds = (P.LSTAT, P.RENAME, P.LSTAT, P.LSTAT, P.RENAME, P.LSTAT, P.RENAME, P.REMOVE)
        if nth > len(kinds):
            return
        kind = kinds[nth - 1]
        world.cut(Cut(kind, point, kinds[:nth].count(kind)))
        await session.rename(top + b"/cut/a", top + b"/cut/b")
    assert sorted(os.listdir(top + b"/cut")) == [b"b", b"dir"]
    assert content(top + b"/cut/b") == b"the content of a"


@pytest.mark.parametrize("point", ["before", "executed"])
@pytest.mark.parametrize("kind", [P.SYMLINK, P.READLINK])
async def test_the_first_symlink_which_is_looked_at_cut_anywhere_is_made_once(
    kind: PacketType, point: str, top: bytes
) -> None:
    prepare(top + b"/t")
    world = World()
    async with running(world) as session:
        cut = Cut(kind, point)
        world.cut(cut)
        await do_symlink(session, top + b"/t")
        assert cut.done
    assert os.readlink(top + b"/t/new") == b"target"


async def test_the_first_symlink_goes_on_when_its_caller_has_gone(top: bytes) -> None:
    prepare(top + b"/t")
    async with running(World()) as session:
        gone = asyncio.ensure_future(do_symlink(session, top + b"/t"))
        await asyncio.sleep(0)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        await do_symlink(session, top + b"/t/dir")  # it waits for the first
    assert os.readlink(top + b"/t/new") == b"target"


async def test_a_refused_change_is_refused_after_a_cut_too(top: bytes) -> None:
    prepare(top + b"/t")
    world = World()
    async with running(world) as session:
        for point in ("before", "executed"):
            world.cut(Cut(P.MKDIR, point))
            assert await refused(session.mkdir(top + b"/t/a", 0o755)) == errno.EEXIST
            world.cut(Cut(P.RMDIR, point))
            os.close(os.open(top + b"/t/dir/x", os.O_CREAT))
            assert await refused(session.rmdir(top + b"/t/dir")) == errno.ENOTEMPTY
            world.cut(Cut(P.OPEN, point))
            flags = api.WRITE | api.CREAT | api.EXCL
            assert await refused(session.open(top + b"/t/a", flags)) == errno.EEXIST


async def test_an_open_file_goes_on_after_a_cut(top: bytes) -> None:
    put(top + b"/f", b"0123456789")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.READ | api.WRITE)
        for number in range(3):
            world.link.lose()
            await session.write(handle, number, [b"x"])
            assert await session.read(handle, 0, 4) == b"x" * (number + 1) + b"123"[number:]
        assert session.statistics().reopened == 3


async def test_a_renamed_open_file_is_found_again(top: bytes) -> None:
    os.mkdir(top + b"/d")
    put(top + b"/d/f", b"0123")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/d/f", api.READ)
        await session.rename(top + b"/d/f", top + b"/d/g")
        await session.rename(top + b"/d", top + b"/e")
        assert handle.path == top + b"/e/g"
        world.link.lose()
        assert await session.read(handle, 0, 10) == b"0123"


@pytest.mark.parametrize("point", ["before", "executed"])
@pytest.mark.parametrize("replace", [True, False])
@pytest.mark.parametrize("what", [b"/d/f", b"/d"])
async def test_an_open_file_goes_on_when_the_link_is_cut_while_it_is_renamed(
    point: str, replace: bool, what: bytes, top: bytes
) -> None:
    os.mkdir(top + b"/d")
    put(top + b"/d/f", b"0123")
    new = what.replace(b"/d", b"/e", 1) if what == b"/d" else b"/d/g"
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/d/f", api.READ | api.WRITE)
        for turn, (old, to) in enumerate([(what, new), (new, what)]):
            world.cut(Cut(P.EXTENDED if replace else P.RENAME, point))
            renaming = asyncio.ensure_future(session.rename(top + old, top + to, replace=replace))
            await session.write(handle, turn, [b"x"])
            await renaming
            assert await session.read(handle, 0, 4) == b"xx23" if turn else b"x123"
        await session.close(handle)
        assert len(world.links) == 3
    assert content(top + b"/d/f") == b"xx23"


@pytest.mark.parametrize("link_is_lost", ["before it is known", "later"])
@pytest.mark.parametrize("ran", [True, False])
@pytest.mark.parametrize("what", [b"/d", b"/d/f"])
async def test_an_open_file_goes_on_after_a_rename_that_was_left(
    what: bytes, ran: bool, link_is_lost: str, top: bytes
) -> None:
    os.mkdir(top + b"/d")
    put(top + b"/d/f", b"0123")
    new = b"/e"
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/d/f", api.READ | api.WRITE)
        link = world.link
        link.is_black_hole = not ran  # else the request passes and the answer does not
        renaming = asyncio.ensure_future(session.rename(top + what, top + new))
        while ran and os.path.exists(top + what):
            await asyncio.sleep(0)
            link.is_black_hole = session.oldest_sent_at() is not None
        renaming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renaming
        link.is_black_hole = False
        if link_is_lost == "later":
            assert len(await session.fstat(handle))  # asked after the question what came of it
        link.lose()
        await session.write(handle, 0, [b"x"])
        assert await session.read(handle, 0, 4) == b"x123"
        await session.close(handle)
    path = {(b"/d", True): b"/e/f", (b"/d/f", True): b"/e"}.get((what, ran), b"/d/f")
    assert content(top + path) == b"x123"


async def test_a_rename_that_was_left_took_the_open_file_that_was_there(top: bytes) -> None:
    put(top + b"/a", b"aa")
    put(top + b"/b", b"bb")
    world = World()
    async with running(world) as session:
        moved = await session.open(top + b"/a", api.READ)
        replaced = await session.open(top + b"/b", api.READ)
        renaming = asyncio.ensure_future(session.rename(top + b"/a", top + b"/b"))
        while os.path.exists(top + b"/a"):
            await asyncio.sleep(0)
            world.link.is_black_hole = session.oldest_sent_at() is not None
        renaming.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renaming
        world.link.lose()
        assert await session.read(moved, 0, 2) == b"aa"
        assert await refused(session.read(replaced, 0, 2)) == errno.ESTALE
        for handle in (moved, replaced):
            await session.close(handle)


async def test_an_open_file_is_found_under_the_name_that_is_left(top: bytes) -> None:
    put(top + b"/a", b"0123")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/a", api.READ | api.WRITE)
        await session.link(top + b"/a", top + b"/b")
        session.also_named(top + b"/a", top + b"/b")
        await session.remove(top + b"/a")
        put(top + b"/a", b"another")
        world.link.lose()
        await session.write(handle, 0, [b"x"])
        await session.close(handle)
    assert content(top + b"/b") == b"x123"
    assert content(top + b"/a") == b"another"


@pytest.mark.parametrize("what", ["same", "same, being written", "replaced", "replaced, empty"])
async def test_an_open_that_cuts_a_file_tells_it_from_the_one_that_was_open_there(
    what: str, top: bytes
) -> None:
    path = top + b"/f"
    put(path, b"" if "empty" in what else b"0123")
    os.utime(path, (5, 5))
    world = World()
    async with running(world) as session:
        before = await session.open(path, api.READ | api.WRITE)
        if "replaced" in what:
            put(top + b"/new", b"another")
            os.rename(top + b"/new", path)
        writes = [
            asyncio.ensure_future(session.write(before, offset, [b"w"]))
            for offset in range(2, 40 if "written" in what else 2)
        ]
        cut = await session.open(path, api.WRITE | api.TRUNC)
        await asyncio.gather(*writes)
        world.link.lose()
        await session.write(cut, 0, [b"c"])
        if "replaced" in what:
            assert await refused(session.write(before, 1, [b"b"])) == errno.ESTALE
        else:
            await session.write(before, 1, [b"b"])
        for handle in (before, cut):
            await session.close(handle)
    assert content(path)[:2] == (b"c" if "replaced" in what else b"cb")


async def replaced(top: bytes) -> None:
    put(top + b"/new", b"another")
    os.rename(top + b"/new", top + b"/f")


@pytest.mark.parametrize("what", ["replaced", "changed", "removed", "directory", "renamed over"])
async def test_another_file_is_stale_never_silently_the_same(what: str, top: bytes) -> None:
    path = top + b"/f"
    put(path, b"0123")
    put(top + b"/g", b"gggg")
    world = World()

    def meddle() -> None:
        if what == "replaced":
            put(top + b"/new", b"another")
            os.rename(top + b"/new", path)
        elif what == "changed":
            os.utime(path, (5, 5))
        elif what in ("removed", "directory"):
            os.unlink(path)
            if what == "directory":
                os.mkdir(path)

    async with running(world) as session:
        handle = await session.open(path, api.READ)
        if what == "renamed over":
            await session.rename(top + b"/g", path)
        world.between = meddle
        world.link.lose()
        assert await refused(session.read(handle, 0, 4)) == errno.ESTALE
        assert await refused(session.fstat(handle)) == errno.ESTALE
        await session.close(handle)
        assert session.statistics().stale == 1


async def test_a_file_that_somebody_appends_to_goes_on(top: bytes) -> None:
    path = top + b"/log"
    put(path, b"one\n")
    world = World()
    async with running(world) as session:
        handle = await session.open(path, api.READ)
        with open(path, "ab") as log:
            log.write(b"two\n")
        assert await session.read(handle, 0, 100) == b"one\ntwo\n"
        for _ in range(2):  # the refresh is in front of the second
            await session.lstat(top)
        world.link.lose()
        assert await session.read(handle, 0, 100) == b"one\ntwo\n"


async def test_waiting_for_the_link_ends_at_link_timeout(top: bytes) -> None:
    world = World()
    async with running(world, config(link_timeout_s=0.2)) as session:
        world.is_reachable.clear()
        world.link.lose()
        loop = asyncio.get_running_loop()
        began = loop.time()
        results = await asyncio.gather(*(refused(session.lstat(top)) for _ in range(20)))
        assert set(results) == {errno.ETIMEDOUT}
        assert 0.15 < loop.time() - began < 1
        assert not session.is_up
        assert session.link_state is LinkState.CONNECTING
        world.is_reachable.set()
        await session.wait_up()
        await session.lstat(top)
        assert len(world.links) == 2  # no login per waiting request
        assert session.statistics().timed_out == 20


async def test_a_request_that_costs_the_link_each_time_ends_too(
    top: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("netfs.client.remote.link._DELAYS", (0.05,))
    put(top + b"/f", b"")
    world = World()
    world.between = lambda: world.cut(Cut(P.LSTAT, "executed", name=b"/f"))
    async with running(world, config(link_timeout_s=0.5), seconds=10) as session:
        world.between()
        assert await refused(session.lstat(top + b"/f")) == errno.ETIMEDOUT
        await session.lstat(top)
    assert len(world.links) > 3


class Look(Looking[Attrs]):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcome: asyncio.Future[Attrs] = asyncio.get_running_loop().create_future()
        self.lost_by: asyncio.Future[Disconnected] = asyncio.get_running_loop().create_future()
        self.on_end = self.ended

    def ended(self, _: object, attrs: Attrs | None, error: BaseException | None) -> None:
        if error is not None:
            self.outcome.set_exception(error)
        else:
            assert attrs is not None
            self.outcome.set_result(attrs)

    def found(self, attrs: Attrs) -> Attrs:
        return attrs

    def refused(self, error: OSError) -> Attrs:
        raise error

    def lost(self, lost: Disconnected) -> None:
        self.lost_by.set_result(lost)


async def test_a_look_tells_what_lstat_returns(top: bytes) -> None:
    put(top + b"/f", b"12345")
    world = World()
    async with running(world) as session:
        look, missing, long = Look(), Look(), Look()
        assert session.look(top + b"/f", look)
        assert session.look(top + b"/none", missing)
        assert session.look(top + b"/" + b"n" * 300, long)
        assert await look.outcome == await session.lstat(top + b"/f")
        assert await refused(missing.outcome) == errno.ENOENT
        assert await refused(long.outcome) == errno.ENAMETOOLONG


async def test_a_name_whose_file_is_open_is_no_matter_of_a_look(top: bytes) -> None:
    put(top + b"/f", b"")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.READ)
        assert not session.look(top + b"/f", Look())
        await session.close(handle)
        look = Look()
        assert session.look(top + b"/f", look)
        await look.outcome


async def test_a_lost_look_is_asked_again(top: bytes) -> None:
    put(top + b"/f", b"12345")
    world = World()
    async with running(world) as session:
        world.cut(Cut(P.LSTAT, "executed", name=b"/f"))
        look = Look()
        assert session.look(top + b"/f", look)
        lost = await look.lost_by
        assert lost.sent
        assert not session.look(top + b"/f", Look()), "the link is down"
        assert (await session.look_again(look, lost)).size == 5
        assert session.statistics().repeated == 1


async def test_a_lost_look_has_waited_since_it_was_asked(top: bytes) -> None:
    world = World()
    async with running(world, config(link_timeout_s=4)) as session:
        loop = asyncio.get_running_loop()
        world.cut(Cut(P.LSTAT, "before"))
        look = Look()
        assert session.look(top, look)
        lost = await look.lost_by
        world.is_reachable.clear()
        world.link.lose()
        look.sent_at -= 3.9  # as if the link had been silent for that long before it was given up
        began = loop.time()
        assert await refused(session.look_again(look, lost)) == errno.ETIMEDOUT
        assert loop.time() - began < 2
        expired = Expired("no answer", sent=True)
        assert await refused(session.look_again(look, expired)) == errno.ETIMEDOUT
        world.is_reachable.set()


async def test_hard_waits_until_cancelled(top: bytes) -> None:
    world = World()
    async with running(world, config(link_timeout_s=0.05, hard=True)) as session:
        world.is_reachable.clear()
        world.link.lose()
        task = asyncio.ensure_future(session.lstat(top))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await asyncio.shield(task)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_without_reconnect_everything_ends(top: bytes) -> None:
    world = World()
    session = Session(config(reconnect=False), world.connect)
    await session.start(await world.connect())
    running_task = asyncio.ensure_future(session.run())
    await session.lstat(top)
    world.link.lose()
    assert await running_task is not None
    assert await refused(session.lstat(top)) == errno.ENOTCONN
    await session.end()


async def test_a_listing_goes_on_with_the_names_not_yet_given(top: bytes) -> None:
    for number in range(500):
        os.close(os.open(top + b"/%d" % number, os.O_CREAT))
    world = World()
    async with running(world) as session:
        world.cut(Cut(P.READDIR, "executed", nth=3))
        names = [entry.name async for batch in session.scandir(top) for entry in batch]
        assert len(names) == 500
        assert set(names) == {b"%d" % number for number in range(500)}


async def test_a_handle_is_let_go_without_waiting(top: bytes) -> None:
    put(top + b"/f", b"12345")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.READ)
        assert session.let_go(handle)
        assert session.statistics().open_files == 0
        assert not session.let_go(handle), "it is closed"
        assert await refused(session.close(handle)) == errno.EBADF
        assert await refused(handle.files.fstat(handle.sftp)), "the server knows it no more"
        assert session.look(top + b"/f", Look())


async def test_a_handle_in_use_or_of_a_lost_link_is_not_let_go(top: bytes) -> None:
    put(top + b"/f", b"12345")
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.READ)
        reading = asyncio.ensure_future(session.read(handle, 0, 10))
        await asyncio.sleep(0)
        assert not session.let_go(handle)
        assert await reading == b"12345"
        world.is_reachable.clear()
        world.link.lose()
        while session.is_up:
            await asyncio.sleep(0)
        assert not session.let_go(handle)
        await session.close(handle)
        assert session.statistics().open_files == 0


async def test_a_close_in_front_of_a_lost_write_still_closes(top: bytes) -> None:
    world = World()
    async with running(world) as session:
        handle = await session.open(top + b"/f", api.WRITE | api.CREAT, 0o600)
        world.cut(Cut(P.WRITE, "before"))
        await asyncio.gather(
            session.write(handle, 0, [b"data"]),
            session.fsetstat(handle, Attrs(size=2)),
            session.close(handle),
        )
        for _ in range(3):
            await session.lstat(top)
        assert content(top + b"/f") == b"da"
        assert world.link.server is not None
        assert world.link.server.open_fds(top) == 0


class TwoChannelLink(CutLink):
    """Each channel is an sftp-server of its own."""

    max_channels = 2

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.channels: list[tuple[PipeChannel, SftpServer]] = []

    async def open_channel(self, receiver: Receiver) -> PipeChannel:  # type: ignore[override]
        pair = await open_pipe(receiver)
        self.channels.append(pair)
        return pair[0]

    def lose(self) -> None:
        if not self.is_dead:
            for channel, server in self.channels:
                server.kill()
                channel.abort()
        super().lose()


class TwoChannelWorld(World):
    async def connect(self) -> TwoChannelLink:
        link = TwoChannelLink(self)
        self.links.append(link)
        return link


async def until_two(session: Session) -> None:
    while len(session.statistics().channels) < 2:
        await asyncio.sleep(0.001)


async def test_a_slow_fsync_does_not_stand_in_front_of_a_stat(top: bytes) -> None:
    world = TwoChannelWorld()
    async with running(world) as session:
        await until_two(session)
        handle = await session.open(top + b"/f", api.WRITE | api.CREAT, 0o600)
        await session.write(handle, 0, [b"data"])
        link = world.link
        assert isinstance(link, TwoChannelLink)
        server = link.channels[1][1].process
        server.send_signal(signal.SIGSTOP)
        syncing = asyncio.ensure_future(session.fsync(handle))
        assert (await session.lstat(top + b"/f")).size == 4
        assert not syncing.done()
        server.send_signal(signal.SIGCONT)
        await syncing
        await session.close(handle)


@pytest.mark.parametrize("lost", [0, 1, 2])
async def test_files_of_both_channels_go_on_when_either_is_lost(lost: int, top: bytes) -> None:
    put(top + b"/a", b"0123456789")
    world = TwoChannelWorld()
    async with running(world) as session:
        early = await session.open(top + b"/b", api.WRITE | api.CREAT, 0o600)
        await until_two(session)
        source = await session.open(top + b"/a", api.READ)
        dest = await session.open(top + b"/c", api.READ | api.WRITE | api.CREAT, 0o600)
        await session.copy_data(source, 0, 4, dest, 0)
        link = world.link
        assert isinstance(link, TwoChannelLink)
        if lost < 2:
            link.channels[lost][1].kill()
        else:
            link.lose()
        await session.write(early, 0, [b"early"])
        await session.write(dest, 4, [b"more"])
        assert await session.read(source, 0, 3) == b"012"
        assert await session.read(dest, 0, 100) == b"0123more"
        await until_two(session)
        await session.copy_data(source, 4, 6, dest, 8)
        assert content(top + b"/c") == b"0123more456789"
        for handle in (early, source, dest):
            await session.close(handle)
        for _ in range(2):
            await session.lstat(top)
        link = world.link
        assert isinstance(link, TwoChannelLink)
        assert len(world.links) == 2
        async with asyncio.timeout(5):
            while sum(server.open_fds(top) for _, server in link.channels):
                await session.lstat(top)
