#include "towline/mux.h"

#include "mux_parts.h"

#include <string.h>

#define WEBSOCKET_STATUS_BASE 4000u /* RFC 6455 section 7.4.2: 4000-4999 is for private use */

void tl_mux_init(tl_mux *mux, const tl_mux_config *config, uint64_t now_ms)
{
    const tl_limits *limits = &config->hello->limits;
    memset(mux, 0, sizeof *mux);
    mux->config = *config;
    mux->epoch = config->epoch;
    mux->now_ms = now_ms;
    mux->state = TL_MUX_AWAITING_CHALLENGE;
    mux->receive_most = TL_MAX_MESSAGE_BEFORE_HELLO;
    mux->peer_max_message = TL_MAX_MESSAGE_BEFORE_HELLO;
    mux->receive_limit = limits->connection_window;
    mux->return_at = limits->connection_window / 2 > 0 ? limits->connection_window / 2 : 1;
    tl_liveness_init(&mux->liveness, now_ms, TL_HANDSHAKE_TIMEOUT_MS);
    tl_allowance_init(&mux->allowance, now_ms);
    memset(config->streams, 0, limits->max_streams * sizeof *config->streams);
}

uint32_t tl_mux_epoch(const tl_mux *mux)
{
    return mux->epoch;
}

bool tl_mux_authenticate(tl_mux *mux, tl_span device, const uint8_t instance[TL_INSTANCE_SIZE],
                         const uint8_t key_id[TL_KEY_ID_SIZE], const uint8_t signature[TL_SIGNATURE_SIZE])
{
    if (mux->state != TL_MUX_SIGNING || !tl_is_name(device)) {
        return false;
    }
    tl_auth *auth = &mux->auth;
    memcpy(auth->device, device.at, device.n);
    auth->device_n = (uint8_t)device.n;
    memcpy(auth->instance, instance, sizeof auth->instance);
    memcpy(auth->key_id, key_id, sizeof auth->key_id);
    memcpy(auth->signature, signature, sizeof auth->signature);
    mux->state = TL_MUX_AWAITING_HELLO;
    mux->receive_most = TL_HEADER_SIZE + TL_MAX_HELLO_PAYLOAD;
    tl_control_add(mux, (tl_control){.type = TL_AUTH});
    return true;
}

/* Time */

void tl_mux_heard(tl_mux *mux, uint64_t at_ms)
{
    if (at_ms > mux->liveness.last_inbound) {
        mux->liveness.last_inbound = at_ms;
    }
}

uint64_t tl_mux_timer(const tl_mux *mux)
{
    return mux->state == TL_MUX_CLOSED ? TL_NEVER : mux->liveness.timer_at;
}

uint32_t tl_mux_last_rtt_ms(const tl_mux *mux)
{
    return mux->liveness.last_rtt_ms;
}

/* Ends the connection from this side: a GOAWAY is the last thing that leaves. */
static void lose(tl_mux *mux, tl_fault fault, tl_close_code code, const char *reason)
{
    if (mux->state == TL_MUX_CLOSED) {
        return;
    }
    /* What a broken peer asked for is not answered; what this side said before it closes is. */
    if (fault != TL_FAULT_LOCAL || mux->control_count == TL_CONTROL_ENTRIES) {
        tl_control_purge(mux);
    }
    tl_control_append(mux, (tl_control){.type = TL_GOAWAY,
                                        .code = (uint16_t)code,
                                        .stream = mux->peer_top_id,
                                        .with.text = reason});
    tl_mux_end(mux, (tl_close){.fault = fault, .has_code = true, .code = code, .reason = reason});
}

void tl_mux_on_timer(tl_mux *mux, uint64_t now_ms)
{
    mux->now_ms = now_ms;
    if (now_ms < tl_mux_timer(mux)) {
        return;
    }
    if (!tl_mux_is_live(mux)) {
        lose(mux, TL_FAULT_TIMEOUT, TL_CLOSE_HANDSHAKE_TIMEOUT, "the handshake did not end in time");
        return;
    }
    switch (tl_liveness_judge(&mux->liveness, now_ms)) {
    case TL_LIVE_DEAD:
        lose(mux, TL_FAULT_TIMEOUT, TL_CLOSE_KEEPALIVE_TIMEOUT, "nothing came in time");
        break;
    case TL_LIVE_ASK:
        tl_control_add(mux, (tl_control){.type = TL_PING, .with.number = tl_liveness_ping(&mux->liveness, now_ms)});
        break;
    case TL_LIVE_FINE:
        break;
    }
}

/* Ends */

void tl_mux_violation(tl_mux *mux, tl_close_code code, tl_wrong reason)
{
    lose(mux, TL_FAULT_PEER, code, reason);
}

void tl_mux_close(tl_mux *mux, tl_close_code code, const char *reason)
{
    lose(mux, TL_FAULT_LOCAL, code, reason);
}

void tl_mux_drain(tl_mux *mux, const char *reason)
{
    if (!tl_mux_is_live(mux)) {
        lose(mux, TL_FAULT_LOCAL, TL_CLOSE_NORMAL, reason);
    } else if (!mux->drain_wanted) {
        mux->drain_wanted = true;
        mux->close = (tl_close){TL_FAULT_LOCAL, true, TL_CLOSE_NORMAL, reason};
        mux->state = TL_MUX_DRAINING;
        tl_control_add(mux, (tl_control){.type = TL_GOAWAY, .stream = mux->peer_top_id, .with.text = reason});
        tl_mux_end_if_drained(mux);
    }
}

void tl_mux_end_if_drained(tl_mux *mux)
{
    if (mux->state != TL_MUX_DRAINING) {
        return;
    }
    for (uint32_t i = 0; i < tl_mux_limits(mux)->max_streams; i++) {
        if (mux->config.streams[i].state != TL_STREAM_FREE) {
            return;
        }
    }
    tl_mux_end(mux, mux->close);
}

void tl_mux_link_closed(tl_mux *mux, uint16_t status)
{
    if (mux->state == TL_MUX_CLOSED) {
        return;
    }
    tl_close why = {.fault = TL_FAULT_PEER, .reason = "the link broke"};
    if (status >= WEBSOCKET_STATUS_BASE) {
        why.has_code = true;
        why.code = tl_close_code_of((uint16_t)(status - WEBSOCKET_STATUS_BASE));
    }
    tl_control_purge(mux);
    tl_mux_end(mux, why);
}

void tl_mux_end(tl_mux *mux, tl_close why)
{
    mux->state = TL_MUX_CLOSED; /* before anybody is told: whatever he calls, nothing more happens */
    mux->close = why;
    for (uint32_t i = 0; i < tl_mux_limits(mux)->max_streams; i++) {
        if (mux->config.streams[i].state != TL_STREAM_FREE) {
            tl_stream_end(mux, &mux->config.streams[i], TL_OVER_LOST, TL_RESET_INTERNAL);
        }
    }
    mux->config.events->lost(mux->config.owner, &mux->close);
}

tl_close tl_mux_close_reason(const tl_mux *mux)
{
    return mux->close;
}
