#include "towline/mux_liveness.h"

enum {
    LATE_TIMER_MS = 1000,   /* a timer later than this says that our own task was stopped */
    RTT_REFRESH_MS = 15000, /* while traffic flows nobody pings to prove life; this often the trip is measured */
};

void tl_liveness_init(tl_liveness *liveness, uint64_t now_ms, uint32_t first_deadline_ms)
{
    *liveness = (tl_liveness){
        .last_inbound = now_ms,
        .timer_at = now_ms + first_deadline_ms,
        .measured_at = now_ms,
        .last_rtt_ms = TL_NO_RTT,
    };
}

void tl_liveness_start(tl_liveness *liveness, uint64_t now_ms, uint32_t keepalive_ms)
{
    liveness->keepalive_ms = keepalive_ms;
    liveness->last_inbound = now_ms;
    liveness->timer_at = now_ms + keepalive_ms;
}

uint64_t tl_liveness_ping(tl_liveness *liveness, uint64_t now_ms)
{
    liveness->ping_number++;
    liveness->ping_at = now_ms;
    liveness->unanswered = true;
    return liveness->ping_number;
}

void tl_liveness_pong(tl_liveness *liveness, uint64_t number, uint64_t now_ms)
{
    if (!liveness->unanswered || number != liveness->ping_number) {
        return; /* an answer to any but the newest PING says nothing new */
    }
    uint64_t rtt = now_ms - liveness->ping_at;
    liveness->unanswered = false;
    liveness->measured_at = now_ms;
    liveness->last_rtt_ms = rtt < TL_NO_RTT ? (uint32_t)rtt : TL_NO_RTT;
}

static uint64_t silence_at(const tl_liveness *liveness, uint64_t now_ms)
{
    return now_ms > liveness->last_inbound ? now_ms - liveness->last_inbound : 0;
}

tl_verdict_of_silence tl_liveness_judge(tl_liveness *liveness, uint64_t now_ms)
{
    uint32_t keepalive = liveness->keepalive_ms;
    if (silence_at(liveness, now_ms) >= keepalive && now_ms > liveness->timer_at + LATE_TIMER_MS) {
        liveness->last_inbound = now_ms - keepalive; /* we slept, not the peer: ask again, judge later */
        liveness->unanswered = false;
    }
    if (silence_at(liveness, now_ms) < keepalive) {
        liveness->timer_at = liveness->last_inbound + keepalive;
        return now_ms - liveness->measured_at >= RTT_REFRESH_MS ? TL_LIVE_ASK : TL_LIVE_FINE;
    }
    uint64_t dead_at = liveness->last_inbound + (uint64_t)keepalive * 9 / 4; /* section 10: 2.25 keepalives */
    if (now_ms >= dead_at) {
        return TL_LIVE_DEAD;
    }
    liveness->timer_at = dead_at;
    bool asked = liveness->unanswered && liveness->ping_at >= liveness->last_inbound;
    return asked ? TL_LIVE_FINE : TL_LIVE_ASK;
}
