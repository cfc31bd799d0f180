/* One tunnel connection of a device: messages in, events out; calls in, messages out. No I/O, no clock, no memory
 * but what the caller gives. Mirrors tunnel_protocol.Connection (Side.DEVICE). */
#ifndef TOWLINE_MUX_H
#define TOWLINE_MUX_H

#include "towline/fields.h"
#include "towline/mux_allowance.h"
#include "towline/mux_liveness.h"
#include "towline/stream.h"

#define TL_HANDSHAKE_TIMEOUT_MS 10000u
#define TL_MAX_QUEUED_PONGS 16u
/* With 4 streams a peer that keeps the rules makes some 40 frames wait: PONGs, answers, 2 KiB credits. */
#define TL_CONTROL_ENTRIES 96u
#define TL_NEVER UINT64_MAX

typedef enum {
    TL_MUX_AWAITING_CHALLENGE,
    TL_MUX_SIGNING,
    TL_MUX_AWAITING_HELLO,
    TL_MUX_OPEN,
    TL_MUX_DRAINING,
    TL_MUX_CLOSED
} tl_mux_state;

typedef enum {
    TL_FAULT_PEER,   /* it broke a rule, said GOAWAY, or its link broke */
    TL_FAULT_LOCAL,  /* this side closed */
    TL_FAULT_TIMEOUT /* silence */
} tl_fault;

typedef struct {
    tl_fault fault;
    bool has_code; /* false: the link broke without one */
    tl_close_code code;
    const char *reason; /* a literal */
} tl_close;

/* What the owner is told, always from inside a call of his own. Spans and pointers are valid until he returns.
 * He may call every tl_stream_* and tl_mux_authenticate/close/drain, but not receive, next_message or on_timer. */
typedef struct {
    /* Sign tl_auth_transcript, then tl_mux_authenticate; or close with TL_CLOSE_WRONG_SERVER_NAME. */
    void (*challenge)(void *owner, const uint8_t *nonce, tl_span server_name);
    void (*ready)(void *owner, const tl_hello *peer);
    void (*grant)(void *owner, const uint8_t *grant_id, tl_span token);
    void (*revoke)(void *owner, const uint8_t *grant_id);
    /* Accept or refuse, now or later. */
    void (*requested)(void *owner, tl_stream_ref stream, const tl_open *open);
    void (*data_came)(void *owner, tl_stream_ref stream);
    void (*peer_finished)(void *owner, tl_stream_ref stream); /* not where our FIN has left: then it is over */
    /* Write up to `out->cap` bytes, never over it. MORE: ask again with the next message (also when `cap` was too
     * little to begin with); AGAIN: not before tl_stream_wake; END: FIN follows; BROKEN: nothing of it leaves, and
     * the stream is cut with TL_RESET_UPSTREAM_RESET. */
    tl_fill (*fill)(void *owner, tl_stream_ref stream, tl_out *out);
    void (*over)(void *owner, tl_stream_ref stream, tl_over how, tl_reset_code code);
    /* Reconnect after retry_after_ms. Live streams finish after NORMAL and IDS_EXHAUSTED; else lost follows. */
    void (*goaway)(void *owner, uint32_t retry_after_ms, tl_close_code code, tl_span reason);
    /* Once, the last event. What next_message still gives is to be sent before the link is closed. */
    void (*lost)(void *owner, const tl_close *why);
} tl_mux_events;

typedef struct {
    const tl_hello *hello; /* ours, with our limits; stays the caller's and unchanged while the mux lives */
    const tl_mux_events *events;
    void *owner;
    tl_stream *streams; /* hello->limits.max_streams (≤ TL_MAX_STREAMS) of them */
    uint8_t *rings;     /* max_streams × stream_window bytes */
    uint32_t epoch;     /* tl_mux_epoch of the connection before this one, so that its references stay dead */
} tl_mux_config;

