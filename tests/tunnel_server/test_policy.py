"""The pure decisions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel_protocol import Service
from tunnel_server.policy import retry
from tunnel_server.policy.admission import FairQueue
from tunnel_server.policy.cookies import DuplicateCookie, rewritten_set_cookie, split_cookie
from tunnel_server.policy.hosts import Sites
from tunnel_server.policy.names import CACHE_ENTRIES, RuleCache
from tunnel_server.policy.negative_cache import KEPT_S, NegativeCache
from tunnel_server.policy.origin import is_allowed
from tunnel_server.policy.pool import IdleStreams
from tunnel_server.policy.rates import TokenBucket, TokenBuckets
from tunnel_server.policy.request_head import RULES
from tunnel_server.policy.services import service_options
from tunnel_server.policy.websocket import accept_value

OWN = b"https://own.tunnel.test"
NAME = b"__Host-towline"


@pytest.mark.parametrize(
    ("method", "upgrade", "site", "mode", "dest", "origin", "allowed"),
    [
        (b"GET", False, b"same-origin", b"cors", b"empty", None, True),
        (b"POST", False, b"same-origin", b"cors", b"empty", OWN, True),
        (b"POST", False, b"same-origin", b"navigate", b"document", b"null", True),
        (b"GET", False, b"none", b"navigate", b"document", None, True),
        (b"GET", False, b"cross-site", b"navigate", b"document", None, True),
        (b"HEAD", False, b"cross-site", b"navigate", b"document", None, False),
        (b"POST", False, b"cross-site", b"navigate", b"document", b"https://evil", False),
        (b"GET", False, b"same-site", b"navigate", b"iframe", None, False),
        (b"GET", False, b"same-site", b"no-cors", b"script", None, False),
        (b"GET", False, b"nonsense", b"cors", b"empty", None, False),
        (b"GET", True, b"same-origin", b"websocket", b"empty", OWN, True),
        (b"GET", True, b"same-origin", b"websocket", b"empty", b"https://evil", False),
        (b"GET", True, b"cross-site", b"navigate", b"document", None, False),
        (b"GET", True, None, None, None, OWN, True),
        (b"GET", True, None, None, None, None, False),
        (b"GET", True, None, None, None, b"https://sibling.tunnel.test", False),
        (b"GET", False, None, None, None, None, True),
        (b"GET", False, None, None, None, b"https://evil", False),
        (b"POST", False, None, None, None, None, False),
        (b"POST", False, None, None, None, OWN, True),
        (b"POST", False, None, None, None, b"null", False),
        (b"DELETE", False, None, None, None, b"https://own.tunnel.test:444", False),
    ],
)
def test_which_page_may_have_made_a_request(
    method: bytes,
    upgrade: bool,
    site: bytes | None,
    mode: bytes | None,
    dest: bytes | None,
    origin: bytes | None,
    allowed: bool,
) -> None:
    said = is_allowed(
        method,
        upgrade=upgrade,
        fetch_site=site,
        fetch_mode=mode,
        fetch_dest=dest,
        origin=origin,
        own_origin=OWN,
    )
    assert said is allowed


@pytest.mark.parametrize(
    ("header", "own", "rest"),
    [
        (b"a=1", None, b"a=1"),
        (b"__Host-towline=x", b"x", None),
        (b"a=1; __Host-towline=x;b=2", b"x", b"a=1; b=2"),
        (b"__host-TOWLINE=x; a=1", None, b"a=1"),
        (b"towline_session=y", None, None),
        (b"my-towline=1; a=__Host-towline=2", None, b"my-towline=1; a=__Host-towline=2"),
        (b" ; ;__Host-towline=x; ", b"x", None),
    ],
)
def test_our_cookie_is_found_and_stripped(header: bytes, own: bytes | None, rest: bytes | None) -> None:
    assert split_cookie(header, NAME) == (own, rest)


def test_our_cookie_twice_is_an_error() -> None:
    with pytest.raises(DuplicateCookie):
        split_cookie(b"__Host-towline=x; __Host-towline=x", NAME)


@given(
    st.lists(
        st.sampled_from([b"a=1", b"b=x=y", b"__Host-towline=s", b"towline_session=t", b"", b"c"]), max_size=6
    )
)
def test_no_cookie_of_ours_is_ever_left(pairs: list[bytes]) -> None:
    try:
        _, rest = split_cookie(b"; ".join(pairs), NAME)
    except DuplicateCookie:
        return
    left = (rest or b"").split(b"; ")
    assert [pair for pair in left if pair] == [pair for pair in pairs if pair and b"towline" not in pair]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (b"a=b", b"a=b"),
        (b"a=b; DOMAIN = .tunnel.test; Secure", b"a=b; Secure"),
        (b"a=b; domain", b"a=b"),
        (b"__Host-Towline=x", None),
        (b" towline_session =x", None),
        (b"towline_session", None),
        (b"=__Host-towline=x", None),
        (b"a=towline_session", b"a=towline_session"),
    ],
)
def test_a_devices_cookie_stays_on_its_host_and_off_ours(value: bytes, kept: bytes | None) -> None:
    assert rewritten_set_cookie(value) == kept


def test_a_session_gets_its_turn_whatever_another_one_queued() -> None:
    queue: FairQueue[str] = FairQueue(10)
    for name in ("a1", "a2", "a3", "b1", "a4"):
        assert queue.put(name[0], name, 5.0)
    queue.discard("a2")
    assert [queue.take() for _ in range(5)] == ["a1", "b1", "a3", "a4", None]


def test_a_queue_is_bounded_and_its_waiters_expire() -> None:
    queue: FairQueue[str] = FairQueue(2)
    assert queue.put("a", "first", 1.0)
    assert queue.put("b", "second", 2.0)
    assert not queue.put("c", "third", 3.0)
    assert queue.take_expired(1.5) == ["first"]
    queue.put_back("a", "first", 9.0)
    assert queue.take() == "first"
    assert queue.take_all() == ["second"]
    assert len(queue) == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 99)), max_size=40))
def test_a_queue_loses_and_invents_nobody(waiters: list[tuple[str, int]]) -> None:
    queue: FairQueue[tuple[str, int]] = FairQueue(1_000)
    for waiter in waiters:
        queue.put(waiter[0], waiter, 1.0)
    taken = [queue.take() for _ in waiters]
    assert sorted(taken, key=repr) == sorted(waiters, key=repr)
    for session in "abc":
        assert [item for item in taken if item and item[0] == session] == [
            w for w in waiters if w[0] == session
        ]


def test_idle_streams_are_taken_from_the_young_end_and_end_at_the_old_one() -> None:
    pool: IdleStreams[str] = IdleStreams(3)
    assert [pool.put(name, at) for name, at in (("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 4.0))] == [
        True, True, True, False,
    ]  # fmt: skip
    assert pool.take() == "c"
    assert pool.oldest() == 1.0
    assert pool.take_idle_since(1.0) == ["a"]
    pool.discard("b")
    assert pool.take() is None
    assert pool.take_oldest() is None


@pytest.mark.parametrize(
    ("method", "attempts", "started", "body_sent", "may"),
    [
        (b"GET", 1, False, False, True),
        (b"GET", 2, False, False, False),
        (b"GET", 1, True, False, False),
        (b"PUT", 1, False, True, False),
        (b"PUT", 1, False, False, True),
        (b"POST", 1, False, False, False),
        (b"PATCH", 1, False, False, False),
    ],
)
def test_what_goes_out_once_more(
    method: bytes, attempts: int, started: bool, body_sent: bool, may: bool
) -> None:
    assert retry.may_retry(method, attempts=attempts, response_started=started, body_sent=body_sent) is may


def test_only_what_may_be_repeated_takes_a_pooled_stream() -> None:
    assert retry.may_use_pooled(b"GET", has_body=False)
    assert not retry.may_use_pooled(b"PUT", has_body=True)
    assert not retry.may_use_pooled(b"POST", has_body=False)


def test_the_rule_cache_is_bounded_and_right_past_its_bound() -> None:
    cache: RuleCache[str] = RuleCache(lambda name: "found" if name.startswith(b"x") else None, {})
    for number in range(CACHE_ENTRIES * 2):
        assert cache.learn(b"X%d" % number) == "found"
    assert cache.learn(b"y") is None
    assert len(cache.rules) == CACHE_ENTRIES


@pytest.mark.parametrize(
    "name", [b"X-Forwarded-For", b"x_forwarded_for", b"X_Forwarded-Anything", b"TRANSFER_ENCODING"]
)
def test_underscore_twins_follow_the_headers_they_imitate(name: bytes) -> None:
    assert RULES.learn(name) is not None


@pytest.mark.parametrize(
    ("host", "label"),
    [
        (b"a" * 26 + b".tunnel.test", "a" * 26),
        (b"A" * 26 + b".Tunnel.Test:8443", "a" * 26),
        (b"a" * 25 + b".tunnel.test", None),
        (b"a" * 26 + b".tunnelxtest", None),
        (b"a" * 26 + b".tunnel.test.", None),
        (b"a" * 26 + b".tunnel.test:999999", None),
        (b"x." + b"a" * 26 + b".tunnel.test", None),
        (b"tunnel.test", None),
        (b"", None),
    ],
)
def test_a_host_names_a_label_or_nothing(host: bytes, label: str | None) -> None:
    site = Sites("tunnel.test", "https").find(host)
    assert (site.label if site else None) == label


def test_service_options_say_what_to_write() -> None:
    rewrite = service_options(Service("web", upstream="127.0.0.1:80", forwarded=True))
    assert (rewrite.host_line, rewrite.origin) == (b"Host: 127.0.0.1\r\n", b"http://127.0.0.1")
    assert rewrite.own_hosts == (b"127.0.0.1", b"127.0.0.1:80")
    keep = service_options(Service("web", host="preserve", upstream="Device:8080"))
    assert (keep.host_line, keep.origin, keep.own_hosts) == (None, None, (b"device:8080",))
    assert service_options(Service("web")).host_line is None


def test_the_accept_value_is_the_rfcs_example() -> None:
    assert accept_value(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def test_buckets_fill_with_time_and_forget_the_least_used() -> None:
    bucket = TokenBucket(rate=1.0, burst=2.0, now=0.0)
    assert [bucket.take(now) for now in (0.0, 0.0, 0.0, 1.0, 1.0)] == [True, True, False, True, False]
    buckets = TokenBuckets(rate=1.0, burst=1.0, keys=2)
    assert buckets.take("a", 0.0)
    assert not buckets.take("a", 0.0)
    assert [buckets.take(key, 0.0) for key in ("b", "c", "a")] == [True, True, True]


def test_unknown_cookies_are_forgotten_in_time() -> None:
    cache = NegativeCache()
    cache.remember(b"h", 0.0)
    assert cache.is_known_bad(b"h", KEPT_S - 1)
    assert not cache.is_known_bad(b"h", KEPT_S)
    assert not cache.is_known_bad(b"h", 0.0)
