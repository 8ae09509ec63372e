"""Who asks, seen past proxies; what a stranger writes into X-Forwarded-For makes nobody else of them."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from voicebus.common.errors import ConfigError
from voicebus.edge.addresses import bucket, client_of, is_trusted, networks

PROXIES = networks(["10.0.0.0/8", "::1"])


def test_without_a_trusted_proxy_the_header_is_not_read() -> None:
    assert client_of("203.0.113.9", ["198.51.100.1"], PROXIES) == "203.0.113.9"
    assert client_of("203.0.113.9", ["198.51.100.1"], ()) == "203.0.113.9"


def test_each_trusted_proxy_is_believed_about_its_own_peer_alone() -> None:
    assert client_of("10.0.0.1", ["6.6.6.6, 198.51.100.1, 10.0.0.2"], PROXIES) == "198.51.100.1"
    assert client_of("10.0.0.1", ["6.6.6.6", "198.51.100.1"], PROXIES) == "198.51.100.1"


@pytest.mark.parametrize("hop", ["unknown", "", "_hidden", "1.2.3.4.5", "a" * 10_000])
def test_what_is_no_address_ends_the_search(hop: str) -> None:
    assert client_of("10.0.0.1", [f"198.51.100.1, {hop}"], PROXIES) in ("10.0.0.1", "198.51.100.1")


def test_ports_and_brackets_are_taken_off() -> None:
    assert client_of("::1", ["[2001:db8::5]:4711"], PROXIES) == "2001:db8::5"
    assert client_of("::1", ["198.51.100.1:4711"], PROXIES) == "198.51.100.1"


ANY = st.sampled_from(["10.0.0.1", "10.255.0.9", "::1"]) | st.ip_addresses().map(str)


@given(st.lists(ANY, max_size=6), ANY)
def test_the_client_is_the_nearest_that_is_no_proxy_of_ours(hops: list[str], peer: str) -> None:
    way = [*hops, peer]
    strangers = [address for address in way if not is_trusted(address, PROXIES)]
    assert client_of(peer, [", ".join(hops)], PROXIES) == (strangers[-1] if strangers else way[0])


@given(st.ip_addresses(v=6))
def test_an_ipv6_customer_is_counted_as_one(address: ipaddress.IPv6Address) -> None:
    other = ipaddress.IPv6Address((int(address) & ~0xFFFF) | (int(address) ^ 1) & 0xFFFF)
    if address.ipv4_mapped is None and other.ipv4_mapped is None:
        assert bucket(str(address)) == bucket(str(other))


def test_an_ipv4_address_in_ipv6_clothes_is_the_same() -> None:
    assert bucket("::ffff:198.51.100.1") == bucket("198.51.100.1") == "198.51.100.1"


def test_a_wrong_network_is_a_wrong_configuration() -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        networks(["10.0.0.0/40"])
