/* The cryptography that the core asks of its port: the port header's crypto group. One file serves both ports
 * (port/psa/crypto.c).
 *
 * Everything is verified or refused: false also stands for "no memory". What cannot fail (a digest, randomness)
 * ends the program where it does, since nothing that follows would be safe.
 */
#ifndef TOWLINE_CRYPTO_H
#define TOWLINE_CRYPTO_H

#include "towline/span.h"

#define TL_SHA256 32u
#define TL_P256_PRIVATE 32u
#define TL_P256_POINT 65u     /* uncompressed: 4, x, y */
#define TL_P256_SIGNATURE 64u /* r, s */
#define TL_RSA_BYTES_MAX 512u /* a modulus of 4096 bits: a larger one only makes every verification slow */
#define TL_SHA256_ROOM 256u   /* what a port keeps of a digest under way; port/psa/crypto.c asserts that it fits */

/* A digest under way; the caller's memory. Each begin needs its end. */
typedef struct {
    uint64_t room[TL_SHA256_ROOM / sizeof(uint64_t)];
} tl_sha256;

typedef struct tl_crypto {
    void (*random)(uint8_t *to, size_t n);
    void (*sha256)(tl_span message, uint8_t digest[TL_SHA256]);
    void (*sha256_begin)(tl_sha256 *);
    void (*sha256_add)(tl_sha256 *, tl_span part);
    void (*sha256_end)(tl_sha256 *, uint8_t digest[TL_SHA256]);
    /* A key is its private number, big endian. */
    bool (*p256_new)(uint8_t key[TL_P256_PRIVATE]);
    bool (*p256_public)(const uint8_t key[TL_P256_PRIVATE], uint8_t point[TL_P256_POINT]);
    /* ECDSA with SHA-256 over the message. */
    bool (*p256_sign)(const uint8_t key[TL_P256_PRIVATE], tl_span message, uint8_t signature[TL_P256_SIGNATURE]);
    bool (*p256_verify)(const uint8_t point[TL_P256_POINT], tl_span message,
                        const uint8_t signature[TL_P256_SIGNATURE]);
    /* PKCS#1 v1.5 with SHA-256 (RFC 8017, section 8.2); the exponent is 65537; `modulus` is big endian without
     * leading zeros. A signature whose length is not the modulus' is refused. */
    bool (*rs256_verify)(tl_span modulus, tl_span message, tl_span signature);
} tl_crypto;

#endif