/* One control frame that waits. CREDIT has an offset, PING and PONG a number, REFUSED and GOAWAY a literal. */
typedef struct {
    uint8_t type;
    uint16_t code;
    uint32_t stream; /* GOAWAY: last id */
    union {
        uint64_t number;
        const char *text;
    } with;
} tl_control;

struct tl_mux { /* private; here so that its size is known */
    tl_mux_config config;
    uint64_t now_ms; /* of the call that is under way, or was last */
    uint64_t sent;   /* DATA payload bytes put into messages */
    uint64_t send_limit;
    uint64_t received;
    uint64_t receive_limit;
    uint64_t return_at; /* `received` at which the connection's credit is returned */
    uint64_t dead_data; /* bytes that may still come for streams that we cut: their credit */
    tl_liveness liveness;
    tl_allowance allowance;
    uint32_t receive_most; /* bytes of a message that comes */
    uint32_t peer_max_frame;
    uint32_t peer_max_message;
    uint32_t peer_stream_window;
    uint32_t peer_top_id; /* highest id that the peer opened */
    uint32_t epoch;
    uint8_t state; /* a tl_mux_state */
    uint8_t turn;  /* slot that is asked first for DATA */
    uint8_t pongs; /* queued */
    uint8_t control_head;
    uint8_t control_count;
    bool drain_wanted; /* our GOAWAY was said */
    bool peer_drains;  /* a GOAWAY came that lets the live streams finish */
    tl_close close;    /* how it ended; while draining: how it will end */
    tl_auth auth;
    tl_control control[TL_CONTROL_ENTRIES];
};

void tl_mux_init(tl_mux *mux, const tl_mux_config *config, uint64_t now_ms);
uint32_t tl_mux_epoch(const tl_mux *mux);

/* For owners who keep something a stream, and are told of it without a time. */
static inline uint32_t tl_mux_max_streams(const tl_mux *mux)
{
    return mux->config.hello->limits.max_streams;
}
static inline uint64_t tl_mux_now(const tl_mux *mux)
{
    return mux->now_ms;
}

/* One whole WebSocket message. */
void tl_mux_receive(tl_mux *mux, tl_span message, uint64_t now_ms);
/* A part of a message came: also that proves life. */
void tl_mux_heard(tl_mux *mux, uint64_t at_ms);
/* The WebSocket is gone; `status` is its close status, 0 when it broke without one. */
void tl_mux_link_closed(tl_mux *mux, uint16_t status);

/* Writes the next message into `buf`; 0: nothing may leave now. To be called when the link takes one, until it
 * says 0. `cap`: enough for our HELLO, at least 2,048. */
size_t tl_mux_next_message(tl_mux *mux, uint8_t *buf, size_t cap, uint64_t now_ms);

/* After `challenge`. False: the state or the device id is wrong, and nothing is sent. */
bool tl_mux_authenticate(tl_mux *mux, tl_span device, const uint8_t instance[TL_INSTANCE_SIZE],
                         const uint8_t key_id[TL_KEY_ID_SIZE], const uint8_t signature[TL_SIGNATURE_SIZE]);
/* GOAWAY and the end. `reason`: a literal, at most TL_MAX_REASON bytes. */
void tl_mux_close(tl_mux *mux, tl_close_code code, const char *reason);
/* GOAWAY normal; live streams finish, then lost. Before open: ends at once. */
void tl_mux_drain(tl_mux *mux, const char *reason);

/* When tl_mux_on_timer wants to be called; may change with every call. TL_NEVER once lost. */
uint64_t tl_mux_timer(const tl_mux *mux);
void tl_mux_on_timer(tl_mux *mux, uint64_t now_ms);

tl_close tl_mux_close_reason(const tl_mux *mux); /* meaningful once lost */
uint32_t tl_mux_last_rtt_ms(const tl_mux *mux);  /* TL_NO_RTT before the first PONG */

#endif
