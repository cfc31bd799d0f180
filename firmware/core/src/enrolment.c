/* From a registration token to an identity: request, a person's approval, certificate and pinned root. */
#include <string.h>

#include "gateway_parts.h"
#include "record.h"

#define KEY "enrolment"
#define KEPT_MAX (3u * 2u + TL_URL_MAX + TL_ENROLMENT_ID_MAX + TL_SECRET_MAX)

/* --- an enrolment that waits: the gateway it waits at, its id, its secret --- */

static void forget(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    g->enrolment_n = 0;
    (void)(kv->erase(kv->with, KEY) && kv->commit(kv->with)); /* one that comes back is refused by the gateway */
}

static void keep(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    uint8_t room[KEPT_MAX];
    tl_out out = {room, 0, sizeof room, false};
    tl_record_put(&out, g->ask.gateway);
    tl_record_put(&out, (tl_span){g->enrolment, g->enrolment_n});
    tl_record_put(&out, (tl_span){g->secret, g->secret_n});
    if (out.full || !kv->set(kv->with, KEY, (tl_span){room, out.n}) || !kv->commit(kv->with)) {
        tl_log_text(g->parts.log, TL_LOG_WARNING, "the enrolment could not be kept", "a restart begins anew");
    }
}

/* An enrolment that an earlier run left undecided. */
static void load(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    uint8_t room[KEPT_MAX], gateway[TL_URL_MAX];
    tl_out out = {room, 0, sizeof room, false};
    size_t gateway_n, id_n, secret_n;
    g->enrolment_n = 0;
    if (!kv->get(kv->with, KEY, &out)) {
        return;
    }
    tl_span rest = {room, out.n};
    if (tl_record_take(&rest, gateway, sizeof gateway, &gateway_n) &&
        tl_record_take(&rest, g->enrolment, sizeof g->enrolment, &id_n) &&
        tl_record_take(&rest, g->secret, sizeof g->secret, &secret_n) &&
        tl_same((tl_span){gateway, gateway_n}, g->ask.gateway)) {
        g->enrolment_n = (uint8_t)id_n;
        g->secret_n = (uint8_t)secret_n;
    }
}

/* --- calls --- */

static bool put_request(tl_gateway *g, tl_out *body)
{
    const tl_identity *id = g->parts.identity;
    uint8_t room[TL_PEM_REQUEST_MAX];
    tl_out request = {room, 0, sizeof room, false};
    if (!tl_pem_put_request(&request, g->parts.port->crypto, id->key, id->point)) {
        return false;
    }
    tl_json_writer w = tl_json_to(body);
    tl_json_open(&w, '{');
    tl_json_put_name(&w, "token");
    tl_json_put_text(&w, g->ask.token);
    tl_json_put_name(&w, "csr");
    tl_json_put_text(&w, (tl_span){room, request.n});
    tl_json_put_name(&w, "name");
    tl_json_put_text(&w, g->ask.name.n > 0 ? g->ask.name : g->ask.hardware_id);
    tl_json_put_name(&w, "hardware_id");
    tl_json_put_text(&w, g->ask.hardware_id);
    tl_json_put_name(&w, "software");
    tl_json_put_text(&w, g->ask.software);
    tl_json_close(&w, '}');
    return tl_json_complete(&w);
}

bool tl_enrolment_begin(tl_gateway *g)
{
    uint8_t room[16 + TL_ENROLMENT_ID_MAX];
    tl_out path = {room, 0, sizeof room, false}, body;
    tl_span bearer = {NULL, 0};
    if (!tl_call_open(&g->call, &body)) {
        return false;
    }
    const uint8_t step = g->enrolment_n > 0 ? STEP_LOOK : STEP_ENROL;
    tl_put_text(&path, "/v1/enrolments");
    if (step == STEP_LOOK) {
        tl_put_u8(&path, '/');
        tl_put(&path, g->enrolment, g->enrolment_n);
        bearer = (tl_span){g->secret, g->secret_n};
    } else if (!put_request(g, &body)) {
        body.full = true;
    }
    g->step = tl_call_send(&g->call, g->ask.gateway, (tl_span){room, path.n}, bearer, &body) ? step : STEP_NONE;
    return g->step != STEP_NONE;
}

/* --- answers --- */

static void over(tl_gateway *g, tl_gateway_news news, const char *why)
{
    g->asked = false;
    g->failures = 0;
    forget(g);
    tl_call_close(&g->call);
    g->parts.tell(g->parts.owner, news, why);
}

static const char *read_begun(tl_gateway *g)
{
    const size_t id = tl_gateway_word(g, "enrolment_id", g->enrolment, sizeof g->enrolment);
    const size_t secret = tl_gateway_word(g, "poll_secret", g->secret, sizeof g->secret);
    if (id == 0 || secret == 0) {
        g->enrolment_n = 0;
        return "the gateway's answer is none";
    }
    g->enrolment_n = (uint8_t)id;
    g->secret_n = (uint8_t)secret;
    keep(g);
    g->looks = g->failures = 0;
    g->due_ms = 0; /* a token may approve beforehand */
    return NULL;
}

static const char *read_look(tl_gateway *g)
{
    const tl_gateway_parts *p = &g->parts;
    tl_json status;
    if (!tl_json_member(&g->call.answer, "status", &status)) {
        return "the gateway's answer is none";
    }
    if (tl_json_says(&status, tl_text("pending"))) {
        g->due_ms = tl_gateway_now(g) + (g->looks < TL_LOOKS_QUICK ? TL_LOOK_MS : TL_LOOK_SLOW_MS);
        g->looks = (uint8_t)(g->looks + (g->looks < UINT8_MAX));
        g->failures = 0;
        return NULL;
    }
    if (!tl_json_says(&status, tl_text("approved"))) {
        over(g, TL_GATEWAY_NOT_ENROLLED, "the owner rejected it");
        return NULL;
    }
    const char *reason = tl_identity_enrol(p->identity, p->port->kv, p->port->crypto, p->scratch, &g->call.answer,
                                           g->ask.gateway, tl_call_room(&g->call));
    if (reason == NULL) {
        over(g, TL_GATEWAY_ENROLLED, NULL);
    }
    return reason;
}

void tl_enrolment_ended(tl_gateway *g, uint8_t step, tl_call_state state)
{
    if (state == TL_CALL_REFUSED) {
        over(g, TL_GATEWAY_NOT_ENROLLED, g->call.why);
        return;
    }
    const char *why = state != TL_CALL_ANSWERED ? g->call.why : step == STEP_ENROL ? read_begun(g) : read_look(g);
    if (why != NULL) {
        tl_gateway_later(g, TL_ENROL_RETRY_MS, TL_ENROL_RETRY_MAX_MS);
        tl_log_text(g->parts.log, TL_LOG_WARNING, "not enrolled yet", why);
    }
}

const char *tl_gateway_enrol(tl_gateway *g, const tl_enrolment_ask *ask)
{
    tl_url url;
    const char *reason = tl_url_read(ask->gateway, TL_URL_GATEWAY, &url);
    if (reason != NULL) {
        return reason;
    }
    g->ask = *ask;
    g->asked = true;
    g->due_ms = 0;
    g->failures = g->looks = 0;
    load(g);
    return NULL;
}

bool tl_gateway_waits(const tl_gateway *g)
{
    return g->asked && g->enrolment_n > 0;
}
