/* A new certificate for the same key, in the last third of the old one's life. One that expired in a drawer renews
 * too: the key proves who asks, not the certificate. */
#include "gateway_parts.h"

/* From two thirds of the lifetime on, and later by up to a tenth of it. */
static int64_t renew_at_s(const tl_validity *validity, uint8_t spread)
{
    const int64_t lifetime_s = validity->until_s > validity->from_s ? validity->until_s - validity->from_s : 0;
    return validity->from_s + lifetime_s * 2 / 3 + lifetime_s * spread / 2560;
}

uint64_t tl_renewal_due(tl_gateway *g, uint64_t now_ms)
{
    const tl_port_sys *sys = g->parts.port->sys;
    const int64_t wall_s = sys->wall_s(sys->with);
    if (g->due_ms > now_ms || g->renew_now) {
        return g->due_ms;
    }
    if (wall_s < 0) {
        return now_ms + TL_NO_CLOCK_MS;
    }
    const int64_t left_s = renew_at_s(&g->parts.identity->validity, g->spread) - wall_s;
    if (left_s <= 0) {
        return now_ms;
    }
    return now_ms + (left_s < TL_RENEW_LOOK_MS / 1000 ? (uint64_t)left_s * 1000 : TL_RENEW_LOOK_MS);
}

void tl_renewal_ended(tl_gateway *g, tl_call_state state)
{
    const tl_gateway_parts *p = &g->parts;
    const char *why = g->call.why;
    if (state == TL_CALL_ANSWERED) {
        why = tl_identity_renew(p->identity, p->port->kv, p->grants, &g->call.answer, tl_call_room(&g->call),
                                tl_gateway_now(g));
    }
    if (why != NULL) {
        tl_gateway_later(g, TL_RENEW_RETRY_MS, TL_RENEW_RETRY_MAX_MS);
        tl_log_text(p->log, TL_LOG_WARNING, "certificate not renewed", why);
        return;
    }
    g->failures = 0;
    g->due_ms = tl_gateway_now(g) + TL_RENEW_PAUSE_MS;
    g->renew_now = false;
    p->port->crypto->random(&g->spread, 1);
    tl_call_close(&g->call);
    p->tell(p->owner, TL_GATEWAY_RENEWED, NULL);
}
