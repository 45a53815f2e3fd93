"""The SFTP protocol, version 3 with OpenSSH's extensions, as values and bytes: no I/O.

A client sends *requests* under an id of its choice; the server answers each with one *response*
under the same id, in any order.  Files are named by path (bytes, no encoding) or by an opaque
*handle*.  Version 3 (draft-ietf-secsh-filexfer-02) is what OpenSSH speaks; it has no inode
numbers, no link counts, times of one second in 32 bits, and one FAILURE for most errors.
``attrs@netfs`` (docs/protocol.md) adds what is missing of the attributes between two netfs.

``codes`` numbers · ``attrs`` attributes · ``requests`` and ``extensions`` what is asked ·
``responses`` what is answered · ``framing`` packets of a stream · ``connection`` a conversation.
"""
