/* Any bytes as a key list or a grant, with signatures that all hold: what stands behind them. A line
 * is the list, the rest a grant. */
#include "exact.h"

#include "towline/bytes.h"
#include "towline/grants.h"

static void digest(tl_span message, uint8_t to[TL_SHA256])
{
    memset(to, 0, TL_SHA256);
    for (size_t i = 0; i < message.n; i++) {
        to[i % TL_SHA256] = (uint8_t)(to[i % TL_SHA256] * 31 + message.at[i]);
    }
}

static bool p256_holds(const uint8_t point[TL_P256_POINT], tl_span message,
                       const uint8_t signature[TL_P256_SIGNATURE])
{
    (void)point;
    (void)signature;
    return message.n > 0;
}

static bool rs256_holds(tl_span modulus, tl_span message, tl_span signature)
{
    must(modulus.n >= TL_RSA_BYTES_MIN && modulus.n <= TL_RSA_BYTES_MAX && (modulus.at[modulus.n - 1] & 1u) != 0);
    must(message.n <= TL_GRANT_TOKEN_MAX && signature.n <= TL_GRANT_TOKEN_MAX);
    return true;
}

static const tl_crypto TRUSTING = {.sha256 = digest, .p256_verify = p256_holds, .rs256_verify = rs256_holds};

/* What the seeds of the corpus were made for. */
#define WALL_S 1800000000
static const char DEVICE[] = "d_abcdefgh12345678";
static const uint8_t GRANT[TL_GRANT_ID] = {0xa5, 0x4f, 0x3f, 0x54, 0x3c, 0x8c, 0x4e, 0x00,
                                           0xa4, 0x78, 0xd5, 0xa7, 0xa3, 0xdd, 0xb1, 0x3c};

static void offer(tl_grants *grants, tl_span token)
{
    const uint8_t *id = GRANT;
    const tl_verdict waits = tl_grants_offer(grants, id, token, -1, 1);
    must(waits.code != TL_GRANT_HOLDS);
    const tl_verdict verdict = tl_grants_offer(grants, id, token, WALL_S, 1);
    if (verdict.code != TL_GRANT_HOLDS) {
        must(verdict.reason != NULL);
        return;
    }
    tl_grant *grant = verdict.grant;
    must(grant->ends_at_ms > 1 && memcmp(grant->id, id, sizeof grant->id) == 0);
    const tl_span service = {grant->service, grant->service_n};
    must(tl_is_name(service));
    must(tl_grants_open(grants, tl_text(DEVICE), service, id, WALL_S, 1).code == TL_GRANT_HOLDS);
    must(tl_grants_revoke(grants, id, 2, 1) == TL_REVOKE_ENDED);
    must(tl_grants_offer(grants, id, token, WALL_S, 3).code == TL_GRANT_REVOKED);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tl_grants grants;
    static tl_grants_scratch scratch;
    static const uint8_t root[TL_P256_POINT] = {4};
    uint8_t *copy = exact(data, size);
    tl_span rest = {copy, size};
    memset(&scratch, 0, sizeof scratch);
    tl_grants_init(&grants, &TRUSTING, &scratch, tl_text(DEVICE), root, 0);
    bool newer = false;
    const char *wrong = tl_grants_take_keys(&grants, tl_split(&rest, '\n'), 1, &newer);
    must((wrong == NULL) == newer && grants.keys.count <= TL_KEYS_MAX);
    must(!newer || grants.keys.count > 0);
    offer(&grants, rest);
    free(copy);
    return 0;
}
