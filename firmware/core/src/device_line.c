#include "towline/device_line.h"

#include "towline/bytes.h"

static const char *const names[] = {"",      "state", "telemetry", "event",  "heartbeat",
                                    "hello", "ack",   "cmd",       "config", "accepted"};

bool tl_number_above(tl_number one, tl_number other)
{
    return one.boot != other.boot ? one.boot > other.boot : one.seq > other.seq;
}

const char *tl_kind_name(tl_kind kind)
{
    return names[kind];
}

/* Takes four tokens off; what is behind the last of them is left, with its slash. */
static bool take_prefix(tl_span *text)
{
    for (int i = 0; i < 4; i++) {
        size_t n = 0;
        while (n < text->n && text->at[n] != '/') {
            n++;
        }
        if (!tl_is_name(tl_take(text, n)) || (i < 3 && tl_take(text, 1).n == 0)) {
            return false;
        }
    }
    return true;
}

bool tl_is_prefix(tl_span text)
{
    return take_prefix(&text) && text.n == 0;
}

tl_span tl_prefix_device(tl_span prefix)
{
    size_t n = prefix.n;
    while (n > 0 && prefix.at[n - 1] != '/') {
        n--;
    }
    return (tl_span){prefix.at + n, prefix.n - n};
}

tl_kind tl_topic_kind(tl_span topic, tl_span *prefix)
{
    tl_span rest = topic;
    if (!take_prefix(&rest) || tl_take(&rest, 1).n == 0) {
        return TL_KIND_NONE;
    }
    if (prefix != NULL) {
        *prefix = (tl_span){topic.at, topic.n - rest.n - 1};
    }
    for (tl_kind kind = TL_KIND_ACCEPTED; kind > TL_KIND_NONE; kind--) {
        if (tl_is(rest, names[kind])) {
            return kind;
        }
    }
    return TL_KIND_NONE;
}

void tl_put_topic(tl_out *out, tl_span prefix, tl_kind kind)
{
    tl_put_span(out, prefix);
    tl_put_u8(out, '/');
    tl_put_text(out, names[kind]);
}
