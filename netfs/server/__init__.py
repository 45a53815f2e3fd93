"""The exporting end: one directory served over SFTP, and nothing outside of it.

``export`` touches the disk and is where the border is kept (``confine``); ``handlers`` is the table
of requests; ``session`` answers one client's; ``listener`` and ``stdio`` are the two ways in.
"""
