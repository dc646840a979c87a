"""What is still read of a client that was answered before it had said all.

A socket that is closed with bytes unread tells the peer to throw away what it was sent, the answer too.
"""

from typing import Final

MOST_UNREAD_BYTES: Final = 1024 * 1024
UNREAD_S: Final = 5.0
