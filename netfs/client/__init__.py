"""The mounting end: the kernel's requests in, SFTP requests out, and what is remembered between.

``daemon`` builds the parts and owns their lives; docs/design.md draws the way of a request through
them.  ``operations`` knows what a request means, ``nodes`` what is known of names and attributes,
``data`` the content of files, ``remote`` the server.  Each policy is one module (docs/design.md).
Importing this package imports none of them.
"""
