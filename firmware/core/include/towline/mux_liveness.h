/* Keepalive, the late timer and round trips (docs/protocol/tunnel-v1.md, section 10). Monotonic milliseconds. */
#ifndef TOWLINE_MUX_LIVENESS_H
#define TOWLINE_MUX_LIVENESS_H

#include <stdbool.h>
#include <stdint.h>

#define TL_NO_RTT UINT32_MAX /* nothing was measured yet */

typedef enum { TL_LIVE_FINE, TL_LIVE_ASK, TL_LIVE_DEAD } tl_verdict_of_silence;

typedef struct {
    uint64_t last_inbound;
    uint64_t timer_at;
    uint64_t measured_at;
    uint64_t ping_at;
    uint32_t ping_number;
    uint32_t keepalive_ms;
    uint32_t last_rtt_ms;
    bool unanswered; /* the newest PING, sent at `ping_at` */
} tl_liveness;

void tl_liveness_init(tl_liveness *liveness, uint64_t now_ms, uint32_t first_deadline_ms);
/* The connection is open; a PING must leave now. */
void tl_liveness_start(tl_liveness *liveness, uint64_t now_ms, uint32_t keepalive_ms);
/* The number of the PING that leaves now. */
uint64_t tl_liveness_ping(tl_liveness *liveness, uint64_t now_ms);
void tl_liveness_pong(tl_liveness *liveness, uint64_t number, uint64_t now_ms);
/* To be called when `timer_at` has come; sets the next one. */
tl_verdict_of_silence tl_liveness_judge(tl_liveness *liveness, uint64_t now_ms);

#endif
