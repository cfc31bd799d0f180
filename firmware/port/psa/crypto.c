#include <psa/crypto.h>
#include <stdlib.h>
#include <string.h>

#include "psa_crypto.h"

#define P256_BITS 256
/* Deterministic (RFC 6979): a weak random number must not give the device's key away. */
#define SIGNING PSA_ALG_DETERMINISTIC_ECDSA(PSA_ALG_SHA_256)
#define P256_VERIFYING PSA_ALG_ECDSA(PSA_ALG_SHA_256)
#define RS256_VERIFYING PSA_ALG_RSA_PKCS1V15_SIGN(PSA_ALG_SHA_256)

_Static_assert(sizeof(psa_hash_operation_t) <= sizeof(tl_sha256), "TL_SHA256_ROOM");

static void must(psa_status_t status)
{
    if (status != PSA_SUCCESS) {
        abort();
    }
}

/* --- random numbers and digests --- */

static void fill_random(uint8_t *to, size_t n)
{
    must(psa_generate_random(to, n));
}

static void digest_begin(tl_sha256 *state)
{
    const psa_hash_operation_t fresh = PSA_HASH_OPERATION_INIT;
    memcpy(state->room, &fresh, sizeof fresh);
    must(psa_hash_setup((psa_hash_operation_t *)(void *)state->room, PSA_ALG_SHA_256));
}

static void digest_add(tl_sha256 *state, tl_span part)
{
    if (part.n > 0) { /* PSA may be given no NULL */
        must(psa_hash_update((psa_hash_operation_t *)(void *)state->room, part.at, part.n));
    }
}

static void digest_end(tl_sha256 *state, uint8_t digest[TL_SHA256])
{
    size_t n;
    must(psa_hash_finish((psa_hash_operation_t *)(void *)state->room, digest, TL_SHA256, &n));
}

static void digest_of(tl_span message, uint8_t digest[TL_SHA256])
{
    tl_sha256 state;
    digest_begin(&state);
    digest_add(&state, message);
    digest_end(&state, digest);
}

/* --- keys: each is imported for one operation, so that nothing is left in PSA's few slots --- */

static psa_key_attributes_t key_for(psa_key_type_t type, psa_key_usage_t usage, psa_algorithm_t algorithm)
{
    psa_key_attributes_t attributes = PSA_KEY_ATTRIBUTES_INIT;
    psa_set_key_type(&attributes, type);
    psa_set_key_usage_flags(&attributes, usage);
    psa_set_key_algorithm(&attributes, algorithm);
    return attributes;
}

static psa_key_attributes_t signing_key(psa_key_usage_t usage)
{
    psa_key_attributes_t attributes =
        key_for(PSA_KEY_TYPE_ECC_KEY_PAIR(PSA_ECC_FAMILY_SECP_R1), usage, SIGNING);
    psa_set_key_bits(&attributes, P256_BITS);
    return attributes;
}

static bool p256_new(uint8_t key[TL_P256_PRIVATE])
{
    const psa_key_attributes_t attributes = signing_key(PSA_KEY_USAGE_EXPORT);
    psa_key_id_t id;
    size_t n = 0;
    if (psa_generate_key(&attributes, &id) != PSA_SUCCESS) {
        return false;
    }
    const psa_status_t status = psa_export_key(id, key, TL_P256_PRIVATE, &n);
    (void)psa_destroy_key(id);
    return status == PSA_SUCCESS && n == TL_P256_PRIVATE;
}

static bool p256_public(const uint8_t key[TL_P256_PRIVATE], uint8_t point[TL_P256_POINT])
{
    const psa_key_attributes_t attributes = signing_key(PSA_KEY_USAGE_SIGN_MESSAGE);
    psa_key_id_t id;
    size_t n = 0;
    if (psa_import_key(&attributes, key, TL_P256_PRIVATE, &id) != PSA_SUCCESS) {
        return false;
    }
    const psa_status_t status = psa_export_public_key(id, point, TL_P256_POINT, &n);
    (void)psa_destroy_key(id);
    return status == PSA_SUCCESS && n == TL_P256_POINT;
}

