/* Our PEM against OpenSSL's: what we write it reads and verifies, what it writes we read. */
#include <openssl/asn1.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>

#include "check.h"
#include "psa_crypto.h"
#include "towline/base64.h"
#include "towline/bytes.h"
#include "towline/pem.h"
#include "vectors.h"

static const tl_crypto *crypto;
static uint8_t key[TL_P256_PRIVATE], point[TL_P256_POINT];

typedef struct {
    uint8_t bytes[2048];
    size_t n;
} text;

static BIO *reading(const text *t)
{
    return BIO_new_mem_buf(t->bytes, (int)t->n);
}

static text taken(BIO *bio)
{
    text t;
    char *at;
    t.n = (size_t)BIO_get_mem_data(bio, &at);
    memcpy(t.bytes, at, t.n);
    BIO_free(bio);
    return t;
}

static text private_text(void)
{
    text t;
    tl_out out = {t.bytes, 0, sizeof t.bytes, false};
    tl_pem_put_private(&out, key, point);
    t.n = out.n;
    CHECK(!out.full && out.n <= TL_PEM_KEY_MAX);
    return t;
}

static EVP_PKEY *private_key(void)
{
    const text t = private_text();
    BIO *bio = reading(&t);
    EVP_PKEY *found = PEM_read_bio_PrivateKey(bio, NULL, NULL, NULL);
    BIO_free(bio);
    return found;
}

static bool has_point(EVP_PKEY *found, const uint8_t *wanted)
{
    unsigned char *octets = NULL;
    const size_t n = EVP_PKEY_get1_encoded_public_key(found, &octets);
    const bool same = n == TL_P256_POINT && memcmp(octets, wanted, n) == 0;
    OPENSSL_free(octets);
    return same;
}

static void a_private_key(void)
{
    EVP_PKEY *found = private_key();
    CHECK(found != NULL && has_point(found, point));
    EVP_PKEY_free(found);
    uint8_t little[100];
    tl_out out = {little, 0, sizeof little, false};
    tl_pem_put_private(&out, key, point);
    CHECK(out.full);
}

static bool request_holds(const uint8_t *private, const uint8_t *public)
{
    text t;
    tl_out out = {t.bytes, 0, TL_PEM_REQUEST_MAX, false};
    const bool made = tl_pem_put_request(&out, crypto, private, public);
    t.n = out.n;
    BIO *bio = reading(&t);
    X509_REQ *request = made ? PEM_read_bio_X509_REQ(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *found = request != NULL ? X509_REQ_get_pubkey(request) : NULL;
    const bool holds = found != NULL && has_point(found, public) && X509_REQ_verify(request, found) == 1;
    EVP_PKEY_free(found);
    X509_REQ_free(request);
    BIO_free(bio);
    return holds;
}

/* Many keys: r and s with leading zeros and first bits come up. */
static void requests(void)
{
    uint8_t private[TL_P256_PRIVATE], public[TL_P256_POINT];
    CHECK(request_holds(key, point));
    for (int i = 0; i < 40; i++) {
        CHECK(crypto->p256_new(private) && crypto->p256_public(private, public) && request_holds(private, public));
    }
    CHECK(!request_holds(private, point)); /* signed by another key */
    memset(private, 0, sizeof private);
    CHECK(!request_holds(private, point));
    uint8_t little[200];
    tl_out out = {little, 0, sizeof little, false};
    CHECK(!tl_pem_put_request(&out, crypto, key, point));
}

static void a_key_s_id(void)
{
    uint8_t id[TL_KEY_ID];
    tl_key_id(crypto, point, id);
    CHECK(memcmp(id, vector_auth_case.key_id.at, sizeof id) == 0);
}

static text public_text(EVP_PKEY *of)
{
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_PUBKEY(bio, of) == 1);
    return taken(bio);
}

static void public_keys(void)
{
    EVP_PKEY *ours = private_key(), *larger = EVP_EC_gen("P-384"), *rsa = EVP_RSA_gen(2048);
    uint8_t found[TL_P256_POINT];
    text t = public_text(ours);
    CHECK(tl_pem_read_public((tl_span){t.bytes, t.n}, found) && memcmp(found, point, sizeof point) == 0);
    for (size_t n = 0; n < t.n - 1; n++) { /* the last line's end may be missing */
        CHECK(!tl_pem_read_public((tl_span){t.bytes, n}, found));
    }
    size_t differ = 0;
    for (size_t i = 0; i < t.n - 1; i++) {
        const uint8_t before = t.bytes[i];
        t.bytes[i] = before == 'A' ? 'B' : 'A';
        differ += !tl_pem_read_public((tl_span){t.bytes, t.n}, found) || memcmp(found, point, sizeof point) != 0;
        t.bytes[i] = '_';
        CHECK(!tl_pem_read_public((tl_span){t.bytes, t.n}, found));
        t.bytes[i] = before;
    }
    CHECK(differ == t.n - 1);
    t = public_text(larger);
    CHECK(!tl_pem_read_public((tl_span){t.bytes, t.n}, found));
    t = public_text(rsa);
    CHECK(!tl_pem_read_public((tl_span){t.bytes, t.n}, found));
    t = private_text();
    CHECK(!tl_pem_read_public((tl_span){t.bytes, t.n}, found));
    EVP_PKEY_free(ours);
    EVP_PKEY_free(larger);
    EVP_PKEY_free(rsa);
}

/* --- certificates --- */

