/* What each frame does (docs/protocol/tunnel-v1.md, sections 3 to 8). */
#include "towline/bytes.h"
#include "mux_parts.h"

#define BIT(type) (1u << (type))
#define HANDSHAKE_FRAMES (BIT(TL_CHALLENGE) | BIT(TL_AUTH) | BIT(TL_HELLO))

/* Which frames may arrive at a device: section 3's table. */
static const uint16_t frames_allowed[] = {
    [TL_MUX_AWAITING_CHALLENGE] = BIT(TL_CHALLENGE) | BIT(TL_GOAWAY),
    [TL_MUX_SIGNING] = BIT(TL_GOAWAY),
    [TL_MUX_AWAITING_HELLO] = BIT(TL_HELLO) | BIT(TL_GOAWAY),
    [TL_MUX_OPEN] = 0xFFFF & ~HANDSHAKE_FRAMES,
    [TL_MUX_DRAINING] = 0xFFFF & ~HANDSHAKE_FRAMES,
    [TL_MUX_CLOSED] = 0,
};

/* The server opens odd ids, which rise: all up to the highest are over unless they are live. */
static bool was_opened(const tl_mux *mux, uint32_t id)
{
    return (id & 1u) != 0 && id <= mux->peer_top_id;
}

static bool spend(tl_mux *mux)
{
    if (tl_allowance_spend(&mux->allowance, mux->now_ms, mux->sent)) {
        return true;
    }
    tl_mux_violation(mux, TL_CLOSE_OVERFLOW, "more control frames than were earned");
    return false;
}

static void return_connection_credit(tl_mux *mux)
{
    uint32_t window = tl_mux_limits(mux)->connection_window;
    mux->return_at = mux->received + (window / 2 > 0 ? window / 2 : 1);
    mux->receive_limit = mux->received + window;
    tl_control_add(mux, (tl_control){.type = TL_CREDIT, .with.number = mux->receive_limit});
}

static tl_wrong data_for(tl_mux *mux, tl_stream *stream, tl_span data)
{
    if (stream->state == TL_STREAM_REQUESTED_FINISHED_THERE || stream->state == TL_STREAM_FINISHED_THERE) {
        return "DATA: after FIN";
    }
    tl_stream_keep(mux, stream, data);
    return NULL;
}

static void receive_data(tl_mux *mux, const tl_frame *frame)
{
    size_t length = frame->payload.n;
    tl_stream *stream = tl_stream_with_id(mux, frame->stream);
    mux->received += length;
    if (mux->received > mux->receive_limit) {
        tl_mux_violation(mux, TL_CLOSE_FLOW_CONTROL, "DATA: over the connection's credit");
        return;
    }
    if (stream != NULL) {
        if (length > stream->receive_limit - stream->received) {
            tl_mux_violation(mux, TL_CLOSE_FLOW_CONTROL, "DATA: over the stream's credit");
            return;
        }
        tl_wrong wrong = data_for(mux, stream, frame->payload);
        if (wrong != NULL) {
            tl_mux_violation(mux, TL_CLOSE_PROTOCOL_ERROR, wrong);
            return;
        }
    } else if (!was_opened(mux, frame->stream)) {
        tl_mux_violation(mux, TL_CLOSE_PROTOCOL_ERROR, "DATA: the stream was never opened");
        return;
    } else if (length <= mux->dead_data) {
        mux->dead_data -= length;
    } else if (!spend(mux)) {
        return;
    }
    if (mux->received >= mux->return_at) {
        return_connection_credit(mux); /* before the owner: he may end the connection */
    }
    if (stream != NULL && tl_stream_may_receive(stream)) {
        mux->config.events->data_came(mux->config.owner, stream->ref);
    }
}

static tl_wrong on_challenge(tl_mux *mux, tl_span payload)
{
    tl_challenge challenge;
    tl_wrong wrong = tl_challenge_parse(payload, &challenge);
    if (wrong == NULL) {
        mux->state = TL_MUX_SIGNING;
        mux->config.events->challenge(mux->config.owner, challenge.nonce, challenge.server_name);
    }
    return wrong;
}

