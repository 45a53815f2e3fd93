"""The way to the server: transports, one SFTP conversation, and the Remote that outlives them.

``api`` the vocabulary · ``channel``, ``transport`` bytes · ``requester``, ``window`` one
conversation · ``files``, ``listing``, ``renaming`` its files · ``errnos``, ``narrow`` refusals ·
``session``, ``replay`` one conversation after another as if one.
"""
