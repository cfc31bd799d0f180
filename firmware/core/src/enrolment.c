/* From a registration token to an identity: request, a person's approval, certificate and pinned root. */
#include <string.h>

#include "gateway_parts.h"

#define KEY "enrolment"

static tl_span gateway_of(const tl_enrolment_kept *waiting)
{
    return (tl_span){waiting->gateway, waiting->gateway_n};
}

static void forget(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    g->waiting.id_n = 0;
    (void)(kv->erase(kv->with, KEY) && kv->commit(kv->with)); /* one that comes back is refused by the gateway */
}

static void keep(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    const tl_span record = {(const uint8_t *)&g->waiting, sizeof g->waiting};
    if (!kv->set(kv->with, KEY, record) || !kv->commit(kv->with)) {
        tl_log_text(g->parts.log, TL_LOG_WARNING, "the enrolment could not be kept", "a restart begins anew");
    }
}

/* An enrolment that an earlier run left undecided. */
static void load(tl_gateway *g)
{
    const tl_port_kv *kv = g->parts.port->kv;
    tl_enrolment_kept *kept = &g->waiting;
    tl_out record = {(uint8_t *)kept, 0, sizeof *kept, false};
    if (!kv->get(kv->with, KEY, &record) || record.n != sizeof *kept || kept->id_n > sizeof kept->id ||
        kept->secret_n > sizeof kept->secret || kept->gateway_n > sizeof kept->gateway ||
        !tl_same(gateway_of(kept), g->ask.gateway)) {
        kept->id_n = 0;
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
    const uint8_t step = g->waiting.id_n > 0 ? STEP_LOOK : STEP_ENROL;
    tl_put_text(&path, "/v1/enrolments");
    if (step == STEP_LOOK) {
        tl_put_u8(&path, '/');
        tl_put(&path, g->waiting.id, g->waiting.id_n);
        bearer = (tl_span){g->waiting.secret, g->waiting.secret_n};
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
    const size_t id = tl_gateway_word(g, "enrolment_id", g->waiting.id, sizeof g->waiting.id);
    const size_t secret = tl_gateway_word(g, "poll_secret", g->waiting.secret, sizeof g->waiting.secret);
    if (id == 0 || secret == 0) {
        g->waiting.id_n = 0;
        return "the gateway's answer is none";
    }
    g->waiting.id_n = (uint8_t)id;
    g->waiting.secret_n = (uint8_t)secret;
    g->waiting.gateway_n = (uint8_t)g->ask.gateway.n; /* no longer than any address that is taken */
    memcpy(g->waiting.gateway, g->ask.gateway.at, g->ask.gateway.n);
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
    if (g->step != STEP_NONE) {
        g->step = STEP_OUTDATED;
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
    return g->asked && g->waiting.id_n > 0;
}
