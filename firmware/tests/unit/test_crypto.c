/* The crypto group against published values: FIPS 180-4's examples, RFC 6979 A.2.5, RFC 7515 A.2 and A.3, and the
 * handshake's own vector. */
#include <stdlib.h>

#include "check.h"
#include "psa_crypto.h"
#include "towline/bytes.h"
#include "vectors.h"

static const tl_crypto *crypto;

static uint8_t nibble(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void unhex(const char *text, uint8_t *to)
{
    for (size_t i = 0; text[i] != 0; i += 2) {
        to[i / 2] = (uint8_t)(nibble(text[i]) << 4 | nibble(text[i + 1]));
    }
}

static bool is_hex(const uint8_t *bytes, size_t n, const char *wanted)
{
    uint8_t raw[128];
    unhex(wanted, raw);
    return strlen(wanted) == 2 * n && memcmp(raw, bytes, n) == 0;
}

/* --- SHA-256 --- */

static const struct {
    const char *text, *digest;
} DIGESTS[] = {
    {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
    {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
    {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
     "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
};

static void digests(void)
{
    uint8_t digest[TL_SHA256];
    for (size_t i = 0; i < sizeof DIGESTS / sizeof *DIGESTS; i++) {
        crypto->sha256(tl_text(DIGESTS[i].text), digest);
        CHECK_NAMED(is_hex(digest, sizeof digest, DIGESTS[i].digest), DIGESTS[i].text);
        for (size_t cut = 0; cut <= strlen(DIGESTS[i].text); cut++) {
            tl_sha256 state;
            tl_span rest = tl_text(DIGESTS[i].text);
            crypto->sha256_begin(&state);
            crypto->sha256_add(&state, tl_take(&rest, cut));
            crypto->sha256_add(&state, rest);
            crypto->sha256_end(&state, digest);
            CHECK_NAMED(is_hex(digest, sizeof digest, DIGESTS[i].digest), DIGESTS[i].text);
        }
    }
    crypto->sha256((tl_span){NULL, 0}, digest);
    CHECK(is_hex(digest, sizeof digest, DIGESTS[0].digest));
}

static void a_million_letters_beside_another_digest(void)
{
    uint8_t digest[TL_SHA256], part[1000];
    tl_sha256 state, other;
    memset(part, 'a', sizeof part);
    crypto->sha256_begin(&state);
    crypto->sha256_begin(&other);
    for (int i = 0; i < 1000; i++) {
        crypto->sha256_add(&state, (tl_span){part, sizeof part});
    }
    crypto->sha256_add(&other, tl_text("abc"));
    crypto->sha256_end(&other, digest);
    CHECK(is_hex(digest, sizeof digest, DIGESTS[1].digest));
    crypto->sha256_end(&state, digest);
    CHECK(is_hex(digest, sizeof digest, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"));
}

/* --- P-256 --- */

#define RFC6979_KEY "c9afa9d845ba75166b5c215767b1d6934e50c3db36e89b127b8a622b120f6721"
#define RFC6979_POINT                                                  \
    "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6" \
    "7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299"

static const struct {
    const char *message, *signature;
} SIGNED[] = {
    {"sample", "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716"
               "f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8"},
    {"test", "f1abb023518351cd71d881567b1ea663ed3efcf6c5132b354f28d3b0b7d38367"
             "019f4113742a2b14bd25926b49c649155f267e60d3814b4c0cc84250e46f0083"},
};

static void signatures_of_the_rfc(void)
{
    uint8_t key[TL_P256_PRIVATE], point[TL_P256_POINT], signature[TL_P256_SIGNATURE];
    unhex(RFC6979_KEY, key);
    CHECK(crypto->p256_public(key, point) && is_hex(point, sizeof point, RFC6979_POINT));
    for (size_t i = 0; i < 2; i++) {
        const tl_span message = tl_text(SIGNED[i].message);
        CHECK(crypto->p256_sign(key, message, signature));
        CHECK_NAMED(is_hex(signature, sizeof signature, SIGNED[i].signature), SIGNED[i].message);
        CHECK(crypto->p256_verify(point, message, signature));
        CHECK(!crypto->p256_verify(point, tl_text(SIGNED[1 - i].message), signature));
    }
    CHECK(crypto->p256_sign(key, (tl_span){key, 0}, signature) &&
          crypto->p256_verify(point, (tl_span){key, 0}, signature));
}

static void every_bit_of_a_signature_counts(void)
{
    uint8_t point[TL_P256_POINT], signature[TL_P256_SIGNATURE];
    unhex(RFC6979_POINT, point);
    unhex(SIGNED[0].signature, signature);
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 0x10;
        CHECK(!crypto->p256_verify(point, tl_text("sample"), signature));
        signature[i] ^= 0x10;
    }
    for (size_t i = 0; i < sizeof point; i += 9) { /* not on the curve, or another's */
        point[i] ^= 2;
        CHECK(!crypto->p256_verify(point, tl_text("sample"), signature));
        point[i] ^= 2;
    }
    memset(signature, 0, sizeof signature);
    CHECK(!crypto->p256_verify(point, tl_text("sample"), signature));
}

static void numbers_that_are_no_key(void)
{
    static const char order[] = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";
    uint8_t key[TL_P256_PRIVATE] = {0}, point[TL_P256_POINT], signature[TL_P256_SIGNATURE];
    CHECK(!crypto->p256_public(key, point) && !crypto->p256_sign(key, tl_text("x"), signature));
    unhex(order, key);
    CHECK(!crypto->p256_public(key, point) && !crypto->p256_sign(key, tl_text("x"), signature));
    memset(point, 0, sizeof point);
    CHECK(!crypto->p256_verify(point, tl_text("x"), signature));
}

static void new_keys_differ_and_sign(void)
{
    uint8_t key[2][TL_P256_PRIVATE], point[TL_P256_POINT], signature[TL_P256_SIGNATURE];
    for (size_t i = 0; i < 2; i++) {
        CHECK(crypto->p256_new(key[i]) && crypto->p256_public(key[i], point));
        CHECK(crypto->p256_sign(key[i], tl_text("hello"), signature));
        CHECK(crypto->p256_verify(point, tl_text("hello"), signature));
    }
    CHECK(memcmp(key[0], key[1], sizeof *key) != 0);
    for (int i = 0; i < 100; i++) { /* nothing stays behind in the library's few places for keys */
        CHECK(crypto->p256_public(key[0], point));
    }
}

static void the_handshake_s_vector(void)
{
    const vector_auth *v = &vector_auth_case;
    uint8_t point[TL_P256_POINT], signature[TL_P256_SIGNATURE];
    CHECK(v->private_scalar.n == TL_P256_PRIVATE && v->signature.n == TL_P256_SIGNATURE);
    CHECK(crypto->p256_public(v->private_scalar.at, point));
    CHECK(memcmp(v->public_key_spki.at + v->public_key_spki.n - sizeof point, point, sizeof point) == 0);
    CHECK(crypto->p256_sign(v->private_scalar.at, v->transcript, signature));
    CHECK(memcmp(signature, v->signature.at, sizeof signature) == 0);
    CHECK(v->must_not_verify_count == 4);
    for (size_t i = 0; i < v->must_not_verify_count; i++) {
        const vector_wrong_transcript *wrong = &v->must_not_verify[i];
        CHECK_NAMED(!crypto->p256_verify(point, wrong->transcript, v->signature.at), wrong->name);
    }
}

/* --- RFC 7515 --- */

#define PAYLOAD "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
static const char MODULUS[] =
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2l"
    "ZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa"
    "2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAc"
    "DTW9gb54h4FRWyuXpoQ";
static const char RSA_SIGNATURE[] =
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
    "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
    "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
    "cN_IoypGlUPQGe77Rw";
#define RSA_BYTES 256u

static tl_span decoded(const char *text, uint8_t *room, size_t cap)
{
    tl_out out = {room, 0, cap, false};
    CHECK(tl_base64url_decode(tl_text(text), &out));
    return (tl_span){room, out.n};
}

static void rs256(void)
{
    uint8_t modulus_room[RSA_BYTES], room[RSA_BYTES + 1];
    const tl_span message = tl_text("eyJhbGciOiJSUzI1NiJ9." PAYLOAD);
    const tl_span modulus = decoded(MODULUS, modulus_room, sizeof modulus_room);
    const tl_span signature = decoded(RSA_SIGNATURE, room, sizeof room);
    CHECK(modulus.n == RSA_BYTES && signature.n == RSA_BYTES);
    CHECK(crypto->rs256_verify(modulus, message, signature));
    CHECK(!crypto->rs256_verify(modulus, tl_text("eyJhbGciOiJSUzI1NiJ9." PAYLOAD "x"), signature));
    CHECK(!crypto->rs256_verify(modulus, (tl_span){message.at, 0}, signature));
    for (size_t i = 0; i < RSA_BYTES; i += 5) {
        room[i] ^= 1;
        CHECK(!crypto->rs256_verify(modulus, message, signature));
        room[i] ^= 1;
    }
    for (size_t n = 0; n <= RSA_BYTES + 1; n++) {
        const bool holds = crypto->rs256_verify(modulus, message, (tl_span){room, n});
        CHECK(holds == (n == RSA_BYTES));
    }
}

static void moduli_of_other_sizes(void)
{
    uint8_t modulus[TL_RSA_BYTES_MAX + 1], signature[TL_RSA_BYTES_MAX + 1];
    static const size_t sizes[] = {0, 1, 128, 255, 256, 257, 384, 512, 513};
    memset(modulus, 0xff, sizeof modulus);
    memset(signature, 0x01, sizeof signature);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const tl_span number = {modulus, sizes[i]};
        CHECK(!crypto->rs256_verify(number, tl_text("x"), (tl_span){signature, sizes[i]}));
    }
    modulus[0] = 0x0f; /* whose first bits are not set */
    CHECK(!crypto->rs256_verify((tl_span){modulus, 300}, tl_text("x"), (tl_span){signature, 300}));
}

static void es256(void)
{
    uint8_t point[TL_P256_POINT] = {4}, room[TL_P256_SIGNATURE];
    (void)decoded("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", point + 1, 32);
    (void)decoded("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", point + 33, 32);
    (void)decoded("DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q", room,
                  sizeof room);
    CHECK(crypto->p256_verify(point, tl_text("eyJhbGciOiJFUzI1NiJ9." PAYLOAD), room));
}

static void random_numbers(void)
{
    uint8_t one[32] = {0}, other[32] = {0};
    crypto->random(one, sizeof one);
    crypto->random(other, sizeof other);
    CHECK(memcmp(one, other, sizeof one) != 0);
    crypto->random(one, 0);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(digests),
        CHECK_TEST(a_million_letters_beside_another_digest),
        CHECK_TEST(signatures_of_the_rfc),
        CHECK_TEST(every_bit_of_a_signature_counts),
        CHECK_TEST(numbers_that_are_no_key),
        CHECK_TEST(new_keys_differ_and_sign),
        CHECK_TEST(the_handshake_s_vector),
        CHECK_TEST(rs256),
        CHECK_TEST(moduli_of_other_sizes),
        CHECK_TEST(es256),
        CHECK_TEST(random_numbers),
    };
    crypto = tl_psa_crypto();
    return crypto == NULL ? 1 : CHECK_ALL(tests);
}
