#include "towline/stream.h"

#include "towline/bytes.h"
#include "mux_parts.h"

#include <string.h>

#define MOST_EPOCH 0xFFFFFFu /* 24 bits */

tl_stream *tl_stream_with_id(tl_mux *mux, uint32_t id)
{
    for (uint32_t i = 0; i < tl_mux_limits(mux)->max_streams; i++) {
        tl_stream *stream = &mux->config.streams[i];
        if (stream->state != TL_STREAM_FREE && stream->id == id) {
            return stream;
        }
    }
    return NULL;
}

tl_stream *tl_stream_of(const tl_mux *mux, tl_stream_ref ref)
{
    if (tl_stream_index(ref) >= tl_mux_limits(mux)->max_streams) {
        return NULL;
    }
    tl_stream *stream = &mux->config.streams[tl_stream_index(ref)];
    return stream->state != TL_STREAM_FREE && stream->ref == ref ? stream : NULL;
}

static uint32_t next_epoch(tl_mux *mux)
{
    mux->epoch = mux->epoch >= MOST_EPOCH ? 1 : mux->epoch + 1; /* never 0: a reference 0 is none */
    return mux->epoch;
}

tl_stream *tl_stream_new(tl_mux *mux, uint32_t id)
{
    const tl_limits *limits = tl_mux_limits(mux);
    for (uint32_t i = 0; i < limits->max_streams; i++) {
        tl_stream *stream = &mux->config.streams[i];
        if (stream->state == TL_STREAM_FREE) {
            *stream = (tl_stream){
                .id = id,
                .ref = (next_epoch(mux) << 8) | i,
                .state = TL_STREAM_REQUESTED,
                .send_limit = mux->peer_stream_window,
                .receive_limit = limits->stream_window,
                .return_at = limits->stream_window / 2 > 0 ? limits->stream_window / 2 : 1,
            };
            return stream;
        }
    }
    return NULL;
}

/* Ring: what the peer may have sent beyond what is consumed is one window, so it never overruns itself. */

static uint8_t *ring_of(const tl_mux *mux, const tl_stream *stream)
{
    return mux->config.rings + (size_t)tl_stream_index(stream->ref) * tl_mux_limits(mux)->stream_window;
}

static uint32_t wrapped(const tl_mux *mux, uint32_t at, size_t n)
{
    uint32_t window = tl_mux_limits(mux)->stream_window;
    uint32_t to = at + (uint32_t)n; /* both are at most a window */
    return to >= window ? to - window : to;
}

void tl_stream_keep(tl_mux *mux, tl_stream *stream, tl_span data)
{
    uint8_t *ring = ring_of(mux, stream);
    uint32_t at = wrapped(mux, stream->head, (size_t)(stream->received - stream->consumed));
    stream->received += data.n;
    tl_span first = tl_take(&data, tl_mux_limits(mux)->stream_window - at);
    memcpy(ring + at, first.at, first.n);
    if (data.n > 0) {
        memcpy(ring, data.at, data.n);
    }
}

tl_span tl_stream_peek(const tl_mux *mux, tl_stream_ref ref)
{
    const tl_stream *stream = tl_stream_of(mux, ref);
    if (stream == NULL || stream->state < TL_STREAM_OPEN) {
        return (tl_span){NULL, 0};
    }
    size_t n = (size_t)(stream->received - stream->consumed);
    size_t piece = tl_mux_limits(mux)->stream_window - stream->head;
    return (tl_span){ring_of(mux, stream) + stream->head, n < piece ? n : piece};
}

bool tl_stream_peer_finished(const tl_mux *mux, tl_stream_ref ref)
{
    const tl_stream *stream = tl_stream_of(mux, ref);
    return stream != NULL && (stream->state == TL_STREAM_REQUESTED_FINISHED_THERE ||
                              stream->state == TL_STREAM_FINISHED_THERE);
}