static text certificate(EVP_PKEY *of, const char *from, const char *until)
{
    X509 *x = X509_new();
    ASN1_TIME *time = ASN1_TIME_new();
    X509_set_version(x, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 0x7fffffff);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_ASC, (const unsigned char *)"d_x", -1, -1, 0);
    X509_set_issuer_name(x, X509_get_subject_name(x));
    CHECK(ASN1_TIME_set_string_X509(time, from) == 1 && X509_set1_notBefore(x, time) == 1);
    CHECK(ASN1_TIME_set_string_X509(time, until) == 1 && X509_set1_notAfter(x, time) == 1);
    X509_set_pubkey(x, of);
    CHECK(X509_sign(x, of, EVP_sha256()) > 0);
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_X509(bio, x) == 1);
    ASN1_TIME_free(time);
    X509_free(x);
    return taken(bio);
}

static const char *read_it(const text *t, size_t n, tl_validity *validity)
{
    uint8_t *exact = malloc(n + 1), scratch[1536];
    memcpy(exact, t->bytes, n);
    const char *reason =
        tl_pem_read_certificate((tl_span){exact, n}, point, (tl_out){scratch, 0, sizeof scratch, false}, validity);
    free(exact);
    return reason;
}

static const struct {
    const char *from, *until;
    int64_t from_s, until_s;
} TIMES[] = {
    {"19700101000000Z", "19991231235959Z", 0, 946684799},
    {"20000228235959Z", "20000301000000Z", 951782399, 951868800},
    {"20261122013000Z", "20270220013000Z", 1795311000, 1803087000},
    {"20491231235959Z", "20500101000000Z", 2524607999, 2524608000}, /* two digits, four digits */
    {"20240229120000Z", "99991231235959Z", 1709208000, 253402300799},
    {"21000228000000Z", "21000301000000Z", 4107456000, 4107542400}, /* no leap year */
};

static void certificates(void)
{
    EVP_PKEY *ours = private_key(), *other = EVP_EC_gen("P-256"), *rsa = EVP_RSA_gen(2048);
    tl_validity validity;
    for (size_t i = 0; i < sizeof TIMES / sizeof *TIMES; i++) {
        const text t = certificate(ours, TIMES[i].from, TIMES[i].until);
        CHECK_NAMED(read_it(&t, t.n, &validity) == NULL, TIMES[i].from);
        CHECK_NAMED(validity.from_s == TIMES[i].from_s && validity.until_s == TIMES[i].until_s, TIMES[i].from);
    }
    text t = certificate(other, TIMES[2].from, TIMES[2].until);
    CHECK(read_it(&t, t.n, &validity) != NULL);
    t = certificate(rsa, TIMES[2].from, TIMES[2].until);
    CHECK(read_it(&t, t.n, &validity) != NULL);
    t = public_text(ours);
    CHECK(read_it(&t, t.n, &validity) != NULL);
    t = certificate(ours, TIMES[2].from, TIMES[2].until);
    for (size_t n = 0; n < t.n - 1; n++) {
        CHECK(read_it(&t, n, &validity) != NULL);
    }
    for (size_t i = 0; i < 3 * t.n; i++) { /* whatever stands there: an answer, and no byte read beyond it */
        const uint8_t before = t.bytes[i / 3];
        t.bytes[i / 3] = (uint8_t)"A/x"[i % 3];
        (void)read_it(&t, t.n, &validity);
        t.bytes[i / 3] = before;
    }
    t.n += (size_t)snprintf((char *)t.bytes + t.n, 10, "more"); /* a chain's other certificates */
    CHECK(read_it(&t, t.n, &validity) == NULL);
    EVP_PKEY_free(ours);
    EVP_PKEY_free(other);
    EVP_PKEY_free(rsa);
}

/* A certificate that is cut anywhere inside, in memory of its exact size. */
static void cut_certificates(void)
{
    EVP_PKEY *ours = private_key();
    const text whole = certificate(ours, TIMES[2].from, TIMES[2].until);
    BIO *bio = reading(&whole);
    X509 *x = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    unsigned char *der = NULL;
    const int n = i2d_X509(x, &der);
    tl_validity validity;
    unsigned fine = 0;
    for (int cut = 1; cut <= n; cut++) {
        text t;
        tl_out out = {t.bytes, 0, sizeof t.bytes, false};
        tl_put_text(&out, "-----BEGIN CERTIFICATE-----\n");
        tl_put_base64(&out, (tl_span){der, (size_t)cut});
        tl_put_text(&out, "\n-----END CERTIFICATE-----\n");
        const size_t room = ((size_t)cut * 4 + 2) / 3; /* the letters stand there before they are decoded */
        uint8_t *exact = malloc(room);
        const char *reason = tl_pem_read_certificate((tl_span){t.bytes, out.n}, point, (tl_out){exact, 0, room, false}, &validity);
        fine += reason == NULL;
        free(exact);
    }
    CHECK(fine > 0 && fine < 200); /* whole but for what follows the key */
    OPENSSL_free(der);
    X509_free(x);
    BIO_free(bio);
    EVP_PKEY_free(ours);
}

static void too_little_room(void)
{
    uint8_t scratch[300];
    EVP_PKEY *ours = private_key();
    tl_validity validity;
    const text t = certificate(ours, TIMES[2].from, TIMES[2].until);
    const tl_out room = {scratch, 0, sizeof scratch, false};
    CHECK(tl_pem_read_certificate((tl_span){t.bytes, t.n}, point, room, &validity) != NULL);
    EVP_PKEY_free(ours);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(a_private_key), CHECK_TEST(requests),     CHECK_TEST(a_key_s_id),
        CHECK_TEST(public_keys),   CHECK_TEST(certificates), CHECK_TEST(cut_certificates),
        CHECK_TEST(too_little_room),
    };
    crypto = tl_psa_crypto();
    if (crypto == NULL || !crypto->p256_public(vector_auth_case.private_scalar.at, point)) {
        return 1;
    }
    memcpy(key, vector_auth_case.private_scalar.at, sizeof key);
    return CHECK_ALL(tests);
}
