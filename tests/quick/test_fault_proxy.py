"""The proxy passes bytes until it is told not to, and then does to clients what a broken server would."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from fault_proxy import FaultProxy


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(5)
        yield listening


@pytest.fixture
def proxy(server: socket.socket) -> Iterator[FaultProxy]:
    with FaultProxy(server.getsockname()[1]) as running:
        yield running


def connect(proxy: FaultProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=60)


@pytest.fixture
def pair(server: socket.socket, proxy: FaultProxy) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield a client's end and the server's end of one connection through the proxy."""
    with connect(proxy) as client, server.accept()[0] as served:
        served.settimeout(5)
        yield client, served


def silent(end: socket.socket) -> bool:
    end.settimeout(0.2)
    try:
        end.recv(1, socket.MSG_PEEK)
    except TimeoutError:
        return True
    finally:
        end.settimeout(5)
    return False


def test_bytes_pass_both_ways_and_are_counted(proxy, pair):
    client, served = pair
    client.sendall(b"question")
    assert served.recv(100) == b"question"
    served.sendall(b"reply")
    assert client.recv(100) == b"reply"
    assert (proxy.requested_bytes, proxy.answered_bytes, proxy.connections) == (8, 5, 1)


def test_held_bytes_come_after_release_and_none_is_lost(proxy, pair):
    client, served = pair
    proxy.hold()
    client.sendall(b"question")
    served.sendall(b"reply")
    assert silent(client)
    assert silent(served)
    assert proxy.answered_bytes == 0
    proxy.release()
    assert (client.recv(100), served.recv(100)) == (b"reply", b"question")


def test_a_connection_made_while_bytes_are_held_is_held_too(server, proxy):
    proxy.hold()
    with connect(proxy) as client, server.accept()[0] as served:
        client.sendall(b"question")
        assert silent(served)
        proxy.release()
        assert served.recv(100) == b"question"


def test_refused_clients_see_a_refusal_and_old_connections_go_on(proxy, pair):
    client, served = pair
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        connect(proxy)
    client.sendall(b"still here")
    assert served.recv(100) == b"still here"
    proxy.accept()
    connect(proxy).close()


def test_dropped_connections_are_reset_on_both_sides(proxy, pair):
    proxy.drop()
    for end in pair:
        with pytest.raises(ConnectionResetError):
            end.recv(100)


def test_the_end_of_one_side_reaches_the_other(pair):
    client, served = pair
    served.sendall(b"last")
    served.close()
    assert client.recv(100) == b"last"
    assert client.recv(100) == b""


def test_a_client_of_a_server_that_is_gone_is_reset(server, proxy):
    server.close()
    with pytest.raises(ConnectionResetError), connect(proxy) as client:
        client.recv(100)
