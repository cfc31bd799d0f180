/* Cryptography for tests of tokens, which counts the RSA signatures that it looks at: the port's own on this machine.
 * The target has no library for it: there the vectors say which signatures hold.
 */
#ifndef TOWLINE_TOKEN_CRYPTO_H
#define TOWLINE_TOKEN_CRYPTO_H

#include "towline/crypto.h"

static unsigned verified;

#ifdef TOWLINE_RV32

#include <string.h>

#include "towline/base64.h"
#include "towline/bytes.h"
#include "vectors.h"

/* Good enough to tell texts from each other, which is all that a digest is for here. */
static inline void told_sha256(tl_span message, uint8_t digest[TL_SHA256])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < message.n; i++) {
        hash = (hash ^ message.at[i]) * UINT64_C(0x100000001b3);
    }
    memset(digest, 0, TL_SHA256);
    memcpy(digest, &hash, sizeof hash);
}

static inline bool is_token(tl_span token, tl_span message, tl_span signature)
{
    uint8_t room[4 * TL_RSA_BYTES_MAX / 3 + 4];
    tl_out text = {room, 0, sizeof room, false};
    tl_put_base64url(&text, signature);
    return token.n == message.n + 1 + text.n && memcmp(token.at, message.at, message.n) == 0 &&
           memcmp(token.at + message.n + 1, room, text.n) == 0;
}

static inline bool told_p256(const uint8_t point[TL_P256_POINT], tl_span message,
                             const uint8_t signature[TL_P256_SIGNATURE])
{
    const tl_span raw = {signature, TL_P256_SIGNATURE};
    const bool first = memcmp(point, vector_grants_case.root.at, TL_P256_POINT) == 0;
    for (size_t i = 0; first && i < vector_key_lists_count; i++) {
        if (is_token(vector_key_lists[i].text, message, raw)) {
            return true;
        }
    }
    for (size_t i = 0; !first && i < vector_bad_lists_count; i++) {
        if (vector_bad_lists[i].has_signature && is_token(vector_bad_lists[i].text, message, raw)) {
            return true;
        }
    }
    return false;
}

static inline bool told_rs256(tl_span modulus, tl_span message, tl_span signature)
{
    (void)modulus;
    verified++;
    for (size_t i = 0; i < vector_tokens_count; i++) {
        if (vector_tokens[i].has_signature && is_token(vector_tokens[i].token, message, signature)) {
            return true;
        }
    }
    return false;
}

static inline const tl_crypto *counting_crypto(void)
{
    static const tl_crypto told = {.sha256 = told_sha256, .p256_verify = told_p256, .rs256_verify = told_rs256};
    return &told;
}

#else

#include "psa_crypto.h"

static const tl_crypto *real_crypto;

static inline bool counted_rs256(tl_span modulus, tl_span message, tl_span signature)
{
    verified++;
    return real_crypto->rs256_verify(modulus, message, signature);
}

static inline const tl_crypto *counting_crypto(void)
{
    static tl_crypto counting;
    real_crypto = tl_psa_crypto();
    if (real_crypto == NULL) {
        return NULL;
    }
    counting = *real_crypto;
    counting.rs256_verify = counted_rs256;
    return &counting;
}

#endif

#endif
