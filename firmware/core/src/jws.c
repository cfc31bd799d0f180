#include "towline/jws.h"

#include "towline/bytes.h"

#define WHOLE_MAX ((INT64_C(1) << 53) - 1)

/* The part's JSON object, decoded into `scratch`. `scratch` is a copy: what it holds before stays. */
static const char *json_object(tl_span part, tl_out scratch, tl_json *object)
{
    const size_t from = scratch.n;
    if (part.n == 0 || !tl_base64url_decode(part, &scratch)) {
        return "a part is not canonical base64url";
    }
    const tl_span text = {scratch.at + from, scratch.n - from};
    if (tl_json_check(text, object) != TL_JSON_FINE) {
        return "a part is not strict JSON";
    }
    return object->kind == TL_JSON_OBJECT ? NULL : "a part is not a JSON object";
}

static const char *take_kid(const tl_json *value, tl_jws *jws)
{
    tl_out kid = {jws->kid, 0, sizeof jws->kid, false};
    if (value->kind == TL_JSON_NULL) {
        return NULL; /* as if it were not there */
    }
    if (!tl_json_unescape(value, &kid)) {
        return "kid is not a string of 64 bytes at most";
    }
    jws->has_kid = true;
    jws->kid_n = (uint8_t)kid.n;
    return NULL;
}

/* Everything that could name another key or another meaning of the signature (jku, jwk, x5u, x5c, crit, b64,
 * zip, …) is refused by allowing three names only. */
static const char *read_header(const tl_json *header, const char *alg, const char *typ, tl_jws *jws)
{
    tl_json name, value;
    bool has_alg = false, has_typ = false;
    for (tl_span rest = header->text; tl_json_next_member(&rest, &name, &value);) {
        if (tl_json_says(&name, tl_text("alg"))) {
            has_alg = tl_json_says(&value, tl_text(alg));
        } else if (tl_json_says(&name, tl_text("typ"))) {
            has_typ = tl_json_says(&value, tl_text(typ));
        } else if (!tl_json_says(&name, tl_text("kid"))) {
            return "the header holds what is not allowed";
        } else {
            const char *reason = take_kid(&value, jws);
            if (reason != NULL) {
                return reason;
            }
        }
    }
    if (!has_alg) {
        return "alg is not the one asked for";
    }
    return has_typ ? NULL : "typ is not the one asked for";
}

const char *tl_jws_parse(tl_span token, const char *alg, const char *typ, size_t longest, tl_out scratch,
                         tl_jws *jws)
{
    if (token.n > longest) {
        return "longer than allowed";
    }
    tl_span rest = token;
    const tl_span header_part = tl_split(&rest, '.');
    jws->payload = tl_split(&rest, '.');
    jws->signature = rest; /* a fourth part would bring a dot, which is no base64url */
    if (jws->payload.n == 0 || jws->signature.n == 0) {
        return "not three parts";
    }
    jws->signed_part = (tl_span){token.at, header_part.n + 1 + jws->payload.n};
    jws->has_kid = false;
    jws->kid_n = 0;
    tl_json header;
    const char *reason = json_object(header_part, scratch, &header);
    return reason != NULL ? reason : read_header(&header, alg, typ, jws);
}

const char *tl_jws_payload(const tl_jws *jws, tl_out scratch, tl_json *payload)
{
    return json_object(jws->payload, scratch, payload);
}

bool tl_jws_whole(const tl_json *claims, const char *name, int64_t *value)
{
    tl_json found;
    return tl_json_member(claims, name, &found) && tl_json_whole(&found, 0, WHOLE_MAX, value);
}
