/* What leaves next: control frames in order, then DATA round robin (docs/protocol/tunnel-v1.md, section 9). */
#include "towline/bytes.h"
#include "mux_parts.h"

/* DATA starts no frame in less room than this: crumbs at a message's end cost more than they carry. */
#define LEAST_ROOM (TL_HEADER_SIZE + 512u)

void tl_control_add(tl_mux *mux, tl_control entry)
{
    if (mux->control_count == TL_CONTROL_ENTRIES) {
        tl_mux_violation(mux, TL_CLOSE_OVERFLOW, "the control queue is full");
    } else {
        tl_control_append(mux, entry);
    }
}

void tl_control_append(tl_mux *mux, tl_control entry)
{
    mux->control[(mux->control_head + mux->control_count) % TL_CONTROL_ENTRIES] = entry;
    mux->control_count++;
}

void tl_control_purge(tl_mux *mux)
{
    mux->control_count = 0;
    mux->pongs = 0;
}

static void put_control(tl_mux *mux, tl_out *out, const tl_control *entry)
{
    switch (entry->type) {
    case TL_AUTH:
        tl_header_put(out, TL_AUTH, 0, tl_auth_size(&mux->auth));
        tl_auth_put(out, &mux->auth);
        break;
    case TL_HELLO: {
        size_t start = out->n;
        tl_header_put(out, TL_HELLO, 0, 0);
        tl_hello_put(out, mux->config.hello);
        if (!out->full) { /* its length is known only now */
            tl_out header = {out->at + start, 0, TL_HEADER_SIZE, false};
            tl_header_put(&header, TL_HELLO, 0, out->n - start - TL_HEADER_SIZE);
        }
        break;
    }
    case TL_REFUSED:
        tl_refused_put(out, entry->stream, (tl_refused_code)entry->code, entry->with.text);
        break;
    case TL_RESET:
        tl_reset_put(out, entry->stream, (tl_reset_code)entry->code);
        break;
    case TL_GOAWAY: /* retry_after_ms is a server's to say */
        tl_goaway_put(out, entry->stream, 0, (tl_close_code)entry->code, entry->with.text);
        break;
    case TL_OPENED:
        tl_header_put(out, TL_OPENED, entry->stream, 0);
        break;
    default: /* CREDIT, PING, PONG */
        tl_number_put(out, (tl_frame_type)entry->type, entry->stream, entry->with.number);
        break;
    }
}

/* Whether all that waited has left: DATA goes behind it. */
static bool take_control(tl_mux *mux, tl_out *out)
{
    while (mux->control_count > 0) {
        const tl_control *entry = &mux->control[mux->control_head];
        size_t start = out->n;
        put_control(mux, out, entry);
        if (out->full) { /* the next message has room */
            out->full = false;
            out->n = start;
            return false;
        }
        mux->pongs = (uint8_t)(mux->pongs - (entry->type == TL_PONG ? 1 : 0));
        mux->control_head = (uint8_t)((mux->control_head + 1) % TL_CONTROL_ENTRIES);
        mux->control_count--;
    }
    return true;
}

static uint64_t least(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

/* Asks the owner for bytes and frames them where they lie; FIN behind the last. `room`: of the message, with both
 * headers. */
static void take_data(tl_mux *mux, tl_stream *stream, tl_out *out, size_t room)
{
    tl_stream_ref ref = stream->ref;
    uint64_t credit = least(stream->send_limit - stream->sent, mux->send_limit - mux->sent);
    size_t most = (size_t)least(credit, least(room - 2 * TL_HEADER_SIZE, mux->peer_max_frame));
    tl_out payload = {out->at + out->n + TL_HEADER_SIZE, 0, most, false};
    tl_fill fill = TL_FILL_END;
    if (!stream->finishing) {
        if (most == 0) {
            return;
        }
        fill = mux->config.events->fill(mux->config.owner, ref, &payload);
        if (tl_stream_of(mux, ref) == NULL) {
            return; /* its owner cut it, or closed the connection: nothing of it leaves */
        }
    }
    if (fill == TL_FILL_BROKEN) {
        tl_stream_reset(mux, ref, TL_RESET_UPSTREAM_RESET);
        return;
    }
    if (payload.n > 0) {
        tl_header_put(out, TL_DATA, stream->id, payload.n);
        out->n += payload.n; /* the bytes stand there already */
        stream->sent += payload.n;
        mux->sent += payload.n;
    }
    stream->ready = fill == TL_FILL_MORE;
    if (fill == TL_FILL_END) {
        tl_header_put(out, TL_FIN, stream->id, 0);
        tl_stream_fin_left(mux, stream);
    }
}

/* Each stream once a message, beginning behind the one that was asked last. */
static void take_streams(tl_mux *mux, tl_out *out)
{
    uint32_t count = tl_mux_limits(mux)->max_streams;
    uint32_t first = mux->turn;
    for (uint32_t i = 0; i < count && tl_mux_is_live(mux); i++) {
        size_t room = out->cap - out->n;
        if (room < LEAST_ROOM) {
            return;
        }
        uint32_t index = (first + i) % count;
        tl_stream *stream = &mux->config.streams[index];
        if (stream->ready && tl_stream_may_send(stream)) {
            size_t before = out->n;
            take_data(mux, stream, out, room);
            if (out->n > before) {
                mux->turn = (uint8_t)((index + 1) % count);
            }
        }
    }
}

size_t tl_mux_next_message(tl_mux *mux, uint8_t *buf, size_t cap, uint64_t now_ms)
{
    mux->now_ms = now_ms;
    tl_out out = {buf, 0, (size_t)least(cap, mux->peer_max_message), false};
    bool all = take_control(mux, &out);
    if (!all && out.n == 0) { /* one frame is over the caller's room: his HELLO, or a reason of his */
        tl_control_purge(mux);
        tl_mux_close(mux, TL_CLOSE_INTERNAL, "a frame of our own is too long");
        (void)take_control(mux, &out);
    } else if (all && tl_mux_is_live(mux)) {
        take_streams(mux, &out);
    }
    return out.n;
}
