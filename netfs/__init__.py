"""netfs: mount a directory of any SSH server, and export one."""

__version__ = "0.1.0"
