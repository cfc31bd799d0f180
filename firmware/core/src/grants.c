#include "towline/grants.h"

#include <string.h>

#include "towline/bytes.h"
#include "grants_claims.h"

/* Whole seconds, and never so late that adding a day to it would wrap. */
static uint32_t seconds(uint64_t ms)
{
    const uint64_t s = ms / 1000;
    return s < INT32_MAX ? (uint32_t)s : INT32_MAX;
}

void tl_grants_init(tl_grants *g, const tl_crypto *crypto, tl_grants_scratch *scratch, tl_span device,
                    const uint8_t root[TL_P256_POINT], int64_t earliest_s)
{
    memset(g, 0, sizeof *g);
    g->crypto = crypto;
    g->scratch = scratch;
    g->device = device;
    memcpy(g->root, root, TL_P256_POINT);
    g->earliest_s = earliest_s - TL_GRANT_LEEWAY_S;
    tl_revoked_init(&g->revoked);
}

/* --- the places --- */

static tl_grant *accepted(tl_grants *g, const uint8_t *id)
{
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        if (g->accepted[i].ends_at_ms != 0 && memcmp(g->accepted[i].id, id, TL_GRANT_ID) == 0) {
            return &g->accepted[i];
        }
    }
    return NULL;
}

static tl_waiting_grant *waiting(tl_grants *g, const uint8_t *id)
{
    for (size_t i = 0; i < TL_GRANTS_WAITING; i++) {
        if (g->waiting[i].n != 0 && memcmp(g->waiting[i].id, id, TL_GRANT_ID) == 0) {
            return &g->waiting[i];
        }
    }
    return NULL;
}

/* What goes first when all places are taken: of an earlier connection before this one's, then the one that was
 * not used for longest. A node that needs it again gets no_grant, and brings it again. */
static bool goes_before(const tl_grant *one, const tl_grant *other)
{
    return one->here != other->here ? other->here : one->used < other->used;
}

/* A place for a new grant: a free one, or that of a grant without streams; NULL when all have some. */
static tl_grant *place(tl_grants *g)
{
    tl_grant *found = NULL;
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        tl_grant *grant = &g->accepted[i];
        if (grant->ends_at_ms == 0) {
            return grant;
        }
        if (grant->streams == 0 && (found == NULL || goes_before(grant, found))) {
            found = grant;
        }
    }
    return found;
}

static void forget_refusal(tl_grants *g, const uint8_t *id)
{
    for (size_t i = 0; i < TL_GRANTS_REFUSED; i++) {
        if (memcmp(g->refused[i].id, id, TL_GRANT_ID) == 0) {
            g->refused[i].code = 0;
        }
    }
}

static void note_refusal(tl_grants *g, const uint8_t *id, uint8_t code)
{
    forget_refusal(g, id);
    tl_refused_grant *entry = &g->refused[g->refused_next];
    g->refused_next = (uint8_t)((g->refused_next + 1) % TL_GRANTS_REFUSED);
    memcpy(entry->id, id, TL_GRANT_ID);
    entry->code = code;
}

static tl_verdict refused_before(const tl_grants *g, const uint8_t *id)
{
    for (size_t i = 0; i < TL_GRANTS_REFUSED; i++) {
        if (g->refused[i].code != 0 && memcmp(g->refused[i].id, id, TL_GRANT_ID) == 0) {
            return tl_refusal(g->refused[i].code, "its grant was refused");
        }
    }
    return tl_refusal(TL_GRANT_NONE, "no such grant came on this connection");
}

/* --- keys --- */

/* Each accepted grant's key has another place in the new list, or none. */
static void follow_keys(tl_grants *g, const tl_key_list *newer, uint64_t now_ms)
{
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        tl_grant *grant = &g->accepted[i];
        if (grant->ends_at_ms == 0 || grant->key >= g->keys.count) {
            continue;
        }
        const int key = tl_key_list_find(newer, tl_key_list_kid(&g->keys, grant->key));
        if (key >= 0) {
            grant->key = (uint8_t)key;
        } else {
            grant->ends_at_ms = now_ms != 0 ? now_ms : 1;
            grant->key = TL_KEYS_MAX;
            memset(grant->digest, 0, sizeof grant->digest);
        }
    }
}

