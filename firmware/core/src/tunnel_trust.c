/* Who comes in through the tunnel: grants, the keys they are signed with, and what was revoked. */
#include "tunnel_parts.h"

#include <string.h>

#include "towline/bytes.h"

static uint64_t now_of(const tl_tunnel *t)
{
    return t->parts.port->sys->now_ms(t->parts.port->sys->with);
}

static int64_t wall_of(const tl_tunnel *t)
{
    return t->parts.port->sys->wall_s(t->parts.port->sys->with);
}

/* --- keys --- */

void tl_tunnel_take_keys(tl_tunnel *t, tl_span text)
{
    bool newer = false;
    const char *wrong = tl_grants_take_keys(&t->grants, text, now_of(t), &newer);
    if (wrong != NULL) {
        tl_log_text(t->parts.log, TL_LOG_WARNING, "a key list was refused", wrong);
    } else if (newer && !tl_identity_keep_key_list(t->parts.port->kv, text)) {
        tl_log_text(t->parts.log, TL_LOG_ERROR, "the key list cannot be stored", NULL);
    }
}

void tl_tunnel_load_trust(tl_tunnel *t)
{
    /* The link's buffers hold nothing yet, so the streams' rings lend the room. */
    tl_out text = {t->parts.rings, 0, t->parts.max_streams * TL_STREAM_WINDOW, false};
    const tl_port_kv *kv = t->parts.port->kv;
    bool newer;
    if (tl_identity_key_list(kv, &text)) {
        const char *wrong = tl_grants_take_keys(&t->grants, (tl_span){text.at, text.n}, now_of(t), &newer);
        if (wrong != NULL) {
            tl_log_text(t->parts.log, TL_LOG_ERROR, "the stored key list cannot be used", wrong);
        }
    }
    text.n = 0;
    if (kv->get(kv->with, TL_REVOKED_KEY, &text) &&
        !tl_revoked_restore(&t->grants.revoked, (tl_span){text.at, text.n}, wall_of(t), (uint32_t)(now_of(t) / 1000))) {
        tl_log_text(t->parts.log, TL_LOG_ERROR, "the stored revocations cannot be read", NULL);
    }
}

/* --- grants --- */

static void log_refusal(tl_tunnel *t, const char *what, const char *reason)
{
    if (t->logged < TL_LOGGED_REFUSALS) {
        t->logged++;
        tl_log_text(t->parts.log, TL_LOG_WARNING, what, reason);
    }
}

void tl_tunnel_granted(tl_tunnel *t, const uint8_t *id, tl_span token)
{
    const tl_verdict verdict = tl_grants_offer(&t->grants, id, token, wall_of(t), now_of(t));
    if (verdict.code != TL_GRANT_HOLDS) {
        log_refusal(t, "grant refused", verdict.reason);
    }
}

tl_grant *tl_tunnel_admit(tl_tunnel *t, tl_stream_ref stream, const tl_open *open)
{
    const tl_verdict verdict =
        tl_grants_open(&t->grants, open->device, open->service, open->grant_id, wall_of(t), now_of(t));
    tl_refused_code code = (tl_refused_code)verdict.code;
    const char *reason = verdict.reason;
    if (verdict.code == TL_GRANT_HOLDS && !tl_is(open->service, TL_TUNNEL_SERVICE)) {
        code = TL_REFUSED_UNKNOWN_SERVICE;
        reason = "this device has no such service";
    } else if (verdict.code == TL_GRANT_HOLDS && verdict.grant->acting && !t->support) {
        code = TL_REFUSED_UNKNOWN_SERVICE;
        reason = "support may not reach this device";
    } else if (verdict.code == TL_GRANT_HOLDS) {
        return verdict.grant;
    }
    log_refusal(t, "stream refused", reason);
    tl_stream_refuse(&t->mux, stream, code, reason);
    return NULL;
}

/* --- revocations --- */

_Static_assert(sizeof(tl_grants_scratch) >= TL_REVOKED_SAVED_MAX, "revocations are written into the lent scratch");

static void save_revoked(tl_tunnel *t)
{
    tl_out saved = {(uint8_t *)t->parts.scratch, 0, sizeof *t->parts.scratch, false};
    tl_revoked_save(&t->grants.revoked, wall_of(t), (uint32_t)(now_of(t) / 1000), &saved);
    const tl_port_kv *kv = t->parts.port->kv;
    if (!kv->set(kv->with, TL_REVOKED_KEY, (tl_span){saved.at, saved.n}) || !kv->commit(kv->with)) {
        tl_log_text(t->parts.log, TL_LOG_ERROR, "revocations cannot be stored", NULL);
    }
    t->unseen_to_save = false;
    t->unseen_saved_ms = now_of(t);
}

/* The same number for a server over restarts, and for each of them another (FNV-1a). */
static uint32_t number_of(const tl_url *url)
{
    uint32_t hash = 2166136261u ^ url->port;
    for (size_t i = 0; i < url->host.n; i++) {
        hash = (hash ^ url->host.at[i]) * 16777619u;
    }
    return hash != 0 ? hash : 1;
}

void tl_tunnel_revoked(tl_tunnel *t, const uint8_t *id)
{
    const uint32_t server = number_of(&t->url);
    switch (tl_grants_revoke(&t->grants, id, now_of(t), server)) {
    case TL_REVOKE_ENDED:
        tl_exchanges_end_grant(&t->exchanges, id);
        tl_log_text(t->parts.log, TL_LOG_INFO, "a grant was revoked", NULL);
        save_revoked(t);
        break;
    case TL_REVOKE_NEWS:
        t->unseen_to_save = true;
        break;
    case TL_REVOKE_KNOWN:
        break;
    }
}

/* Support is shut out: whoever is in already leaves too, since a line would carry on for as long as its grant. */
static void send_support_away(tl_tunnel *t)
{
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        const tl_grant *grant = &t->grants.accepted[i];
        if (grant->acting && grant->streams > 0) {
            tl_exchanges_end_grant(&t->exchanges, grant->id);
        }
    }
}

uint64_t tl_tunnel_keep_trust(tl_tunnel *t, uint64_t now_ms)
{
    uint8_t id[TL_GRANT_ID];
    if (t->identity == NULL) {
        return TL_NEVER;
    }
    while (tl_grants_expire(&t->grants, now_ms, id)) {
        if (t->mux_lives) {
            tl_exchanges_end_grant(&t->exchanges, id);
        }
    }
    if (t->mux_lives && !t->support) {
        send_support_away(t);
    }
    const uint64_t next = tl_grants_next_expiry(&t->grants);
    if (t->unseen_to_save && now_ms >= t->unseen_saved_ms + TL_UNSEEN_SAVE_MS) {
        save_revoked(t);
    }
    const uint64_t save_at = t->unseen_to_save ? t->unseen_saved_ms + TL_UNSEEN_SAVE_MS : TL_NEVER;
    return save_at < next ? save_at : next;
}
