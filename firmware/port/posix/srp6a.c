#include "srp6a.h"

#include "psa_crypto.h"

#include <mbedtls/bignum.h>
#include <mbedtls/sha512.h>
#include <string.h>

/* RFC 5054, appendix A: the 3072-bit group; its generator is 5. */
static const char PRIME[] =
    "FFFFFFFFFFFFFFFFC90FDAA22168C234C4C6628B80DC1CD129024E088A67CC74020BBEA63B139B22514A08798E3404DDEF9519B3CD3A431B"
    "302B0A6DF25F14374FE1356D6D51C245E485B576625E7EC6F44C42E9A637ED6B0BFF5CB6F406B7EDEE386BFB5A899FA5AE9F24117C4B1FE6"
    "49286651ECE45B3DC2007CB8A163BF0598DA48361C55D39A69163FA8FD24CF5F83655D23DCA3AD961C62F356208552BB9ED529077096966D"
    "670C354E4ABC9804F1746C08CA18217C32905E462E36CE3BE39E772C180E86039B2783A2EC07A28FB5C55DF06F4C52C9DE2BCBF695581718"
    "3995497CEA956AE515D2261898FA051015728E5A8AAAC42DAD33170D04507A33A85521ABDF1CBA64ECFB850458DBEF0A8AEA71575D060C7D"
    "B3970F85A6E1E4C7ABF5AE8CDB0933D71E8C94E04A25619DCEE3D2261AD2EE6BF12FFA06D98A0864D87602733EC86A64521F2B18177B200C"
    "BBE117577A615D6C770988C0BAD946E208E24FA074E5AB3143DB5BFCE0FD108E4B82D120A93AD2CAFFFFFFFFFFFFFFFF";
#define GENERATOR 5

typedef struct {
    tl_span part[6];
} parts;

static void hash(const parts *of, uint8_t digest[TL_SRP_HASH])
{
    mbedtls_sha512_context context;
    mbedtls_sha512_init(&context);
    (void)mbedtls_sha512_starts_ret(&context, 0); /* in software: these cannot fail */
    for (size_t i = 0; i < sizeof of->part / sizeof of->part[0]; i++) {
        if (of->part[i].n > 0) {
            (void)mbedtls_sha512_update_ret(&context, of->part[i].at, of->part[i].n);
        }
    }
    (void)mbedtls_sha512_finish_ret(&context, digest);
    mbedtls_sha512_free(&context);
}

static bool number(mbedtls_mpi *to, const uint8_t *at, size_t n)
{
    return mbedtls_mpi_read_binary(to, at, n) == 0;
}

static bool padded(const mbedtls_mpi *from, uint8_t bytes[TL_SRP_NUMBER])
{
    return mbedtls_mpi_write_binary(from, bytes, TL_SRP_NUMBER) == 0;
}

/* The group and what is computed in it; all are freed together. */
typedef struct {
    mbedtls_mpi prime, generator, one, other, sum;
} group;

static bool begin(group *g)
{
    mbedtls_mpi_init(&g->prime);
    mbedtls_mpi_init(&g->generator);
    mbedtls_mpi_init(&g->one);
    mbedtls_mpi_init(&g->other);
    mbedtls_mpi_init(&g->sum);
    return mbedtls_mpi_read_string(&g->prime, 16, PRIME) == 0 && mbedtls_mpi_lset(&g->generator, GENERATOR) == 0;
}

static void end(group *g)
{
    mbedtls_mpi_free(&g->prime);
    mbedtls_mpi_free(&g->generator);
    mbedtls_mpi_free(&g->one);
    mbedtls_mpi_free(&g->other);
    mbedtls_mpi_free(&g->sum);
}

/* to = base ^ (the number of these bytes) */
static bool power(group *g, mbedtls_mpi *to, const mbedtls_mpi *base, const uint8_t *exponent, size_t n)
{
    mbedtls_mpi number_of;
    mbedtls_mpi_init(&number_of);
    const bool done =
        number(&number_of, exponent, n) && mbedtls_mpi_exp_mod(to, base, &number_of, &g->prime, NULL) == 0;
    mbedtls_mpi_free(&number_of);
    return done;
}

/* --- what is kept of a password --- */

/* v = g ^ H(salt, H(user ":" password)) */
bool tl_srp_record(tl_span user, tl_span password, uint8_t record[TL_SRP_RECORD])
{
    static const uint8_t colon = ':';
    uint8_t inner[TL_SRP_HASH], x[TL_SRP_HASH];
    group g;
    hash(&(parts){{user, {&colon, 1}, password}}, inner);
    hash(&(parts){{{record, TL_SRP_SALT}, {inner, sizeof inner}}}, x);
    const bool done =
        begin(&g) && power(&g, &g.one, &g.generator, x, sizeof x) && padded(&g.one, record + TL_SRP_SALT);
    end(&g);
    return done;
}

bool tl_srp_new_record(tl_span user, tl_span password, uint8_t record[TL_SRP_RECORD])
{
    tl_psa_crypto()->random(record, TL_SRP_SALT);
    return tl_srp_record(user, password, record);
}

/* --- the handshake --- */

static bool group_bytes(group *g, uint8_t prime[TL_SRP_NUMBER], uint8_t generator[TL_SRP_NUMBER])
{
    return padded(&g->prime, prime) && padded(&g->generator, generator);
}

