"""Rows that netfs owes to others: ssh_config keywords, words of mount(8), libfuse and sshfs.

See options.py for the table.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from netfs.cli import kinds
from netfs.cli.kinds import Kind
from netfs.cli.option import Option, Section


def _accepted(
    names: str, help: str, kind: Kind | None = None, note: str | None = None
) -> Iterator[Option]:
    """One row for each name: these words have nothing else in common."""
    for name in names.split():
        yield Option(names=(name,), help=help, section=Section.ACCEPTED, kind=kind, note=note)


_GENERIC: Final = (
    ("nosuid", "set-user-ID bits have no effect (the default)"),
    ("suid", "set-user-ID bits take effect (root only)"),
    ("nodev", "device files have no effect (the default)"),
    ("dev", "device files take effect (root only)"),
    ("noexec", "nothing can be executed"),
    ("exec", "programs can be executed (the default)"),
    ("noatime", "access times are not updated"),
    ("atime", "access times are updated"),
    ("nodiratime", "access times of directories are not updated"),
    ("diratime", "access times of directories are updated"),
    ("relatime", "access times are updated when older than the modification"),
    ("norelatime", "the opposite of relatime"),
    ("strictatime", "access times are always updated"),
    ("nostrictatime", "the opposite of strictatime"),
    ("lazytime", "times are written late"),
    ("nolazytime", "the opposite of lazytime"),
    ("dirsync", "directory changes are synchronous (they always are)"),
    ("nosymfollow", "symlinks are not followed"),
)

_KEYWORDS: Final = """
AddressFamily BatchMode BindAddress BindInterface CertificateFile
ChallengeResponseAuthentication CheckHostIP Cipher Ciphers Compression CompressionLevel
ConnectionAttempts ConnectTimeout ControlMaster ControlPath ControlPersist FingerprintHash
GlobalKnownHostsFile GSSAPIAuthentication GSSAPIDelegateCredentials HostbasedAuthentication
HostbasedKeyTypes HostKeyAlgorithms HostKeyAlias HostName IdentitiesOnly IdentityFile
IdentityAgent IPQoS KbdInteractiveAuthentication KbdInteractiveDevices KexAlgorithms
LocalCommand LogLevel MACs NoHostAuthenticationForLocalhost NumberOfPasswordPrompts
PasswordAuthentication PermitLocalCommand PKCS11Provider Port PreferredAuthentications
ProxyCommand ProxyJump ProxyUseFdpass PubkeyAcceptedKeyTypes PubkeyAuthentication RekeyLimit
RevokedHostKeys RhostsRSAAuthentication RSAAuthentication ServerAliveCountMax
ServerAliveInterval SmartcardDevice StrictHostKeyChecking TCPKeepAlive UpdateHostKeys
UsePrivilegedPort UserKnownHostsFile VerifyHostKeyDNS VisualHostKey
AddKeysToAgent CanonicalDomains CanonicalizeFallbackLocal CanonicalizeHostname
CanonicalizeMaxDots CanonicalizePermittedCNAMEs CASignatureAlgorithms EnableSSHKeysign
ForwardAgent GSSAPIClientIdentity GSSAPIKeyExchange GSSAPIKexAlgorithms
GSSAPIRenewalForcesRekey GSSAPIServerIdentity GSSAPITrustDns HashKnownHosts
HostbasedAcceptedAlgorithms KnownHostsCommand PubkeyAcceptedAlgorithms RequiredRSASize
SecurityKeyProvider SendEnv SetEnv SyslogFacility Tag XAuthLocation
"""
SSH_KEYWORDS: Final = tuple(_KEYWORDS.split())
"""sshfs's 61 and the newer ones that make sense for a connection without a shell."""

