"""The content of files: blocks in memory, what is read ahead, what the server still lacks.

``content.FileData`` is one file; ``files.FileTable`` has them all and the open ones by fh.  Below
them: ``extents`` (where bytes are), ``writequeue`` (in which order changes may leave), ``sending``
and ``fetching`` (the ways to the server), ``handles`` (open files at the server), ``readahead``
(what comes next), ``version`` (old or new), ``rescue`` (what nobody takes any more).
"""