const char *tl_grants_take_keys(tl_grants *g, tl_span text, uint64_t now_ms, bool *newer)
{
    tl_key_list *list = &g->scratch->list;
    const tl_out scratch = {g->scratch->decoded, 0, sizeof g->scratch->decoded, false};
    *newer = false;
    const char *reason = tl_key_list_read(list, text, g->root, g->crypto, scratch);
    if (reason != NULL) {
        return reason;
    }
    if (g->keys.count > 0 && list->number <= g->keys.number) {
        return NULL; /* no news, or an old list, perhaps with a stolen key */
    }
    follow_keys(g, list, now_ms);
    g->keys = *list;
    if (g->earliest_s < list->issued_at - TL_GRANT_LEEWAY_S) {
        g->earliest_s = list->issued_at - TL_GRANT_LEEWAY_S;
    }
    *newer = true;
    return NULL;
}

/* --- a connection --- */

void tl_grants_connected(tl_grants *g)
{
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        g->accepted[i].here = false;
        g->accepted[i].streams = 0;
    }
    memset(g->waiting, 0, sizeof g->waiting);
    memset(g->refused, 0, sizeof g->refused);
    g->refused_next = 0;
}

static tl_verdict holds(tl_grants *g, tl_grant *grant)
{
    grant->here = true;
    grant->used = ++g->uses;
    return (tl_verdict){TL_GRANT_HOLDS, NULL, grant};
}

/* Keeps the token until the clock is right. */
static tl_verdict wait_with(tl_grants *g, const uint8_t *id, tl_span token, const char *reason)
{
    tl_waiting_grant *entry = waiting(g, id);
    for (size_t i = 0; entry == NULL && i < TL_GRANTS_WAITING; i++) {
        entry = g->waiting[i].n == 0 ? &g->waiting[i] : NULL;
    }
    if (token.n == 0 || token.n > sizeof entry->token) {
        return tl_refusal(TL_GRANT_INVALID, "longer than allowed, or empty");
    }
    if (entry == NULL) {
        return tl_refusal(TL_GRANT_INVALID, "too many grants at once");
    }
    memcpy(entry->id, id, TL_GRANT_ID);
    memmove(entry->token, token.at, token.n); /* it may be the one that waits already */
    entry->n = (uint16_t)token.n;
    return tl_refusal(TL_GRANT_NO_TIME, reason);
}

/* Puts a verified grant into its place. */
static tl_verdict take(tl_grants *g, tl_grant *known, const tl_grant *fresh)
{
    tl_grant *to = known != NULL ? known : place(g);
    if (to == NULL) {
        return tl_refusal(TL_GRANT_INVALID, "too many grants at once");
    }
    const uint8_t streams = known != NULL ? known->streams : 0;
    if (known != NULL && !tl_same((tl_span){known->service, known->service_n},
                                  (tl_span){fresh->service, fresh->service_n})) {
        return tl_refusal(TL_GRANT_INVALID, "the grant is for another service");
    }
    *to = *fresh;
    to->streams = streams;
    return holds(g, to);
}

static tl_verdict check(tl_grants *g, const uint8_t *id, tl_span token, int64_t wall_s, uint64_t now_ms)
{
    if (tl_revoked_holds(&g->revoked, id)) {
        return tl_refusal(TL_GRANT_REVOKED, "the grant was revoked");
    }
    tl_grant *known = accepted(g, id), fresh;
    uint8_t digest[TL_SHA256];
    g->crypto->sha256(token, digest);
    if (known != NULL && memcmp(known->digest, digest, sizeof digest) == 0) {
        return holds(g, known);
    }
    if (wall_s < g->earliest_s || wall_s < 0) {
        return wait_with(g, id, token, "the device does not know the time yet");
    }
    const tl_verdict verdict = tl_grants_verify(g, id, token, wall_s, now_ms, &fresh);
    if (verdict.code == TL_GRANT_NO_TIME) {
        return wait_with(g, id, token, verdict.reason);
    }
    if (verdict.code != TL_GRANT_HOLDS) {
        return verdict;
    }
    memcpy(fresh.digest, digest, sizeof digest);
    return take(g, known, &fresh);
}

