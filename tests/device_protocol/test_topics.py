"""Topics and subjects are the same five tokens, both ways, and nothing else is one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_protocol.errors import BadTopicError
from device_protocol.topics import DOWN, TOKEN, TOPIC_MAX, UP, Kind, Topic, parse_subject, parse_topic

TOKENS = st.text("abcdefghijklmnopqrstuvwxyz0123456789_-", min_size=1, max_size=64)
KINDS = st.sampled_from(Kind)
TOPICS = st.builds(Topic, TOKENS, TOKENS, TOKENS, TOKENS, KINDS)


@given(TOPICS)
def test_a_topic_is_one_subject_and_the_reverse(topic: Topic) -> None:
    assert parse_topic(str(topic)) == topic
    assert parse_subject(topic.subject) == topic
    assert topic.subject == str(topic).replace("/", ".")
    assert len(str(topic)) <= TOPIC_MAX
    assert f"{topic.prefix}/{topic.kind}" == str(topic)


@given(TOPICS, TOPICS)
def test_two_topics_are_never_one_subject(one: Topic, other: Topic) -> None:
    assert (one == other) == (str(one) == str(other)) == (one.subject == other.subject)


@given(TOPICS, KINDS)
def test_another_kind_of_the_same_device(topic: Topic, kind: Kind) -> None:
    other = topic.of(kind)
    assert (other.prefix, other.kind) == (topic.prefix, kind)


NEARLY = st.lists(
    st.one_of(
        TOKENS, st.sampled_from([*Kind, "", "+", "#", "A", "ä", "a b", "a.b", "x\n", "\0", "..", "$SYS"])
    ),
    min_size=3,
    max_size=7,
).map("/".join)


@given(st.one_of(st.text(max_size=80), NEARLY))
def test_what_is_taken_is_written_the_same(text: str) -> None:
    for parse, separator in ((parse_topic, "/"), (parse_subject, ".")):
        written = text.replace("/", separator)
        try:
            topic = parse(written)
        except BadTopicError:
            continue
        tokens = written.split(separator)
        assert [topic.org, topic.site, topic.type, topic.device, topic.kind.value] == tokens
        assert all(TOKEN.fullmatch(token) for token in tokens)


@given(TOPICS)
def test_a_topic_is_no_subject(topic: Topic) -> None:
    with pytest.raises(BadTopicError):
        parse_subject(str(topic))
    with pytest.raises(BadTopicError):
        parse_topic(topic.subject)


def test_each_kind_has_one_direction() -> None:
    assert set(Kind) == UP | DOWN
    assert not UP & DOWN