static tl_wrong on_hello(tl_mux *mux, tl_span payload)
{
    tl_hello peer;
    tl_wrong wrong = tl_hello_parse(payload, &peer);
    if (wrong != NULL) {
        return wrong;
    }
    const tl_limits *ours = tl_mux_limits(mux);
    uint32_t keepalive =
        peer.limits.keepalive_ms > ours->keepalive_ms ? peer.limits.keepalive_ms : ours->keepalive_ms;
    mux->state = TL_MUX_OPEN;
    mux->receive_most = ours->max_message;
    mux->peer_max_message = peer.limits.max_message;
    mux->peer_max_frame = peer.limits.max_frame;
    mux->peer_stream_window = peer.limits.stream_window;
    mux->send_limit = peer.limits.connection_window;
    tl_allowance_open(&mux->allowance, peer.limits.stream_window, peer.limits.connection_window);
    tl_liveness_start(&mux->liveness, mux->now_ms, keepalive);
    tl_control_add(mux, (tl_control){.type = TL_HELLO});
    uint64_t ping = tl_liveness_ping(&mux->liveness, mux->now_ms);
    tl_control_add(mux, (tl_control){.type = TL_PING, .with.number = ping});
    mux->config.events->ready(mux->config.owner, &peer);
    return NULL;
}

static tl_wrong on_grant(tl_mux *mux, tl_span payload)
{
    tl_grant_frame grant;
    tl_wrong wrong = tl_grant_parse(payload, &grant);
    if (wrong == NULL) {
        mux->config.events->grant(mux->config.owner, grant.grant_id, grant.token);
    }
    return wrong;
}

static void refuse_unseen(tl_mux *mux, uint32_t id, tl_refused_code code)
{
    mux->dead_data += tl_mux_limits(mux)->stream_window; /* the opener may have sent so much behind its OPEN */
    tl_control_add(mux, (tl_control){.type = TL_REFUSED, .code = (uint16_t)code, .stream = id, .with.text = ""});
}

static tl_wrong on_open(tl_mux *mux, const tl_frame *frame)
{
    tl_open open;
    tl_wrong wrong = tl_open_parse(frame->payload, &open);
    if (wrong != NULL) {
        return wrong;
    }
    uint32_t id = frame->stream;
    if ((id & 1u) == 0 || id <= mux->peer_top_id || id >= TL_MAX_STREAM_ID) {
        return "OPEN: the stream id does not rise";
    }
    mux->peer_top_id = id;
    if (mux->state != TL_MUX_OPEN) {
        refuse_unseen(mux, id, TL_REFUSED_DRAINING);
        return NULL;
    }
    tl_stream *stream = tl_stream_new(mux, id);
    if (stream == NULL) {
        refuse_unseen(mux, id, TL_REFUSED_TOO_MANY_STREAMS);
        return NULL;
    }
    mux->allowance.came++;
    mux->config.events->requested(mux->config.owner, stream->ref, &open);
    return NULL;
}

static tl_wrong on_fin(tl_mux *mux, tl_stream *stream)
{
    if (stream->state == TL_STREAM_FINISHED_HERE) {
        tl_stream_end(mux, stream, TL_OVER_FINISHED, TL_RESET_INTERNAL);
        tl_mux_end_if_drained(mux);
        return NULL;
    }
    bool accepted = tl_stream_may_receive(stream);
    if (!tl_stream_fin_came(stream)) {
        return "FIN: after FIN";
    }
    if (accepted) {
        mux->config.events->peer_finished(mux->config.owner, stream->ref);
    }
    return NULL;
}

/* Frames of a stream, but for OPEN and DATA. */
static tl_wrong on_stream_frame(tl_mux *mux, const tl_frame *frame)
{
    tl_refused refused;
    tl_wrong wrong = frame->type == TL_REFUSED ? tl_refused_parse(frame->payload, &refused) : NULL;
    if (wrong != NULL) {
        return wrong;
    }
    tl_stream *stream = tl_stream_with_id(mux, frame->stream);
    if (stream == NULL) {
        return was_opened(mux, frame->stream) ? NULL : "a frame for a stream that was never opened";
    }
    switch (frame->type) {
    case TL_FIN:
        return on_fin(mux, stream);
    case TL_RESET:
        tl_stream_end(mux, stream, TL_OVER_RESET, tl_reset_code_of(tl_u16(frame->payload.at)));
        tl_mux_end_if_drained(mux);
        return NULL;
    case TL_CREDIT:
        if (tl_u64(frame->payload.at) > stream->send_limit) {
            stream->send_limit = tl_u64(frame->payload.at);
        }
        return NULL;
    default: /* OPENED, REFUSED: answers to what a device never asks */
        return "an answer to a stream that was not asked for";
    }
}

