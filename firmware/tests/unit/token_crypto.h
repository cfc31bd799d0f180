/* The port's cryptography for tests on the host, by OpenSSL. */
#ifndef TOWLINE_TOKEN_CRYPTO_H
#define TOWLINE_TOKEN_CRYPTO_H

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <stdlib.h>

#include "towline/jws.h"

static unsigned verified; /* signatures looked at */

static inline void host_sha256(tl_span message, uint8_t digest[TL_SHA256])
{
    if (EVP_Digest(message.at, message.n, digest, NULL, EVP_sha256(), NULL) != 1) {
        abort();
    }
}

static inline EVP_PKEY *public_key(const char *type, OSSL_PARAM_BLD *build)
{
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    EVP_PKEY *key = NULL;
    if (EVP_PKEY_fromdata_init(context) != 1 ||
        EVP_PKEY_fromdata(context, &key, EVP_PKEY_PUBLIC_KEY, params) != 1) {
        key = NULL;
    }
    EVP_PKEY_CTX_free(context);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    return key;
}

static inline bool verify_by(EVP_PKEY *key, tl_span message, const uint8_t *signature, size_t n)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    const bool holds = key != NULL && EVP_DigestVerifyInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
                       EVP_DigestVerify(context, signature, n, message.at, message.n) == 1;
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    verified++;
    return holds;
}

static inline bool host_p256_verify(const uint8_t point[TL_P256_POINT], tl_span message,
                                    const uint8_t signature[TL_P256_SIGNATURE])
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME, "prime256v1", 0);
    OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, TL_P256_POINT);
    ECDSA_SIG *pair = ECDSA_SIG_new();
    ECDSA_SIG_set0(pair, BN_bin2bn(signature, 32, NULL), BN_bin2bn(signature + 32, 32, NULL));
    uint8_t *der = NULL;
    const int n = i2d_ECDSA_SIG(pair, &der);
    const bool holds = n > 0 && verify_by(public_key("EC", build), message, der, (size_t)n);
    ECDSA_SIG_free(pair);
    OPENSSL_free(der);
    return holds;
}

static inline bool host_rs256_verify(tl_span modulus, tl_span message, tl_span signature)
{
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    BIGNUM *n = BN_bin2bn(modulus.at, (int)modulus.n, NULL), *e = BN_new();
    BN_set_word(e, 65537);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n);
    OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e);
    const bool holds = verify_by(public_key("RSA", build), message, signature.at, signature.n);
    BN_free(n);
    BN_free(e);
    return holds;
}

static const tl_crypto HOST_CRYPTO = {.sha256 = host_sha256, .p256_verify = host_p256_verify, .rs256_verify = host_rs256_verify};

#endif
