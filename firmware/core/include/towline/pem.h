/* Keys, requests and certificates as the gateway writes and reads them: PEM (RFC 7468) around a little DER (X.690).
 *
 * All keys are P-256, whose structures have one length and fixed bytes around the numbers; so nothing here parses
 * keys. Of a certificate two things are read: whose key it is for, and from when to when it holds.
 */
#ifndef TOWLINE_PEM_H
#define TOWLINE_PEM_H

#include "towline/crypto.h"

#define TL_PEM_KEY_MAX 260u     /* "PRIVATE KEY": 241 */
#define TL_PEM_REQUEST_MAX 400u /* "CERTIFICATE REQUEST": 357 */
#define TL_KEY_ID 16u

/* The first 16 bytes of SHA-256 over the SubjectPublicKeyInfo (tunnel protocol, section 4). */
void tl_key_id(const tl_crypto *, const uint8_t point[TL_P256_POINT], uint8_t id[TL_KEY_ID]);
/* "PUBLIC KEY"; false for anything but a P-256 key. Whether the point is on the curve shows at its first use. */
bool tl_pem_read_public(tl_span pem, uint8_t point[TL_P256_POINT]);
/* "PRIVATE KEY" (RFC 5958, without encryption). */
void tl_pem_put_private(tl_out *out, const uint8_t key[TL_P256_PRIVATE], const uint8_t point[TL_P256_POINT]);
/* "CERTIFICATE REQUEST" (RFC 2986) for the key, signed by it; the gateway sets the subject itself. */
bool tl_pem_put_request(tl_out *out, const tl_crypto *, const uint8_t key[TL_P256_PRIVATE],
                        const uint8_t point[TL_P256_POINT]);

typedef struct {
    int64_t from_s, until_s; /* Unix seconds */
} tl_validity;

/* The first "CERTIFICATE" of `pem`, which must be for the key. NULL, or why not. `scratch`: three quarters of the
 * text's length. */
const char *tl_pem_read_certificate(tl_span pem, const uint8_t point[TL_P256_POINT], tl_out scratch,
                                    tl_validity *validity);

#endif