tl_verdict tl_grants_offer(tl_grants *g, const uint8_t id[TL_GRANT_ID], tl_span token, int64_t wall_s,
                           uint64_t now_ms)
{
    const tl_verdict verdict = check(g, id, token, wall_s, now_ms);
    tl_waiting_grant *entry = waiting(g, id);
    if (verdict.code == TL_GRANT_HOLDS || verdict.code == TL_GRANT_NO_TIME) {
        forget_refusal(g, id);
        if (entry != NULL && verdict.code == TL_GRANT_HOLDS) {
            entry->n = 0;
        }
        return verdict;
    }
    const tl_grant *known = accepted(g, id);
    if (entry == NULL && (known == NULL || !known->here)) {
        note_refusal(g, id, verdict.code);
    }
    return verdict;
}

/* The grant, if it holds at this moment. One that waited for the time is verified here, once the time is known. */
static tl_verdict find(tl_grants *g, const uint8_t *id, int64_t wall_s, uint64_t now_ms)
{
    tl_grant *grant = accepted(g, id);
    if (grant != NULL && grant->here) {
        return now_ms < grant->ends_at_ms ? holds(g, grant)
                                          : tl_refusal(TL_GRANT_EXPIRED, "the grant is past its end");
    }
    if (tl_revoked_holds(&g->revoked, id)) {
        return tl_refusal(TL_GRANT_REVOKED, "the grant was revoked");
    }
    tl_waiting_grant *entry = waiting(g, id);
    if (entry == NULL) {
        return refused_before(g, id);
    }
    const tl_verdict verdict = check(g, id, (tl_span){entry->token, entry->n}, wall_s, now_ms);
    if (verdict.code != TL_GRANT_NO_TIME) {
        entry->n = 0;
        if (verdict.code != TL_GRANT_HOLDS) {
            note_refusal(g, id, verdict.code);
        }
    }
    return verdict;
}

tl_verdict tl_grants_open(tl_grants *g, tl_span device, tl_span service, const uint8_t id[TL_GRANT_ID],
                          int64_t wall_s, uint64_t now_ms)
{
    const tl_grant *known = accepted(g, id);
    const bool came = (known != NULL && known->here) || waiting(g, id) != NULL;
    if (came && !tl_same(device, g->device)) {
        return tl_refusal(TL_GRANT_INVALID, "the grant is for another device");
    }
    const tl_verdict verdict = find(g, id, wall_s, now_ms);
    if (verdict.code == TL_GRANT_HOLDS &&
        !tl_same(service, (tl_span){verdict.grant->service, verdict.grant->service_n})) {
        return tl_refusal(TL_GRANT_INVALID, "the grant is for another service");
    }
    return verdict;
}

/* --- ends --- */

tl_revocation tl_grants_revoke(tl_grants *g, const uint8_t id[TL_GRANT_ID], uint64_t now_ms, uint32_t server)
{
    tl_grant *grant = accepted(g, id);
    tl_waiting_grant *entry = waiting(g, id);
    if (entry != NULL) {
        entry->n = 0;
    }
    if (grant != NULL) {
        tl_revoked_add(&g->revoked, id, seconds(grant->ends_at_ms) + 1);
        memset(grant, 0, sizeof *grant);
        return TL_REVOKE_ENDED;
    }
    const bool news = tl_revoked_add_unseen(&g->revoked, id, seconds(now_ms), server);
    return news ? TL_REVOKE_NEWS : TL_REVOKE_KNOWN;
}

bool tl_grants_expire(tl_grants *g, uint64_t now_ms, uint8_t id[TL_GRANT_ID])
{
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        tl_grant *grant = &g->accepted[i];
        if (grant->ends_at_ms != 0 && grant->ends_at_ms <= now_ms) {
            memcpy(id, grant->id, TL_GRANT_ID);
            memset(grant, 0, sizeof *grant);
            return true;
        }
    }
    tl_revoked_expire(&g->revoked, seconds(now_ms));
    return false;
}

uint64_t tl_grants_next_expiry(const tl_grants *g)
{
    uint64_t first = UINT64_MAX;
    for (size_t i = 0; i < TL_GRANTS_MAX; i++) {
        const uint64_t end = g->accepted[i].ends_at_ms;
        if (end != 0 && end < first) {
            first = end;
        }
    }
    return first;
}
