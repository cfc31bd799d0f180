#include "towline/key_list.h"

#include <string.h>

#include "towline/bytes.h"

/* A JWK of someone's private or symmetric key is no key that a list shows. */
static const char PRIVATE[][4] = {"d", "p", "q", "dp", "dq", "qi", "oth", "k"};

static bool absent_or_says(const tl_json *jwk, const char *name, const char *wanted)
{
    tl_json value;
    return !tl_json_member(jwk, name, &value) || tl_json_says(&value, tl_text(wanted));
}

static bool may_verify(const tl_json *jwk)
{
    tl_json operations, one;
    if (!tl_json_member(jwk, "key_ops", &operations)) {
        return true;
    }
    if (operations.kind != TL_JSON_LIST) {
        return false;
    }
    for (tl_span rest = operations.text; tl_json_next_item(&rest, &one);) {
        if (tl_json_says(&one, tl_text("verify"))) {
            return true;
        }
    }
    return false;
}

static bool is_private(const tl_json *jwk)
{
    tl_json value;
    for (size_t i = 0; i < sizeof PRIVATE / sizeof *PRIVATE; i++) {
        if (tl_json_member(jwk, PRIVATE[i], &value)) {
            return true;
        }
    }
    return false;
}

/* A JWK's unsigned integer (RFC 7518, 6.3.1): canonical base64url without a leading zero. It must be written
 * plainly: an escape in it would not be base64url. */
static bool unsigned_member(const tl_json *jwk, const char *name, tl_out *out)
{
    tl_json value;
    const size_t from = out->n;
    return tl_json_member(jwk, name, &value) && value.kind == TL_JSON_STRING && value.text.n > 0 &&
           tl_base64url_decode(value.text, out) && out->at[from] != 0;
}

/* An RSA key for RS256 signatures, and the public half alone. */
static bool is_for_grants(const tl_json *jwk)
{
    tl_json value;
    return tl_json_member(jwk, "kty", &value) && tl_json_says(&value, tl_text("RSA")) && !is_private(jwk) &&
           absent_or_says(jwk, "alg", "RS256") && absent_or_says(jwk, "use", "sig") && may_verify(jwk);
}

/* Everyone uses this exponent, and a signature under e = 3 has a history. */
static bool usual_exponent(const tl_json *jwk)
{
    uint8_t room[4];
    tl_out out = {room, 0, sizeof room, false};
    return unsigned_member(jwk, "e", &out) && out.n == 3 && memcmp(room, "\x01\x00\x01", 3) == 0;
}

/* Adds the key's kid and modulus to the pool. */
static const char *take_key(const tl_json *jwk, tl_out *pool, tl_grant_key *key)
{
    tl_json kid;
    if (!is_for_grants(jwk)) {
        return "a key is none for grants";
    }
    const size_t kid_at = pool->n;
    if (!tl_json_member(jwk, "kid", &kid) || !tl_json_unescape(&kid, pool) || pool->n == kid_at ||
        pool->n - kid_at > TL_KID_MAX) {
        return "a key has no kid of 1 to 64 bytes";
    }
    const size_t modulus_at = pool->n;
    if (!unsigned_member(jwk, "n", pool) || !usual_exponent(jwk)) {
        return "a key's n or e is odd";
    }
    const size_t modulus_n = pool->n - modulus_at;
    const uint8_t first = pool->at[modulus_at], last = pool->at[pool->n - 1];
    if (modulus_n > TL_RSA_BYTES_MAX || modulus_n < TL_RSA_BYTES_MIN ||
        (modulus_n == TL_RSA_BYTES_MIN && first < 0x80) || (last & 1) == 0) {
        return "a key's n has a wrong size";
    }
    *key = (tl_grant_key){(uint16_t)kid_at, (uint16_t)modulus_at, (uint16_t)(modulus_at - kid_at),
                          (uint16_t)modulus_n};
    return NULL;
}

static const char *read_keys(tl_key_list *list, const tl_json *keys)
{
    tl_out pool = {list->pool, 0, sizeof list->pool, false};
    tl_json jwk;
    list->count = 0;
    for (tl_span rest = keys->text; tl_json_next_item(&rest, &jwk);) {
        if (list->count == TL_KEYS_MAX) {
            return "more than 4 keys";
        }
        tl_grant_key key;
        const char *reason = take_key(&jwk, &pool, &key);
        if (reason != NULL) {
            return reason;
        }
        if (tl_key_list_find(list, (tl_span){list->pool + key.kid_at, key.kid_n}) >= 0) {
            return "a kid stands twice";
        }
        list->key[list->count++] = key;
    }
    return list->count > 0 ? NULL : "no key";
}

static const char *verify_es256(const tl_jws *jws, const uint8_t root[TL_P256_POINT],
                                const tl_crypto *crypto)
{
    uint8_t room[TL_P256_SIGNATURE];
    tl_out signature = {room, 0, sizeof room, false};
    if (!tl_base64url_decode(jws->signature, &signature) || signature.n != TL_P256_SIGNATURE) {
        return "signature is not 64 bytes in base64url";
    }
    return crypto->p256_verify(root, jws->signed_part, room) ? NULL : "signature does not hold";
}

const char *tl_key_list_read(tl_key_list *list, tl_span text, const uint8_t root[TL_P256_POINT],
                             const tl_crypto *crypto, tl_out scratch)
{
    tl_jws jws;
    tl_json claims, keys;
    const char *reason = tl_jws_parse(text, "ES256", "keys+jwt", TL_KEY_LIST_TEXT_MAX, scratch, &jws);
    if (reason == NULL) {
        reason = verify_es256(&jws, root, crypto);
    }
    if (reason == NULL) {
        reason = tl_jws_payload(&jws, scratch, &claims);
    }
    if (reason != NULL) {
        return reason;
    }
    if (!tl_jws_whole(&claims, "n", &list->number) || !tl_jws_whole(&claims, "iat", &list->issued_at)) {
        return "n or iat is not a whole number";
    }
    if (!tl_json_member(&claims, "keys", &keys) || keys.kind != TL_JSON_LIST) {
        return "keys is not a list";
    }
    return read_keys(list, &keys);
}

int tl_key_list_find(const tl_key_list *list, tl_span kid)
{
    for (size_t i = 0; i < list->count; i++) {
        if (tl_same(tl_key_list_kid(list, i), kid)) {
            return (int)i;
        }
    }
    return -1;
}

tl_span tl_key_list_kid(const tl_key_list *list, size_t key)
{
    return (tl_span){list->pool + list->key[key].kid_at, list->key[key].kid_n};
}

tl_span tl_key_list_modulus(const tl_key_list *list, size_t key)
{
    return (tl_span){list->pool + list->key[key].modulus_at, list->key[key].modulus_n};
}

const char *tl_key_list_verify(const tl_key_list *list, const tl_jws *jws, const tl_crypto *crypto,
                               uint8_t *key)
{
    if (!jws->has_kid) {
        return "no kid";
    }
    const int found = tl_key_list_find(list, (tl_span){jws->kid, jws->kid_n});
    if (found < 0) {
        return "kid is not in the key list";
    }
    uint8_t room[TL_RSA_BYTES_MAX];
    tl_out signature = {room, 0, sizeof room, false};
    if (!tl_base64url_decode(jws->signature, &signature)) {
        return "signature is not canonical base64url";
    }
    *key = (uint8_t)found;
    const tl_span raw = {room, signature.n};
    const tl_span modulus = tl_key_list_modulus(list, (size_t)found);
    return crypto->rs256_verify(modulus, jws->signed_part, raw)
               ? NULL
               : "signature does not hold";
}
