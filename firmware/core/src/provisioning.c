#include "towline/provisioning.h"

#include "towline/bytes.h"
#include "towline/json.h"

#include <string.h>

bool tl_provisioning_new_pin(const tl_port *port, tl_span pin)
{
    uint8_t record[TL_PROVISIONING_RECORD];
    const tl_port_provisioning *provisioning = port->provisioning;
    return provisioning == NULL ||
           (provisioning->record(provisioning->with, tl_text(TL_PROVISIONING_USER), pin, record) &&
            port->kv->set(port->kv->with, TL_PROVISIONING_KEY, (tl_span){record, sizeof record}));
}

void tl_provisioning_open(tl_provisioning *p, const tl_provisioning_parts *parts, tl_span name, uint64_t now_ms)
{
    const tl_port *port = parts->port;
    tl_out record = {p->record, 0, sizeof p->record, false};
    *p = (tl_provisioning){.parts = *parts, .join = TL_JOIN_NOT_ASKED, .close_at_ms = now_ms + TL_PROVISIONING_OPEN_MS};
    if (port->provisioning == NULL || !port->kv->get(port->kv->with, TL_PROVISIONING_KEY, &record) ||
        record.n != sizeof p->record) {
        return;
    }
    const tl_provisioning_offer offer = {
        name,
        {p->record, TL_PROVISIONING_SALT},
        {p->record + TL_PROVISIONING_SALT, TL_PROVISIONING_VERIFIER},
    };
    p->open = port->provisioning->start(port->provisioning->with, &offer);
}

static void answer(const tl_provisioning *p, tl_span bytes)
{
    const tl_port_provisioning *port = p->parts.port->provisioning;
    port->answer(port->with, bytes);
}

static bool commit(tl_provisioning *p, const tl_settings *next)
{
    if (!tl_settings_commit(p->parts.store, next)) {
        return false;
    }
    *p->parts.settings = *next;
    return true;
}

/* --- the Wi-Fi --- */

static bool take_wifi(tl_provisioning *p, tl_span asked)
{
    tl_settings next = *p->parts.settings;
    const tl_span ssid = tl_split(&asked, 0);
    return ssid.n > 0 && tl_settings_set_text(&next, TL_SETTING_SSID, ssid) == NULL &&
           tl_settings_set_text(&next, TL_SETTING_PASSWORD, asked) == NULL && commit(p, &next);
}

static void wifi(tl_provisioning *p, tl_span asked, uint64_t now_ms)
{
    const bool changes = asked.n > 0;
    if (changes && !take_wifi(p, asked)) {
        answer(p, (tl_span){NULL, 0});
        return;
    }
    if (changes) {
        p->join = TL_JOIN_UNDER_WAY;
        p->joined_by_ms = now_ms + TL_PROVISIONING_JOIN_MS;
    }
    answer(p, (tl_span){&p->join, 1});
    if (changes) {
        p->parts.changed(p->parts.device, true, false);
    }
}

/* --- the gateway --- */

/* A text of the request into the settings; `needed`: it must be there, and not be empty. */
static bool take_text(const tl_json *request, const char *name, bool needed, tl_settings *next, tl_setting setting)
{
    uint8_t room[TL_SETTING_URL_MAX];
    tl_out text = {room, 0, sizeof room, false};
    tl_json value;
    if (!tl_json_member(request, name, &value)) {
        return !needed;
    }
    return tl_json_unescape(&value, &text) && (text.n > 0 || !needed) &&
           tl_settings_set_text(next, setting, (tl_span){room, text.n}) == NULL;
}

static const char *take_gateway(tl_provisioning *p, tl_span asked)
{
    tl_settings next = *p->parts.settings;
    tl_json request;
    if (tl_json_check(asked, &request) != TL_JSON_FINE || request.kind != TL_JSON_OBJECT) {
        return "{\"error\":\"no JSON object\"}";
    }
    if (!take_text(&request, "gateway", true, &next, TL_SETTING_GATEWAY)) {
        return "{\"error\":\"gateway\"}";
    }
    if (!take_text(&request, "token", true, &next, TL_SETTING_TOKEN)) {
        return "{\"error\":\"token\"}";
    }
    if (!take_text(&request, "name", false, &next, TL_SETTING_NAME)) {
        return "{\"error\":\"name\"}";
    }
    return commit(p, &next) ? NULL : "{\"error\":\"it cannot be kept\"}";
}

static void towline(tl_provisioning *p, tl_span asked)
{
    const char *why = take_gateway(p, asked);
    answer(p, tl_text(why != NULL ? why : "{}"));
    if (why == NULL) {
        p->parts.changed(p->parts.device, false, true);
    }
}

/* --- events and time --- */

/* All was told, and it works: nobody is needed any more. */
static void linger(tl_provisioning *p, uint64_t now_ms)
{
    if (p->join == TL_JOIN_DONE && p->parts.settings->gateway[0] != '\0') {
        p->close_at_ms = now_ms + TL_PROVISIONING_LINGER_MS;
    }
}

static void close_now(tl_provisioning *p)
{
    const tl_port_provisioning *port = p->parts.port->provisioning;
    p->open = false;
    port->stop(port->with);
}

void tl_provisioning_event(tl_provisioning *p, const tl_event *event, uint64_t now_ms)
{
    if (!p->open) {
        return;
    }
    switch (event->kind) {
    case TL_EVENT_PROVISIONING_REQUEST:
        if (event->number == TL_PROVISIONING_WIFI) {
            wifi(p, event->bytes, now_ms);
        } else {
            towline(p, event->bytes);
            linger(p, now_ms);
        }
        break;
    case TL_EVENT_PROVISIONING_OVER:
        close_now(p);
        break;
    case TL_EVENT_NETWORK_UP:
        if (p->join == TL_JOIN_UNDER_WAY) {
            p->join = TL_JOIN_DONE;
            linger(p, now_ms);
        }
        break;
    default:
        break;
    }
}

uint64_t tl_provisioning_run(tl_provisioning *p, uint64_t now_ms)
{
    if (!p->open) {
        return UINT64_MAX;
    }
    if (p->join == TL_JOIN_UNDER_WAY && now_ms >= p->joined_by_ms) {
        p->join = TL_JOIN_FAILED;
    }
    if (now_ms >= p->close_at_ms) {
        close_now(p);
        return UINT64_MAX;
    }
    const bool joins_first = p->join == TL_JOIN_UNDER_WAY && p->joined_by_ms < p->close_at_ms;
    return joins_first ? p->joined_by_ms : p->close_at_ms;
}
