"""A listening socket that takes no new connection and loses none that has begun.

``close`` on a listening socket resets every connection that waits to be accepted: its client, a proxy, has
perhaps sent a POST already, which it may not send again. So the kernel is first told to drop SYNs alone; what
had begun is accepted for a moment more; then the socket can be closed. Who knocked in between knocks again
after a second (RFC 6298 section 2.1) and is refused, before it has sent anything.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys

# For handshakes that had begun: a round trip of a proxy in the same data centre, many times over.
LAST_CALL_S = 0.1
SO_ATTACH_FILTER = 26  # asm-generic/socket.h; Python's socket module does not name it
# socket(7) and linux/filter.h. A TCP socket's filter sees the segment from its TCP header on; byte 13 holds
# the flags (RFC 9293 section 3.1). It returns how many bytes to keep: all, or none for a SYN.
_SYN = 0x02
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # ldb [13]
        (0x45, 0, 1, _SYN),  # jset SYN: next, else skip one
        (0x06, 0, 0, 0),  # ret 0
        (0x06, 0, 0, 0xFFFFFFFF),  # ret all
    )
)
_INSTRUCTION_BYTES = 8


def admit_no_more(listening: int) -> None:
    """Let no new TCP connection begin at the listening socket (a file descriptor); those begun go on.

    Without effect where the system has no socket filters; OSError when it refuses this one.
    """
    if sys.platform != "linux":
        return
    program = ctypes.create_string_buffer(_DROP_SYN, len(_DROP_SYN))
    count = len(_DROP_SYN) // _INSTRUCTION_BYTES
    described = struct.pack("@HP", count, ctypes.addressof(program))
    with socket.socket(fileno=os.dup(listening)) as same:
        same.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, described)