ACCEPTED: Final = (
    *_accepted("noauto_cache auto_cache", "changed files are always noticed at open"),
    *_accepted("ac_attr_timeout remember", "attributes are revalidated at open", kinds.SECONDS),
    *_accepted("noforget", "what the kernel holds is never forgotten"),
    *_accepted("auto_unmount", "the supervisor always unmounts after the worker"),
    *_accepted(
        "nonempty",
        "mounting over a directory with content is allowed",
        note="nonempty: has no effect, a directory may have content",
    ),
    *_accepted("sync_readdir", "listings are fetched as the caller reads them"),
    *_accepted(
        "dcache_clean_interval dcache_min_clean_interval cache_clean_interval "
        "cache_min_clean_interval",
        "the caches need no cleaning",
        kinds.COUNT,
    ),
    *_accepted("no_rofd_flush parallel_direct_write parallel_direct_writes", "a matter of libfuse"),
    *_accepted("clone_fd noclone_fd big_writes large_read", "a matter of libfuse"),
    *_accepted("intr use_ino readdir_ino hard_remove nopath", "a matter of libfuse"),
    *_accepted("async_read sync_read atomic_o_trunc no_remote_lock", "a matter of libfuse"),
    *_accepted("splice_read splice_write splice_move", "a matter of libfuse"),
    *_accepted("no_splice_read no_splice_write no_splice_move", "a matter of libfuse"),
    *_accepted(
        "max_idle_threads max_threads max_background congestion_threshold max_readahead "
        "intr_signal",
        "a matter of libfuse",
        kinds.COUNT,
    ),
    *_accepted(
        "ssh_protocol",
        "SSH version 2 is the only one",
        kinds.integer(1, 2),
        note="ssh_protocol: only SSH version 2 exists",
    ),
    *_accepted(
        "unreliable_append",
        "appends are reliable",
        note="unreliable_append: has no effect, appends are settled by the file's size",
    ),
    *_accepted(
        "writeback_cache",
        "writes are buffered by netfs itself",
        kinds.YES_NO,
        note="writeback_cache: has no effect, netfs buffers writes itself",
    ),
    *_accepted("volname iosize", "a word of macOS", kinds.TEXT),
    *_accepted("noappledouble noapplexattr defer_permissions", "a word of macOS"),
    *_accepted("drop_privileges", "a word of mount.fuse"),
)

FSTAB: Final = (
    *(
        Option(names=(name,), help=help, section=Section.FSTAB)
        for name, help in (
            ("defaults", "no other word"),
            ("auto", "mounted by mount -a"),
            ("noauto", "not mounted by mount -a"),
            ("users", "any user may mount and unmount"),
            ("nouser", "only root may mount"),
            ("owner", "the device's owner may mount"),
            ("group", "the device's group may mount"),
            ("nofail", "no error at boot when it can't be mounted"),
            ("_netdev", "mounted after the network is there"),
            ("sloppy", "unknown words are not an error"),
            ("loud", "messages are shown"),
            ("silent", "messages are not shown"),
            ("nomand", "no mandatory locking"),
            ("noiversion", "no inode version"),
            ("remount", "change ro, rw and the like of what is mounted"),
        )
    ),
    Option(
        names=("user",),
        help="a user may mount",
        section=Section.FSTAB,
        kind=kinds.TEXT,
        optional=True,
    ),
    Option(names=("comment",), help="a comment", section=Section.FSTAB, kind=kinds.TEXT),
)

FLAGS: Final = tuple(
    Option(names=(name,), help=help, section=Section.MOUNT, sets={"mount.flags": (name,)})
    for name, help in _GENERIC
)

SSH: Final = tuple(
    Option(
        names=(keyword,),
        help="",
        section=Section.SSH,
        kind=kinds.TEXT,
        fields=(f"ssh.keywords.{keyword.lower()}",),
    )
    for keyword in SSH_KEYWORDS
)

PREFIXES: Final = ("x-", "X-")
"""Words that begin so belong to other programs (x-systemd.automount, x-gvfs-hide ...)."""
