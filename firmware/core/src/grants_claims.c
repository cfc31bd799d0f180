#include "grants_claims.h"

#include <string.h>

#include "towline/bytes.h"

#define UUID_TEXT 36u

static int lower_hex(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool dash_at(size_t i)
{
    return i == 8 || i == 13 || i == 18 || i == 23;
}

/* The one canonical text of a UUID (RFC 9562, section 4): no braces, no capitals. */
static bool uuid_claim(const tl_json *claims, const char *name, uint8_t uuid[16])
{
    tl_json value;
    uint8_t text[UUID_TEXT];
    tl_out out = {text, 0, sizeof text, false};
    if (!tl_json_member(claims, name, &value) || !tl_json_unescape(&value, &out) || out.n != UUID_TEXT) {
        return false;
    }
    size_t half = 0;
    for (size_t i = 0; i < UUID_TEXT; i++) {
        if (dash_at(i)) {
            if (text[i] != '-') {
                return false;
            }
            continue;
        }
        const int digit = lower_hex(text[i]);
        if (digit < 0) {
            return false;
        }
        uuid[half / 2] = (uint8_t)(half % 2 == 0 ? digit << 4 : uuid[half / 2] | digit);
        half++;
    }
    return true;
}

static bool text_claim(const tl_json *claims, const char *name, tl_json *value)
{
    if (!tl_json_member(claims, name, value)) {
        return false;
    }
    const size_t length = tl_json_length(value);
    return length > 0 && length <= TL_CLAIM_TEXT_MAX;
}

static const char *read_names(const tl_grants *g, const tl_json *claims, tl_grant *grant)
{
    tl_json value;
    uint8_t jti[TL_GRANT_ID];
    if (!tl_json_member(claims, "aud", &value) || !tl_json_says(&value, g->device)) {
        return "the grant is for another device";
    }
    if (!uuid_claim(claims, "jti", jti) || memcmp(jti, grant->id, sizeof jti) != 0) {
        return "jti is not the frame's grant id";
    }
    tl_out service = {grant->service, 0, sizeof grant->service, false};
    if (!uuid_claim(claims, "sid", grant->session) || !text_claim(claims, "sub", &value) ||
        !text_claim(claims, "iss", &value) || !text_claim(claims, "svc", &value) ||
        !tl_json_unescape(&value, &service)) {
        return "sid, sub, iss or svc is odd";
    }
    grant->service_n = (uint8_t)service.n;
    grant->acting = tl_json_member(claims, "act", &value) && value.kind != TL_JSON_NULL;
    return NULL;
}

static tl_verdict read_times(const tl_json *claims, int64_t wall_s, uint64_t now_ms, tl_grant *grant)
{
    int64_t issued_s, expires_s;
    if (!tl_jws_whole(claims, "iat", &issued_s) || !tl_jws_whole(claims, "exp", &expires_s) ||
        expires_s <= issued_s) {
        return tl_refusal(TL_GRANT_INVALID, "iat or exp is odd");
    }
    if (issued_s > wall_s + TL_GRANT_LEEWAY_S) {
        /* The gateway signed it, so the time it names has come: the clock is behind. */
        return tl_refusal(TL_GRANT_NO_TIME, "the device's clock is behind");
    }
    const int64_t left_s = expires_s + TL_GRANT_LEEWAY_S - wall_s;
    if (left_s <= 0) {
        return tl_refusal(TL_GRANT_EXPIRED, "the grant is past its end");
    }
    grant->ends_at_ms = now_ms + (uint64_t)left_s * 1000;
    return (tl_verdict){TL_GRANT_HOLDS, NULL, grant};
}

/* A server may send hundreds of tokens a second, and each would cost a signature. */
static bool may_check(tl_grants *g, uint64_t now_ms)
{
    const uint64_t from = g->checked_to_ms > now_ms ? g->checked_to_ms : now_ms;
    if (from - now_ms > (uint64_t)(TL_GRANT_CHECKS_MAX - 1) * TL_GRANT_CHECK_MS) {
        return false;
    }
    g->checked_to_ms = from + TL_GRANT_CHECK_MS;
    return true;
}

tl_verdict tl_grants_verify(tl_grants *g, const uint8_t id[TL_GRANT_ID], tl_span token, int64_t wall_s,
                            uint64_t now_ms, tl_grant *grant)
{
    const tl_out scratch = {g->scratch->decoded, 0, sizeof g->scratch->decoded, false};
    tl_jws jws;
    tl_json claims;
    memset(grant, 0, sizeof *grant);
    memcpy(grant->id, id, TL_GRANT_ID);
    const char *reason = tl_jws_parse(token, "RS256", "grant+jwt", TL_GRANT_TOKEN_MAX, scratch, &jws);
    if (reason == NULL && !may_check(g, now_ms)) {
        reason = "more grants than are checked at a time";
    }
    if (reason == NULL) {
        reason = tl_key_list_verify(&g->keys, &jws, g->crypto, &grant->key);
    }
    if (reason == NULL) {
        reason = tl_jws_payload(&jws, scratch, &claims);
    }
    if (reason == NULL) {
        reason = read_names(g, &claims, grant);
    }
    return reason != NULL ? tl_refusal(TL_GRANT_INVALID, reason) : read_times(&claims, wall_s, now_ms, grant);
}
