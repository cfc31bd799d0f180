#include "security2.h"

#include "protobuf.h"
#include "psa_crypto.h"
#include "towline/bytes.h"

#include <string.h>

/* Fields of SessionData, Sec2Payload and the four messages in it (protocomm's session.proto and sec2.proto). */
enum { SESSION_VERSION = 2, SESSION_SEC2 = 12, VERSION = 2 };
enum { SEC2_TYPE = 1, SEC2_COMMAND0 = 20, SEC2_RESPONSE0 = 21, SEC2_COMMAND1 = 22, SEC2_RESPONSE1 = 23 };
enum { COMMAND0, RESPONSE0, COMMAND1, RESPONSE1 };
enum { CLIENT_USER = 1, CLIENT_NUMBER = 2, CLIENT_PROOF = 1, DEVICE_NUMBER = 2, DEVICE_SALT = 3 };
enum { DEVICE_PROOF = 2, DEVICE_NONCE = 3 };

#define KEY_BITS 256u
#define COUNTER 8u /* its place in the nonce */
#define BODY_MAX (TL_SRP_NUMBER + TL_SRP_SALT + 16u)

void tl_security2_init(tl_security2 *s, const uint8_t record[TL_SRP_RECORD])
{
    memset(s, 0, sizeof *s);
    s->record = record;
}

void tl_security2_end(tl_security2 *s)
{
    if (s->state == TL_SECURITY2_OPEN) {
        mbedtls_gcm_free(&s->cipher);
    }
    s->state = TL_SECURITY2_NEW;
    memset(&s->srp, 0, sizeof s->srp);
}

static void put_session(tl_out *out, unsigned type, uint32_t field, const tl_out *body)
{
    uint8_t room[BODY_MAX + 16];
    tl_out payload = {room, 0, sizeof room, body->full};
    tl_pb_put_number(&payload, SEC2_TYPE, type);
    tl_pb_put_bytes(&payload, field, (tl_span){body->at, body->n});
    tl_pb_put_number(out, SESSION_VERSION, VERSION);
    tl_pb_put_bytes(out, SESSION_SEC2, (tl_span){payload.at, payload.n});
    out->full = out->full || payload.full;
}

static bool begin(tl_security2 *s, tl_span command, tl_out *answer)
{
    tl_span user, client;
    uint8_t room[BODY_MAX];
    tl_out body = {room, 0, sizeof room, false};
    tl_security2_end(s); /* it begins anew */
    if (!tl_pb_bytes(command, CLIENT_USER, &user) || user.n == 0 || user.n > sizeof s->user ||
        !tl_pb_bytes(command, CLIENT_NUMBER, &client) || client.n != TL_SRP_NUMBER ||
        !tl_srp_answer(&s->srp, s->record, client.at)) {
        return false;
    }
    memcpy(s->user, user.at, user.n);
    s->user_n = user.n;
    s->state = TL_SECURITY2_ASKED;
    tl_pb_put_bytes(&body, DEVICE_NUMBER, (tl_span){s->srp.device, s->srp.device_n});
    tl_pb_put_bytes(&body, DEVICE_SALT, (tl_span){s->srp.salt, TL_SRP_SALT});
    put_session(answer, RESPONSE0, SEC2_RESPONSE0, &body);
    return !answer->full;
}

static bool open_cipher(tl_security2 *s)
{
    static const uint8_t first[4] = {0, 0, 0, 1};
    tl_psa_crypto()->random(s->nonce, COUNTER);
    memcpy(s->nonce + COUNTER, first, sizeof first);
    mbedtls_gcm_init(&s->cipher);
    s->state = TL_SECURITY2_OPEN;
    return mbedtls_gcm_setkey(&s->cipher, MBEDTLS_CIPHER_ID_AES, s->srp.key, KEY_BITS) == 0;
}

static bool prove(tl_security2 *s, tl_span command, tl_out *answer)
{
    tl_span proof;
    uint8_t ours[TL_SRP_HASH], room[BODY_MAX];
    tl_out body = {room, 0, sizeof room, false};
    if (s->state != TL_SECURITY2_ASKED || !tl_pb_bytes(command, CLIENT_PROOF, &proof) || proof.n != TL_SRP_HASH) {
        return false;
    }
    if (!tl_srp_prove(&s->srp, (tl_span){s->user, s->user_n}, proof.at, ours)) {
        s->wrong++;
        return false;
    }
    if (!open_cipher(s)) {
        return false;
    }
    tl_pb_put_bytes(&body, DEVICE_PROOF, (tl_span){ours, sizeof ours});
    tl_pb_put_bytes(&body, DEVICE_NONCE, (tl_span){s->nonce, sizeof s->nonce});
    put_session(answer, RESPONSE1, SEC2_RESPONSE1, &body);
    return !answer->full;
}

static bool step(tl_security2 *s, tl_span message, tl_out *answer)
{
    uint64_t version, type;
    tl_span payload, command;
    if (!tl_pb_number(message, SESSION_VERSION, &version) || version != VERSION ||
        !tl_pb_bytes(message, SESSION_SEC2, &payload) || !tl_pb_number(payload, SEC2_TYPE, &type)) {
        return false;
    }
    if (type == COMMAND0 && tl_pb_bytes(payload, SEC2_COMMAND0, &command)) {
        return begin(s, command, answer);
    }
    return type == COMMAND1 && tl_pb_bytes(payload, SEC2_COMMAND1, &command) && prove(s, command, answer);
}

bool tl_security2_handshake(tl_security2 *s, tl_span message, tl_out *answer)
{
    if (step(s, message, answer)) {
        return true;
    }
    tl_security2_end(s);
    return false;
}

static void count(tl_security2 *s)
{
    tl_out out = {s->nonce + COUNTER, 0, 4, false};
    tl_put_u32(&out, tl_u32(s->nonce + COUNTER) + 1);
}

static bool read_sealed(tl_security2 *s, tl_span sealed, tl_out *plain)
{
    if (s->state != TL_SECURITY2_OPEN || sealed.n < TL_SECURITY2_TAG) {
        return false;
    }
    const size_t n = sealed.n - TL_SECURITY2_TAG;
    if (n > plain->cap - plain->n ||
        mbedtls_gcm_auth_decrypt(&s->cipher, n, s->nonce, sizeof s->nonce, NULL, 0, sealed.at + n, TL_SECURITY2_TAG,
                                 sealed.at, plain->at + plain->n) != 0) {
        return false;
    }
    plain->n += n;
    count(s);
    return true;
}

bool tl_security2_read(tl_security2 *s, tl_span sealed, tl_out *plain)
{
    if (read_sealed(s, sealed, plain)) {
        return true;
    }
    tl_security2_end(s);
    return false;
}

bool tl_security2_write(tl_security2 *s, tl_span plain, tl_out *sealed)
{
    if (s->state != TL_SECURITY2_OPEN || plain.n + TL_SECURITY2_TAG > sealed->cap - sealed->n) {
        return false;
    }
    uint8_t *to = sealed->at + sealed->n;
    if (mbedtls_gcm_crypt_and_tag(&s->cipher, MBEDTLS_GCM_ENCRYPT, plain.n, s->nonce, sizeof s->nonce, NULL, 0,
                                  plain.at, to, TL_SECURITY2_TAG, to + plain.n) != 0) {
        return false;
    }
    sealed->n += plain.n + TL_SECURITY2_TAG;
    count(s);
    return true;
}