static void on_ping(tl_mux *mux, tl_span payload)
{
    if (mux->pongs >= TL_MAX_QUEUED_PONGS) {
        tl_mux_violation(mux, TL_CLOSE_OVERFLOW, "more PINGs than answers can leave");
        return;
    }
    mux->pongs++;
    tl_control_add(mux, (tl_control){.type = TL_PONG, .with.number = tl_u64(payload.at)});
}

static tl_wrong on_goaway(tl_mux *mux, tl_span payload)
{
    tl_goaway goaway;
    tl_wrong wrong = tl_goaway_parse(payload, &goaway);
    if (wrong != NULL) {
        return wrong;
    }
    tl_close_code code = tl_close_code_of(goaway.code);
    bool ends = !tl_mux_is_live(mux) || (code != TL_CLOSE_NORMAL && code != TL_CLOSE_IDS_EXHAUSTED);
    bool repeats = !ends && mux->peer_drains;
    tl_close why = {TL_FAULT_PEER, true, code, "the peer said GOAWAY"};
    if (!ends) {
        mux->peer_drains = true;
        mux->state = TL_MUX_DRAINING;
        if (!mux->drain_wanted) {
            mux->close = why;
        }
    }
    if (!repeats) {
        mux->config.events->goaway(mux->config.owner, goaway.retry_after_ms, code, goaway.reason);
    }
    if (ends && mux->state != TL_MUX_CLOSED) {
        tl_mux_end(mux, why);
    }
    tl_mux_end_if_drained(mux);
    return NULL;
}

static tl_wrong receive_control(tl_mux *mux, const tl_frame *frame)
{
    if ((frames_allowed[mux->state] & BIT(frame->type)) == 0) {
        return "a frame is not allowed in this state";
    }
    switch (frame->type) {
    case TL_CHALLENGE:
        return on_challenge(mux, frame->payload);
    case TL_HELLO:
        return on_hello(mux, frame->payload);
    case TL_GRANT:
        return on_grant(mux, frame->payload);
    case TL_REVOKE:
        mux->config.events->revoke(mux->config.owner, frame->payload.at);
        return NULL;
    case TL_OPEN:
        return on_open(mux, frame);
    case TL_PING:
        on_ping(mux, frame->payload);
        return NULL;
    case TL_PONG:
        tl_liveness_pong(&mux->liveness, tl_u64(frame->payload.at), mux->now_ms);
        return NULL;
    case TL_GOAWAY:
        return on_goaway(mux, frame->payload);
    case TL_CREDIT:
        if (frame->stream == 0) {
            if (tl_u64(frame->payload.at) > mux->send_limit) {
                mux->send_limit = tl_u64(frame->payload.at);
            }
            return NULL;
        }
        return on_stream_frame(mux, frame);
    default:
        return on_stream_frame(mux, frame);
    }
}

static tl_wrong check_size(const tl_mux *mux, size_t size)
{
    if (size == 0) {
        return "an empty message";
    }
    return size > mux->receive_most ? "a message is over the limit" : NULL;
}

void tl_mux_receive(tl_mux *mux, tl_span message, uint64_t now_ms)
{
    mux->now_ms = now_ms;
    mux->liveness.last_inbound = now_ms;
    tl_wrong wrong = check_size(mux, message.n);
    while (wrong == NULL && mux->state != TL_MUX_CLOSED) {
        tl_frame frame;
        tl_frame_result result = tl_frame_next(&message, tl_mux_limits(mux)->max_frame, &frame);
        if (result == TL_FRAME_END) {
            return;
        }
        wrong = frame.wrong;
        if (result == TL_FRAME_BAD) {
            break;
        }
        if (frame.type == TL_DATA && tl_mux_is_live(mux)) {
            receive_data(mux, &frame);
        } else if (spend(mux)) {
            wrong = receive_control(mux, &frame);
        }
    }
    if (wrong != NULL) {
        tl_mux_violation(mux, TL_CLOSE_PROTOCOL_ERROR, wrong);
    }
}
