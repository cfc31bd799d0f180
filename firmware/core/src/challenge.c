/* A nonce of the gateway, signed by the device's key together with what it is for: how renewal and connection prove
 * who asks. */
#include <string.h>

#include "gateway_parts.h"
#include "towline/base64.h"

#define NONCE_MIN 16u
#define NONCE_MAX 64u
#define NONCE_TEXT_MAX 86u /* of 64 bytes */
#define PURPOSE_MAX 24u

/* Each purpose keeps its signatures apart from the others of the same key. */
static const char *purpose_of(uint8_t step)
{
    return step == STEP_RENEW ? "towline-renew-v1" : "towline-connection-v1";
}

static bool send(tl_gateway *g, const char *what, const tl_out *body)
{
    uint8_t room[16 + TL_MAX_NAME + 24];
    tl_out path = {room, 0, sizeof room, false};
    const tl_identity *id = g->parts.identity;
    tl_put_text(&path, "/v1/devices/");
    tl_put_span(&path, tl_identity_device(id));
    tl_put_text(&path, what);
    return tl_call_send(&g->call, (tl_span){id->gateway, id->gateway_n}, (tl_span){room, path.n}, (tl_span){NULL, 0},
                        body);
}

bool tl_challenge_begin(tl_gateway *g, uint8_t step)
{
    tl_out body;
    if (!tl_call_open(&g->call, &body)) {
        return false;
    }
    tl_put_text(&body, "{}");
    g->step = send(g, "/certificate/challenge", &body) ? step : STEP_NONE;
    if (g->step == STEP_CHALLENGE_TO_CONNECT) {
        g->connection_wanted = false; /* it is on its way */
    }
    return g->step != STEP_NONE;
}

/* The signature's text over purpose, nonce and device id. */
static bool sign(const tl_gateway *g, const char *purpose, tl_span nonce_text, tl_out *text)
{
    uint8_t room[PURPOSE_MAX + NONCE_MAX + TL_MAX_NAME], signature[TL_P256_SIGNATURE];
    tl_out message = {room, 0, sizeof room, false};
    tl_put_text(&message, purpose);
    const size_t from = message.n;
    if (!tl_base64url_decode(nonce_text, &message) || message.n - from < NONCE_MIN || message.n - from > NONCE_MAX) {
        return false;
    }
    tl_put_span(&message, tl_identity_device(g->parts.identity));
    const tl_crypto *crypto = g->parts.port->crypto;
    if (message.full || !crypto->p256_sign(g->parts.identity->key, (tl_span){room, message.n}, signature)) {
        return false;
    }
    tl_put_base64url(text, (tl_span){signature, sizeof signature});
    return true;
}

static bool put_signed(tl_gateway *g, uint8_t step, tl_span nonce, tl_out *body)
{
    uint8_t signature_room[NONCE_TEXT_MAX], request_room[TL_PEM_REQUEST_MAX];
    tl_out signature = {signature_room, 0, sizeof signature_room, false};
    tl_out request = {request_room, 0, sizeof request_room, false};
    const tl_identity *id = g->parts.identity;
    if (!sign(g, purpose_of(step), nonce, &signature) ||
        (step == STEP_RENEW && !tl_pem_put_request(&request, g->parts.port->crypto, id->key, id->point))) {
        return false;
    }
    tl_json_writer w = tl_json_to(body);
    tl_json_open(&w, '{');
    tl_json_put_name(&w, "nonce");
    tl_json_put_text(&w, nonce);
    tl_json_put_name(&w, "signature");
    tl_json_put_text(&w, (tl_span){signature_room, signature.n});
    if (step == STEP_RENEW) {
        tl_json_put_name(&w, "csr");
        tl_json_put_text(&w, (tl_span){request_room, request.n});
    }
    tl_json_close(&w, '}');
    return tl_json_complete(&w);
}

/* Answers the challenge; NULL, or why it cannot. */
static const char *answer(tl_gateway *g, uint8_t step)
{
    uint8_t nonce[NONCE_TEXT_MAX];
    const size_t n = tl_gateway_word(g, "nonce", nonce, sizeof nonce);
    tl_out body;
    tl_call_close(&g->call);
    if (!tl_call_open(&g->call, &body) || !put_signed(g, step, (tl_span){nonce, n}, &body)) {
        return "the gateway's challenge is none";
    }
    if (!send(g, step == STEP_RENEW ? "/certificate" : "/connection", &body)) {
        return "somebody else asks";
    }
    g->step = step;
    return NULL;
}

void tl_challenge_ended(tl_gateway *g, uint8_t step, tl_call_state state)
{
    const uint8_t next = step == STEP_CHALLENGE_TO_RENEW ? STEP_RENEW : STEP_CONNECT;
    if (state == TL_CALL_ANSWERED) {
        g->call.why = answer(g, next);
        if (g->call.why == NULL) {
            return;
        }
        state = TL_CALL_UNREACHABLE;
    }
    if (next == STEP_RENEW) {
        tl_renewal_ended(g, state);
    } else {
        tl_connection_ended(g, state);
    }
}
