"""What a listening socket does after the last call."""

from __future__ import annotations

import errno
import select
import socket

import pytest

from runtime.last_call import admit_no_more

WAIT_S = 10.0
SOON_S = 0.3  # loopback needs microseconds; a SYN that was dropped is sent again after 1 s


@pytest.fixture
def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def connecting(listening: socket.socket) -> socket.socket:
    one = socket.socket()
    one.setblocking(False)
    assert one.connect_ex(listening.getsockname()) == errno.EINPROGRESS
    return one


def test_who_had_come_is_served_and_who_comes_later_is_refused(listening: socket.socket) -> None:
    early = connecting(listening)
    admit_no_more(listening.fileno())
    late = connecting(listening)
    assert select.select([], [late], [], SOON_S) == ([], [], [])  # neither accepted nor refused

    early.send(b"POST")
    accepted, _ = listening.accept()
    listening.close()
    assert accepted.recv(4) == b"POST"
    accepted.send(b"answer")
    early.setblocking(True)
    assert early.recv(6) == b"answer"
    assert select.select([], [late], [], WAIT_S)[1] == [late]
    assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
    for one in (early, late, accepted):
        one.close()


def test_without_the_call_who_waits_to_be_accepted_is_reset(listening: socket.socket) -> None:
    """Why it is needed."""
    early = connecting(listening)
    assert select.select([], [early], [], WAIT_S)[1] == [early]
    early.send(b"POST")
    listening.close()
    early.setblocking(True)
    with pytest.raises(ConnectionResetError):
        early.recv(1)
    early.close()
