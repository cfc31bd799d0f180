from __future__ import annotations

import socket
from dataclasses import astuple, fields, replace

import pytest

from towline.errors import TowlineError
from towline.launcher.ports import Ports


def test_one_base_and_nine_after_it() -> None:
    assert astuple(Ports.from_arguments(8080, [])) == tuple(range(8080, 8090))


def test_each_part_can_be_set_apart() -> None:
    ports = Ports.from_arguments(8080, ["visitors=9000", "gateway-ops=9001"])
    assert (ports.visitors, ports.gateway_ops, ports.agents) == (9000, 9001, 8082)
    assert ports.at("visitors") == "127.0.0.1:9000"


@pytest.mark.parametrize(
    ("base", "apart", "problem"),
    [
        (8080, ["visitors"], "--listen visitors: must be PART=PORT"),
        (8080, ["nobody=1"], "--listen nobody=1: must be PART=PORT with one of gateway, visitors"),
        (8080, ["visitors=x"], "--listen visitors=x"),
        (65535, [], "--port 65535: the visitors port would be 65536"),
        (0, [], "--port 0"),
        (8080, ["visitors=8080"], "two parts have the same port"),
    ],
)
def test_a_wrong_flag_is_named(base: int, apart: list[str], problem: str) -> None:
    with pytest.raises(TowlineError) as caught:
        Ports.from_arguments(base, apart)
    assert problem in str(caught.value)


def test_a_port_that_is_taken_is_named_with_the_flag_that_moves_it() -> None:
    with socket.socket() as other, socket.socket() as free:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        free.bind(("127.0.0.1", 0))
        unused = free.getsockname()[1]
        free.close()
        ports = Ports(*([unused] * len(fields(Ports))))
        ports.ensure_free()
        with pytest.raises(TowlineError, match=rf"port {taken} \(gateway\) is in use.*with --port"):
            replace(ports, gateway=taken).ensure_free()
        with pytest.raises(TowlineError, match=rf"port {taken} \(demo\) is in use.*with --listen demo=PORT"):
            replace(ports, demo=taken).ensure_free()
