"""argv and -o lists become the Config that sshfs's users expect."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import pytest

from netfs.cli import options, parse
from netfs.cli.options import Option, Section
from netfs.cli.parse import UsageError
from netfs.client.config import Config


def config(*words: str) -> Config:
    return parse.build(parse.parse_arguments(["user@host:/dir", "/mnt/x", *words]))


@pytest.mark.parametrize(
    ("text", "host", "user", "port", "path"),
    [
        ("host:", "host", None, None, b""),
        ("host:dir", "host", None, None, b"dir"),
        ("host:/dir", "host", None, None, b"/dir"),
        ("host:~", "host", None, None, b""),
        ("host:~/a", "host", None, None, b"a"),
        ("host:/with:colon", "host", None, None, b"/with:colon"),
        ("u@host:/d", "host", "u", None, b"/d"),
        ("u@dom@host:/d", "host", "u@dom", None, b"/d"),
        ("u@[::1]:/d", "::1", "u", None, b"/d"),
        ("[fe80::1%eth0]:", "fe80::1%eth0", None, None, b""),
        ("netfs#u@host:/d", "host", "u", None, b"/d"),
        ("sshfs#host:", "host", None, None, b""),
        ("sftp://u@host:2222/d%20e", "host", "u", 2222, b"/d e"),
        ("sftp://host", "host", None, None, b""),
        ("sftp://host/", "host", None, None, b"/"),
        ("sftp://[::1]:22/~/x", "::1", None, 22, b"x"),
        ("sftp://[fe80::1%25eth0]:22/x", "fe80::1%eth0", None, 22, b"/x"),
        ("sftp://[fe80::1%eth0]/x", "fe80::1%eth0", None, None, b"/x"),
        ("netfs#sftp://h/x", "h", None, None, b"/x"),
    ],
)
def test_a_source_is_read(
    text: str, host: str, user: str | None, port: int | None, path: bytes
) -> None:
    source = parse.parse_source(text)
    assert (source.host, source.user, source.port, source.path) == (host, user, port, path)
    assert source.text == text.removeprefix("netfs#").removeprefix("sshfs#")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("host", "not like [user@]host:[dir]"),
        ("/local/dir", "not like"),
        ("::1:/dir", "needs brackets"),
        ("-oProxyCommand=x:/d", "can't begin with '-'"),
        ("-u@host:/d", "can't begin with '-'"),
        ("sftp://-x/d", "can't begin with '-'"),
        (":/d", "the host is missing"),
        ("ho st:/d", "white space"),
        ("sftp://host:70000/", "1 to 65535"),
        ("sftp://ho]st/", "not a URL"),
    ],
)
def test_a_malformed_source_is_named(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse.parse_source(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("a,b=c", ["a", "b=c"]),
        (",a,,b,", ["a", "b"]),
        (r"a=x\,y,b", ["a=x,y", "b"]),
        (r"a=x\\y", [r"a=x\y"]),
        (r"a=x\040y", ["a=x y"]),
        ('a="x,y",b', ["a=x,y", "b"]),
        ('a=5"', ['a=5"']),
        ('a=x,b="q,r"', ["a=x", "b=q,r"]),
    ],
)
def test_an_option_list_is_split_at_its_commas(text: str, items: list[str]) -> None:
    assert parse.split_options(text) == items


def test_an_open_quote_is_an_error() -> None:
    with pytest.raises(UsageError, match="not closed"):
        parse.split_options('a="x,y')


def test_the_letters_are_sshfs_s() -> None:
    made = config("-p", "2222", "-C", "-F", "none", "-s", "-f")
    assert made.source.port == 2222
    assert made.ssh.config_file == "none"
    assert made.ssh.keywords == {"compression": ("yes",)}
    assert made.daemon.foreground
    assert not made.daemon.debug


def test_letters_may_be_joined_and_stand_anywhere() -> None:
    given = parse.parse_arguments(["-fd", "host:", "-p2222", "/mnt/x", "-oro,cto_window=0"])
    made = parse.build(given)
    assert made.daemon.debug
    assert made.daemon.foreground
    assert made.source.port == 2222
    assert made.mount.read_only
    assert made.cache.cto_window_s == 0


def test_each_option_that_sshfs_and_libfuse_tell_of_is_known() -> None:
    """As ``sshfs -h`` of 3.7 lists them, and the words that only its manual or source name."""
    text = """
    reconnect delay_connect sshfs_sync no_readahead sync_readdir dir_cache cache dcache_max_size
    dcache_timeout dcache_stat_timeout dcache_link_timeout dcache_dir_timeout cache_timeout
    cache_stat_timeout cache_link_timeout cache_dir_timeout cache_max_size cache_clean_interval
    cache_min_clean_interval dcache_clean_interval dcache_min_clean_interval direct_io workaround
    idmap uidfile gidfile nomap ssh_command ssh_protocol sftp_server directport vsock passive slave
    disable_hardlink transform_symlinks contain_symlinks no_contain_symlinks follow_symlinks
    no_check_root password_stdin max_conns max_read max_write sshfs_debug sshfs_verbose
    unreliable_append writeback_cache auto noauto user nouser users _netdev
    kernel_cache auto_cache noauto_cache no_rofd_flush umask fmask dmask uid gid entry_timeout
    negative_timeout attr_timeout ac_attr_timeout noforget remember modules allow_other allow_root
    default_permissions auto_unmount fsname subtype nonempty ro rw subdir rellinks norellinks
    from_code to_code parallel_direct_write clone_fd max_idle_threads max_threads debug
    volname noappledouble defer_permissions
    """
    assert [word for word in text.split() if options.find(word) is None] == []


def test_verbose_is_more_of_a_log() -> None:
    for words in (["-v"], ["--verbose"], ["-o", "sshfs_verbose"]):
        assert config(*words).daemon.log_level == "debug"
        assert not config(*words).daemon.foreground


def test_debug_stays_in_the_foreground() -> None:
    assert config("-o", "sshfs_debug").daemon.foreground


def test_ssh_keywords_are_found_in_any_case_and_kept_in_order() -> None:
    made = config("-o", "identityfile=/a,IDENTITYFILE=/b,StrictHostKeyChecking=accept-new")
    assert made.ssh.keywords == {
        "identityfile": ("/a", "/b"),
        "stricthostkeychecking": ("accept-new",),
    }


def test_time_outs_of_ssh_are_netfs_s_own_too() -> None:
    made = config("-o", "ConnectTimeout=3,ServerAliveInterval=5,ServerAliveCountMax=2")
    assert made.ssh.connect_timeout_s == 3
    assert made.ssh.server_alive_interval_s == 5
    assert made.ssh.server_alive_count_max == 2


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("chache_timeout=3", "unknown option 'chache_timeout'; did you mean 'cache_timeout'?"),
        ("reconect", "did you mean 'reconnect'?"),
        ("qqqqqq", "unknown option 'qqqqqq'"),
        ("link_timeout=soon", "'soon' is not allowed; it takes a number of seconds, 0 or more"),
        ("link_timeout", "option 'link_timeout' needs a value"),
        ("hard=3", "takes no value"),
        ("idmap=maybe", "none or user or file"),
        ("umask=999", "an octal mode"),
        ("port=99999", "1 to 65535"),
        ("cache_size=much", "a number of bytes"),
        ("uid=nobody-like-this", "a user's name or number"),
        ("metrics=9100", "an address and a port"),
        ("modules=iconv", "from_code"),
        ("from_code=latin1", "modules=iconv"),
        ("modules=iconv:zip", "subdir, iconv"),
        ("modules=iconv,from_code=utf-16", "contains ASCII"),
        ("modules=iconv,from_code=utf-7", "contains ASCII"),
        ("modules=iconv,from_code=utf-8-sig", "contains ASCII"),
        ("modules=iconv,from_code=klingon", "contains ASCII"),
        ("modules=iconv,from_code=hex", "contains ASCII"),
        ("ConnectTimeout=x", "a number"),
        ("workaround=magic", "rename"),
        ("dirty_limit=nan", "a number of bytes"),
        ("link_timeout=nan", "a number of seconds"),
    ],
)
def test_a_bad_option_is_named_with_what_is_allowed(item: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        config("-o", item)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "words",
    [
        ["-o", "allow_other,allow_root"],
        ["-o", "passive,directport=22"],
        ["-o", "passive,password_stdin"],
        ["-o", "idmap=file"],
        ["-o", "subdir=x"],
    ],
)
def test_what_excludes_or_needs_another_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        config(*words)


SAMPLES = {
    "N": "1",
    "PORT": "22",
    "SECONDS": "1.5",
    "SIZE": "1M",
    "MASK": "022",
    "yes|no": "no",
    "TEXT": "text",
    "FILE": "/f",
    "DIR": "/d",
    "COMMAND": "ssh -v",
    "USER": "root",
    "UID": "0",
    "GID": "0",
    "ADDR:PORT": "127.0.0.1:1",
    "CID:PORT": "2:22",
    "LIST": "rename:renamexdev",
    "CHARSET": "koi8-r",
}


def sample(option: Option) -> str:
    assert option.kind is not None
    if option.kind.metavar == "N":
        return "4096" if "read" in option.name or "write" in option.name else "1"
    if option.name == "ssh_protocol":
        return "2"
    if option.name in ("Port", "ConnectTimeout", "ServerAliveInterval", "ServerAliveCountMax"):
        return "22"
    return SAMPLES.get(option.kind.metavar, option.kind.words[0] if option.kind.words else "x")


@pytest.mark.parametrize("option", options.OPTIONS, ids=lambda option: option.name)
def test_each_option_is_accepted_by_each_of_its_names_and_sets_its_fields(option: Option) -> None:
    for name in option.names:
        item = name if option.kind is None else f"{name}={sample(option)}"
        given = parse.parse_arguments(["host:", "/mnt/x", "-o", item])
        if option.name in ("subdir", "modules"):
            given = parse.parse_arguments(["host:", "/m", "-o", "modules=subdir,subdir=x"])
        elif option.name in ("from_code", "to_code"):
            given = parse.parse_arguments(["host:", "/m", "-o", f"modules=iconv,{item}"])
        elif option.name == "idmap":
            given.fields["identity.idmap"] = "user"
        elif option.name in ("uidfile", "gidfile"):
            assert f"{option.name}" in given.fields
            continue
        made = parse.build(given)
        for field in [*option.fields, *option.sets]:
            group, _, rest = field.partition(".")
            if field.startswith("ssh.keywords.") or "." not in field:
                continue
            assert rest in {part.name for part in dataclasses.fields(getattr(made, group))}


def test_each_option_has_one_row_and_a_line_of_help() -> None:
    names = [name for option in options.OPTIONS for name in option.names]
    assert len(names) == len({*names})
    assert all(option.help for option in options.OPTIONS if option.section is not Section.SSH)


def test_words_of_other_programs_are_accepted() -> None:
    assert config("-o", "defaults,_netdev,nofail,user=bob,user,x-systemd.automount,comment=z,rw")


def test_generic_flags_are_kept_in_their_order() -> None:
    assert config("-o", "nosuid,noatime,suid").mount.flags == ("nosuid", "noatime", "suid")


@pytest.mark.parametrize(
    "item",
    [
        "nonempty",
        "unreliable_append",
        "writeback_cache=no",
        "ssh_protocol=1",
        "workaround=truncate",
        "workaround=fstat",
        "workaround=buflimit",
        "workaround=rename:truncate",
    ],
)
def test_an_obsolete_word_is_accepted_with_a_note(item: str) -> None:
    (note,) = parse.parse_arguments(["host:", "/m", "-o", item]).notes
    name, _, words = item.partition("=")
    assert note.startswith(name)
    assert "\n" not in note
    if name == "workaround":
        assert words.rpartition(":")[2] in note


def test_workarounds_that_work_are_not_noted() -> None:
    item = "workaround=rename:renamexdev:createmode:notruncate"
    given = parse.parse_arguments(["host:", "/m", "-o", item])
    assert not given.notes
    made = parse.build(given).semantics
    assert (made.rename_workaround, made.rename_xdev, made.create_mode) == (True, True, False)


def test_obsolete_words_are_noted_once() -> None:
    given = parse.parse_arguments(["host:", "/m", "-1", "-o", "ssh_protocol=2,unreliable_append"])
    assert len(given.notes) == 2


def test_a_mountpoint_is_made_absolute_and_free_of_symlinks(tmp_path: Path) -> None:
    real = tmp_path / "real" / "point"
    real.mkdir(parents=True)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "direct").symlink_to("real/point")
    for text in ("link/point", "link/point/", "direct", "real/./point/."):
        assert parse.resolve_mountpoint(str(tmp_path / text)) == str(real.resolve())
    assert parse.resolve_mountpoint("/dev/fd/7") == "/dev/fd/7"


def test_a_subdirectory_is_joined_to_the_source() -> None:
    assert config("-o", "modules=subdir,subdir=a/b").source.path == b"/dir/a/b"


def test_names_are_converted_by_libfuse_s_module() -> None:
    assert config("-o", "modules=iconv,from_code=CP1251").semantics.charset == ("cp1251", "utf-8")
    both = config("-o", "modules=subdir:iconv,subdir=a,to_code=koi8-r")
    assert both.source.path == b"/dir/a"
    assert both.semantics.charset == ("utf-8", "koi8-r")


def test_id_files_map_remote_ids_to_local_ones(tmp_path: Path) -> None:
    uids = tmp_path / "uids"
    uids.write_text("root:1000\n# comment\nnobody-like-this:5\nroot:x:1001:0:a:/:/bin/sh\n")
    made = config("-o", f"idmap=file,uidfile={uids},nomap=ignore")
    assert made.identity.uid_map == {1000: 0, 1001: 0}
    assert made.identity.nomap == "ignore"


@pytest.mark.parametrize(("text", "message"), [("root\n", "line 1"), ("root:x\n", "line 1")])
def test_a_malformed_id_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    uids = tmp_path / "uids"
    uids.write_text(text)
    with pytest.raises(UsageError, match=message):
        config("-o", f"idmap=file,uidfile={uids}")


def test_an_id_file_others_can_write_is_refused(tmp_path: Path) -> None:
    uids = tmp_path / "uids"
    uids.write_text("root:0\n")
    os.chmod(uids, 0o666)
    with pytest.raises(UsageError, match="written by others"):
        config("-o", f"idmap=file,uidfile={uids}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "source is missing"),
        (["host:"], "mountpoint is missing"),
        (["host:", "/m", "extra"], "unexpected argument 'extra'"),
        (["host:", "/m", "-x"], "unknown option '-x'"),
        (["host:", "/m", "--what"], "unknown option '--what'"),
        (["host:", "/m", "-o"], "'-o' needs a value"),
    ],
)
def test_wrong_operands_are_named(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse.build(parse.parse_arguments(words))
    assert message in str(caught.value)
