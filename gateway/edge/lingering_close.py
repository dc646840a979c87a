"""Limits for a lingering close: how much unread request body to drain, and for how long.

Closing a socket with unread bytes resets the connection, and the peer then discards the response as well.
"""

from typing import Final

#: Twice the default of HEADRACE_MAX_BODY_BYTES: the client of a body that is too large gets to read its size.
MOST_LINGER_BYTES: Final = 64 * 1024 * 1024
LINGER_S: Final = 5.0
