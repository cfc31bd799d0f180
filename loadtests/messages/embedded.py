"""Devices at the broker of a `towline up`, which asks them for passwords."""

from __future__ import annotations

from gateway.randomness import digest, new_secret
from gateway.settings import Settings
from loadtests.messages.rows import Rows
from loadtests.messages.talkers import Login, Order
from loadtests.seeding import seed_devices
from loadtests.stack import Product
from runtime.settings import load
from testbed.ports import LOOPBACK


def rows_of(product: Product) -> Rows:
    """Its database; to be closed."""
    return Rows(load(Settings, product.data.config / "gateway.toml").database())


def devices_with_passwords(product: Product, rows: Rows, number: int) -> Order:
    """So many new devices, and what each would have been told when it asked where its broker is."""
    made = seed_devices(product.data, number)
    place = rows.prefix(made[0].id).rpartition("/")[0]
    logins = [Login(one.id, f"{place}/{one.id}", password=new_secret()) for one in made]
    for one in logins:
        assert one.password is not None
        rows.fetch(
            "INSERT INTO device_broker_passwords (device_id, sha256, created_at) VALUES ($1, $2, now())",
            one.id,
            digest(one.password),
        )
    return Order(LOOPBACK, product.stack.ports["mqtt"], None, logins)