/* B = k v + g ^ b, with k = H(N, PAD(g)) */
static bool our_number(group *g, tl_srp *srp, const uint8_t *verifier, const uint8_t *secret)
{
    uint8_t prime[TL_SRP_NUMBER], generator[TL_SRP_NUMBER], k[TL_SRP_HASH];
    if (!group_bytes(g, prime, generator)) {
        return false;
    }
    hash(&(parts){{{prime, sizeof prime}, {generator, sizeof generator}}}, k);
    if (!number(&g->one, k, sizeof k) || !number(&g->other, verifier, TL_SRP_NUMBER) ||
        mbedtls_mpi_mul_mpi(&g->sum, &g->one, &g->other) != 0 ||
        !power(g, &g->one, &g->generator, secret, TL_SRP_SECRET) ||
        mbedtls_mpi_add_mpi(&g->sum, &g->sum, &g->one) != 0 || mbedtls_mpi_mod_mpi(&g->sum, &g->sum, &g->prime) != 0) {
        return false;
    }
    srp->device_n = mbedtls_mpi_size(&g->sum);
    return mbedtls_mpi_write_binary(&g->sum, srp->device, srp->device_n) == 0;
}

/* u = H(A, PAD(B)) */
static void scrambler(const tl_srp *srp, uint8_t u[TL_SRP_HASH])
{
    static const uint8_t zeros[TL_SRP_NUMBER];
    const size_t pad = TL_SRP_NUMBER - srp->device_n;
    hash(&(parts){{{srp->client, TL_SRP_NUMBER}, {zeros, pad}, {srp->device, srp->device_n}}}, u);
}

/* S = (A v ^ u) ^ b; K = H(S), S without leading zeros */
static bool common_key(group *g, tl_srp *srp, const uint8_t *verifier, const uint8_t *secret)
{
    uint8_t u[TL_SRP_HASH], bytes[TL_SRP_NUMBER];
    scrambler(srp, u);
    if (!number(&g->other, verifier, TL_SRP_NUMBER) || !power(g, &g->one, &g->other, u, sizeof u) ||
        !number(&g->other, srp->client, TL_SRP_NUMBER) || mbedtls_mpi_mul_mpi(&g->sum, &g->one, &g->other) != 0 ||
        !power(g, &g->one, &g->sum, secret, TL_SRP_SECRET)) {
        return false;
    }
    const size_t n = mbedtls_mpi_size(&g->one);
    if (n > sizeof bytes || mbedtls_mpi_write_binary(&g->one, bytes, n) != 0) {
        return false;
    }
    hash(&(parts){{{bytes, n}}}, srp->key);
    return true;
}

/* RFC 5054, section 2.5.4: a client that sends 0 would know the key without the password. */
static bool is_of_group(group *g, const uint8_t *client)
{
    return number(&g->one, client, TL_SRP_NUMBER) && mbedtls_mpi_mod_mpi(&g->one, &g->one, &g->prime) == 0 &&
           mbedtls_mpi_cmp_int(&g->one, 0) != 0;
}

bool tl_srp_answer(tl_srp *srp, const uint8_t record[TL_SRP_RECORD], const uint8_t client[TL_SRP_NUMBER])
{
    uint8_t secret[TL_SRP_SECRET];
    group g;
    tl_psa_crypto()->random(secret, sizeof secret);
    memcpy(srp->client, client, TL_SRP_NUMBER);
    memcpy(srp->salt, record, TL_SRP_SALT);
    const bool done = begin(&g) && is_of_group(&g, client) && our_number(&g, srp, record + TL_SRP_SALT, secret) &&
                      common_key(&g, srp, record + TL_SRP_SALT, secret);
    end(&g);
    return done;
}

/* H(N) xor H(PAD(g)) */
static bool group_digest(uint8_t digest[TL_SRP_HASH])
{
    uint8_t prime[TL_SRP_NUMBER], generator[TL_SRP_NUMBER], other[TL_SRP_HASH];
    group g;
    const bool done = begin(&g) && group_bytes(&g, prime, generator);
    end(&g);
    if (done) {
        hash(&(parts){{{prime, sizeof prime}}}, digest);
        hash(&(parts){{{generator, sizeof generator}}}, other);
        for (size_t i = 0; i < TL_SRP_HASH; i++) {
            digest[i] ^= other[i];
        }
    }
    return done;
}

/* Every byte is looked at: the time tells nothing of how many were right. */
static bool same(const uint8_t *one, const uint8_t *other)
{
    uint8_t different = 0;
    for (size_t i = 0; i < TL_SRP_HASH; i++) {
        different |= one[i] ^ other[i];
    }
    return different == 0;
}

/* M = H(H(N) xor H(g), H(user), salt, A, B, K); ours is H(A, M, K) */
bool tl_srp_prove(const tl_srp *srp, tl_span user, const uint8_t proof[TL_SRP_HASH], uint8_t ours[TL_SRP_HASH])
{
    uint8_t of_group[TL_SRP_HASH], of_user[TL_SRP_HASH], wanted[TL_SRP_HASH];
    if (!group_digest(of_group)) {
        return false;
    }
    const tl_span client = {srp->client, TL_SRP_NUMBER}, key = {srp->key, TL_SRP_HASH};
    hash(&(parts){{user}}, of_user);
    hash(&(parts){{{of_group, TL_SRP_HASH}, {of_user, TL_SRP_HASH}, {srp->salt, TL_SRP_SALT}, client,
                   {srp->device, srp->device_n}, key}}, wanted);
    if (!same(proof, wanted)) {
        return false;
    }
    hash(&(parts){{client, {wanted, TL_SRP_HASH}, key}}, ours);
    return true;
}
