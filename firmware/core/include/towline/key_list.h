/* The gateway's grant keys as a device may trust them: a numbered list, signed by the device root that it
 * pinned at enrolment. It comes through a tunnel server, which is not trusted: only the root's signature and
 * the rising number count.
 */
#ifndef TOWLINE_KEY_LIST_H
#define TOWLINE_KEY_LIST_H

#include "towline/jws.h"

#define TL_KEYS_MAX 4u /* a rotation holds two or three */
#define TL_RSA_BYTES_MIN 256u
/* Moduli and kids of all keys: a list's text has 2,040 bytes, so its base64url payload holds less than this. */
#define TL_KEY_POOL 1280u

typedef struct {
    uint16_t kid_at, modulus_at; /* in the pool */
    uint16_t kid_n, modulus_n;
} tl_grant_key;

typedef struct {
    int64_t number;
    int64_t issued_at; /* Unix seconds; a lower bound of the true time, since the root signed it */
    uint8_t count; /* 0: no list yet */
    tl_grant_key key[TL_KEYS_MAX];
    uint8_t pool[TL_KEY_POOL];
} tl_key_list;

/* Checks the root's signature and every key, and fills `list`, which must not be one in force: a refused list
 * leaves it half filled. Whether the number rises is the caller's to ask. `scratch`: ≥ TL_TOKEN_SCRATCH bytes. */
const char *tl_key_list_read(tl_key_list *list, tl_span text, const uint8_t root[TL_P256_POINT],
                             const tl_crypto *crypto, tl_out scratch);

/* The key of this kid, or -1. */
int tl_key_list_find(const tl_key_list *list, tl_span kid);
tl_span tl_key_list_kid(const tl_key_list *list, size_t key);
tl_span tl_key_list_modulus(const tl_key_list *list, size_t key);
/* Checks the token's RS256 signature by the key that its kid names; which one is told in `key`. */
const char *tl_key_list_verify(const tl_key_list *list, const tl_jws *jws, const tl_crypto *crypto,
                               uint8_t *key);

#endif