static bool p256_sign(const uint8_t key[TL_P256_PRIVATE], tl_span message, uint8_t signature[TL_P256_SIGNATURE])
{
    const psa_key_attributes_t attributes = signing_key(PSA_KEY_USAGE_SIGN_MESSAGE);
    psa_key_id_t id;
    size_t n = 0;
    if (psa_import_key(&attributes, key, TL_P256_PRIVATE, &id) != PSA_SUCCESS) {
        return false;
    }
    const psa_status_t status =
        psa_sign_message(id, SIGNING, message.at, message.n, signature, TL_P256_SIGNATURE, &n);
    (void)psa_destroy_key(id);
    return status == PSA_SUCCESS && n == TL_P256_SIGNATURE;
}

/* Whether the signature holds under the public key in PSA's form of that type. */
static bool verified(const psa_key_attributes_t *attributes, tl_span key, tl_span message, tl_span signature)
{
    const psa_algorithm_t algorithm = psa_get_key_algorithm(attributes);
    psa_key_id_t id;
    if (psa_import_key(attributes, key.at, key.n, &id) != PSA_SUCCESS) {
        return false;
    }
    const psa_status_t status =
        psa_verify_message(id, algorithm, message.at, message.n, signature.at, signature.n);
    (void)psa_destroy_key(id);
    return status == PSA_SUCCESS;
}

static bool p256_verify(const uint8_t point[TL_P256_POINT], tl_span message,
                        const uint8_t signature[TL_P256_SIGNATURE])
{
    const psa_key_attributes_t attributes = key_for(PSA_KEY_TYPE_ECC_PUBLIC_KEY(PSA_ECC_FAMILY_SECP_R1),
                                                    PSA_KEY_USAGE_VERIFY_MESSAGE, P256_VERIFYING);
    return verified(&attributes, (tl_span){point, TL_P256_POINT}, message,
                    (tl_span){signature, TL_P256_SIGNATURE});
}

/* --- RSA: PSA takes RSAPublicKey in DER (RFC 8017, A.1.1) --- */

static const uint8_t EXPONENT[] = {0x02, 0x03, 0x01, 0x00, 0x01};

/* SEQUENCE and INTEGER with lengths of two bytes, and the zero that keeps a number positive. */
#define RSA_KEY_MAX (4u + 5u + TL_RSA_BYTES_MAX + sizeof EXPONENT)

static size_t put_header(uint8_t *to, uint8_t tag, size_t n)
{
    to[0] = tag;
    to[1] = 0x82;
    to[2] = (uint8_t)(n >> 8);
    to[3] = (uint8_t)n;
    return 4;
}

static size_t put_rsa_key(uint8_t *der, tl_span modulus)
{
    const size_t number = modulus.n + 1;
    size_t n = put_header(der, 0x30, 4 + number + sizeof EXPONENT);
    n += put_header(der + n, 0x02, number);
    der[n++] = 0; /* a modulus fills its bytes: its first bit is set, see below */
    memcpy(der + n, modulus.at, modulus.n);
    n += modulus.n;
    memcpy(der + n, EXPONENT, sizeof EXPONENT);
    return n + sizeof EXPONENT;
}

static bool rs256_verify(tl_span modulus, tl_span message, tl_span signature)
{
    uint8_t der[RSA_KEY_MAX];
    if (modulus.n == 0 || modulus.n > TL_RSA_BYTES_MAX) { /* of a listed key: which are large enough is asked there */
        return false;
    }
    const psa_key_attributes_t attributes =
        key_for(PSA_KEY_TYPE_RSA_PUBLIC_KEY, PSA_KEY_USAGE_VERIFY_MESSAGE, RS256_VERIFYING);
    return verified(&attributes, (tl_span){der, put_rsa_key(der, modulus)}, message, signature);
}

const tl_crypto *tl_psa_crypto(void)
{
    static const tl_crypto GROUP = {
        .random = fill_random,
        .sha256 = digest_of,
        .sha256_begin = digest_begin,
        .sha256_add = digest_add,
        .sha256_end = digest_end,
        .p256_new = p256_new,
        .p256_public = p256_public,
        .p256_sign = p256_sign,
        .p256_verify = p256_verify,
        .rs256_verify = rs256_verify,
    };
    return psa_crypto_init() == PSA_SUCCESS ? &GROUP : NULL;
}
