"""``connect``: from a configuration to a Link, by SSH, a pipe or plain TCP.

The ways themselves are in ssh.py (asyncssh), pipe.py (ssh_command, passive) and tcp.py
(directport, vsock).
"""

from __future__ import annotations

from netfs.client.config import Config
from netfs.client.remote.channel import Link
from netfs.client.remote.pipe import PassiveLink, PipeLink
from netfs.client.remote.prompt import Prompter
from netfs.client.remote.sshconfig import settings_for
from netfs.client.remote.sshdial import connect_ssh
from netfs.client.remote.tcp import TcpLink


def keepalive(config: Config) -> tuple[float, int]:
    """ServerAliveInterval (seconds, 0: none) and ServerAliveCountMax that hold for the mount.

    Raises:
        ConnectError: BAD_CONFIG.
    """
    ssh, source = config.ssh, config.source
    interval_s, count_max = ssh.server_alive_interval_s, ssh.server_alive_count_max
    if not (ssh.passive or ssh.ssh_command or ssh.vsock or ssh.directport is not None):
        words = settings_for(ssh, source.host, user=source.user, port=source.port)
        if words.alive_interval_s is not None:
            interval_s = words.alive_interval_s
        if words.alive_count_max is not None:
            count_max = words.alive_count_max
    return interval_s, count_max


async def connect(config: Config, prompter: Prompter) -> Link:
    """Reach the server of *config*; *prompter* is asked what only a person knows.

    Raises:
        ConnectError: with the kind and one line for the user.
    """
    ssh = config.ssh
    if ssh.passive:
        return PassiveLink()
    if ssh.directport is not None or ssh.vsock is not None:
        return TcpLink(config)
    if ssh.ssh_command is not None:
        return PipeLink(config)
    return await connect_ssh(config, prompter)
