/* HTTP on tunnel streams: each stream is a line that carries requests, one after another.
 *
 * Bytes are taken out of a stream's ring as its request is read, so the credit that the peer gets back is what the
 * routes have taken. Between a request's end and its answer's end nothing is read: a peer that sends requests on
 * has its window for them and no more. Answers are pulled: nothing of one is kept.
 *
 * The tunnel's owner hands on the mux's events of streams that were opened here; their time is the mux's.
 */
#ifndef TOWLINE_EXCHANGE_H
#define TOWLINE_EXCHANGE_H

#include "towline/mux.h"
#include "towline/routes.h"

/* Between requests a line has no deadline: the peer keeps it for its next visitor, and ends it. */
#define TL_HEAD_TIMEOUT_MS 10000u   /* from a head's first byte to its last */
#define TL_BODY_TIMEOUT_MS 30000u   /* without a byte of it; for a small one from its head to its end */
#define TL_ANSWER_TIMEOUT_MS 60000u /* without a byte of it that could leave: nobody gives credit, or it hangs */
#define TL_LINGER_TIMEOUT_MS 5000u  /* from our FIN to the peer's: before it a RESET could overtake the answer */

typedef enum {
    TL_LINE_FREE,
    TL_LINE_IDLE, /* between requests */
    TL_LINE_HEAD,
    TL_LINE_BODY,
    TL_LINE_ANSWER,
    TL_LINE_LINGER /* our FIN was said: what still comes is read by nobody */
} tl_line_phase;

/* Private to exchange.c. */
typedef struct {
    uint64_t deadline_ms;
    tl_exchange exchange;
    tl_grant *grant; /* what opened the stream */
    tl_stream_ref stream;
    uint8_t phase; /* a tl_line_phase */
    uint8_t grant_id[TL_GRANT_ID];
    tl_http_parser parser;
} tl_line;

typedef struct {
    tl_mux *mux;
    tl_routes routes;
    void *owner;     /* the device, for the routes */
    tl_line *lines;  /* as many as the mux has streams */
    uint8_t *small;  /* TL_SMALL_BODY_MAX bytes, for one small body at a time: another's is answered 503 */
    tl_stream_ref small_lent_to; /* 0: nobody */
    uint64_t now_ms; /* of the last call that told one: the mux may know a later one */
    bool draining;
} tl_exchanges;

/* For each connection anew, behind tl_mux_init. */
void tl_exchanges_init(tl_exchanges *, tl_mux *, tl_routes, void *owner, tl_line *lines, uint8_t *small);

/* Accepts the stream, which the grant allows; its `streams` is counted here, up and down. */
void tl_exchanges_open(tl_exchanges *, tl_stream_ref, tl_grant *);
/* data_came and peer_finished. */
void tl_exchanges_came(tl_exchanges *, tl_stream_ref);
tl_fill tl_exchanges_fill(tl_exchanges *, tl_stream_ref, tl_out *out);
void tl_exchanges_stream_over(tl_exchanges *, tl_stream_ref);

/* The grant was revoked or ended: so do its streams. */
void tl_exchanges_end_grant(tl_exchanges *, const uint8_t id[TL_GRANT_ID]);
/* No further request: idle lines end now, the others behind the answer that is under way. */
void tl_exchanges_drain(tl_exchanges *, uint64_t now_ms);
/* Routes that said TL_FILL_AGAIN are asked again. */
void tl_exchanges_wake(tl_exchanges *);

/* When tl_exchanges_on_timer wants to be called; TL_NEVER: not. Changes with every call. */
uint64_t tl_exchanges_timer(const tl_exchanges *);
void tl_exchanges_on_timer(tl_exchanges *, uint64_t now_ms);

#endif