void tl_stream_consumed(tl_mux *mux, tl_stream_ref ref, size_t n)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream == NULL) {
        return;
    }
    uint64_t held = stream->received - stream->consumed;
    if (n > held) {
        n = (size_t)held; /* credit for bytes that never came would let the peer overrun the ring */
    }
    stream->head = wrapped(mux, stream->head, n);
    stream->consumed += n;
    if (stream->consumed < stream->return_at || tl_stream_peer_finished(mux, ref)) {
        return;
    }
    uint32_t window = tl_mux_limits(mux)->stream_window;
    stream->return_at = stream->consumed + (window / 2 > 0 ? window / 2 : 1);
    stream->receive_limit = stream->consumed + window;
    tl_control_add(mux, (tl_control){.type = TL_CREDIT, .stream = stream->id, .with.number = stream->receive_limit});
}

/* States */

bool tl_stream_may_receive(const tl_stream *stream)
{
    return stream->state == TL_STREAM_OPEN || stream->state == TL_STREAM_FINISHED_HERE;
}

bool tl_stream_may_send(const tl_stream *stream)
{
    return stream->state == TL_STREAM_OPEN || stream->state == TL_STREAM_FINISHED_THERE;
}

bool tl_stream_fin_came(tl_stream *stream)
{
    switch (stream->state) {
    case TL_STREAM_REQUESTED:
        stream->state = TL_STREAM_REQUESTED_FINISHED_THERE;
        return true;
    case TL_STREAM_OPEN:
        stream->state = TL_STREAM_FINISHED_THERE;
        return true;
    default:
        return false;
    }
}

void tl_stream_fin_left(tl_mux *mux, tl_stream *stream)
{
    if (stream->state == TL_STREAM_OPEN) {
        stream->state = TL_STREAM_FINISHED_HERE;
        return;
    }
    tl_stream_end(mux, stream, TL_OVER_FINISHED, TL_RESET_INTERNAL);
    tl_mux_end_if_drained(mux);
}

void tl_stream_end(tl_mux *mux, tl_stream *stream, tl_over how, tl_reset_code code)
{
    stream->state = TL_STREAM_FREE; /* first: what the owner still calls does nothing */
    mux->config.events->over(mux->config.owner, stream->ref, how, code);
}

bool tl_stream_accept(tl_mux *mux, tl_stream_ref ref)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream == NULL || stream->state > TL_STREAM_REQUESTED_FINISHED_THERE) {
        return false;
    }
    stream->state = stream->state == TL_STREAM_REQUESTED ? TL_STREAM_OPEN : TL_STREAM_FINISHED_THERE;
    tl_control_add(mux, (tl_control){.type = TL_OPENED, .stream = stream->id});
    return tl_stream_of(mux, ref) != NULL; /* the answer may have been one too many */
}

/* This side ends it, and the peer may not know that yet: what it may still send is foreseen. */
static void cut(tl_mux *mux, tl_stream *stream, tl_control last)
{
    if (!tl_stream_peer_finished(mux, stream->ref)) {
        mux->dead_data += stream->receive_limit - stream->received;
    }
    stream->state = TL_STREAM_FREE;
    last.stream = stream->id;
    tl_control_add(mux, last);
    tl_mux_end_if_drained(mux);
}

void tl_stream_refuse(tl_mux *mux, tl_stream_ref ref, tl_refused_code code, const char *message)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream != NULL && stream->state <= TL_STREAM_REQUESTED_FINISHED_THERE) {
        cut(mux, stream, (tl_control){.type = TL_REFUSED, .code = (uint16_t)code, .with.text = message});
    }
}

void tl_stream_reset(tl_mux *mux, tl_stream_ref ref, tl_reset_code code)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream != NULL) {
        cut(mux, stream, (tl_control){.type = TL_RESET, .code = (uint16_t)code});
    }
}

void tl_stream_wake(tl_mux *mux, tl_stream_ref ref)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream != NULL) {
        stream->ready = true;
    }
}

void tl_stream_finish(tl_mux *mux, tl_stream_ref ref)
{
    tl_stream *stream = tl_stream_of(mux, ref);
    if (stream != NULL) {
        stream->ready = stream->finishing = true;
    }
}

size_t tl_stream_room(const tl_mux *mux, tl_stream_ref ref)
{
    const tl_stream *stream = tl_stream_of(mux, ref);
    if (stream == NULL || !tl_stream_may_send(stream)) {
        return 0;
    }
    uint64_t own = stream->send_limit - stream->sent;
    uint64_t all = mux->send_limit - mux->sent;
    uint64_t room = own < all ? own : all;
    return room < SIZE_MAX ? (size_t)room : SIZE_MAX;
}
