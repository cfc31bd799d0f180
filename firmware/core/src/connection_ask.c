/* Where the broker is and as whom to talk to it: the gateway says, against the device's signature. */
#include <string.h>

#include "gateway_parts.h"

static const char *read_prefix(const tl_gateway *g, tl_connection *c)
{
    tl_json value;
    tl_out prefix = {c->prefix, 0, sizeof c->prefix, false};
    if (!tl_json_member(&g->call.answer, "prefix", &value) || !tl_json_unescape(&value, &prefix)) {
        return "the answer holds no prefix";
    }
    const tl_span text = {c->prefix, prefix.n};
    if (!tl_is_prefix(text) || !tl_same(tl_prefix_device(text), tl_identity_device(g->parts.identity))) {
        return "the prefix is another device's";
    }
    c->prefix_n = (uint16_t)prefix.n;
    return NULL;
}

/* null, or a text that fits; false: anything else. */
static bool optional_text(const tl_json *object, const char *name, tl_out *out)
{
    tl_json value;
    return !tl_json_member(object, name, &value) || value.kind == TL_JSON_NULL || tl_json_unescape(&value, out);
}

/* Both come from one keyring. After it changed the certificate's renewal brings the new one. */
static const char *read_ca(tl_gateway *g, const tl_json *mqtt, tl_connection *c)
{
    tl_out ca = tl_call_room(&g->call);
    if (!optional_text(mqtt, "ca", &ca)) {
        return "the answer names no broker";
    }
    c->pinned = ca.n > 0;
    if (c->pinned && !tl_same((tl_span){ca.at, ca.n}, tl_identity_server_ca(g->parts.identity))) {
        g->renew_now = true;
        return "the broker's CA is another one: renewing first";
    }
    return NULL;
}

static const char *read_broker(tl_gateway *g, tl_connection *c)
{
    tl_json mqtt, value;
    tl_url url;
    tl_out address = {c->url, 0, sizeof c->url, false}, password = {c->password, 0, sizeof c->password, false};
    if (!tl_json_member(&g->call.answer, "mqtt", &mqtt) || mqtt.kind == TL_JSON_NULL) {
        return "the gateway has no broker";
    }
    if (!tl_json_member(&mqtt, "url", &value) || !tl_json_unescape(&value, &address) ||
        tl_url_read((tl_span){c->url, address.n}, TL_URL_BROKER, &url) != NULL ||
        !optional_text(&mqtt, "password", &password)) {
        return "the answer names no broker";
    }
    c->url_n = (uint8_t)address.n;
    c->password_n = (uint8_t)password.n;
    return read_ca(g, &mqtt, c);
}

void tl_connection_ended(tl_gateway *g, tl_call_state state)
{
    const char *why = g->call.why;
    memset(&g->connection, 0, sizeof g->connection);
    if (state == TL_CALL_ANSWERED) {
        why = read_prefix(g, &g->connection);
        if (why == NULL) {
            why = read_broker(g, &g->connection);
        }
    }
    if (why != NULL) {
        g->connection.url_n = 0;
    }
    tl_call_close(&g->call);
    g->parts.tell(g->parts.owner, why == NULL ? TL_GATEWAY_CONNECTION : TL_GATEWAY_NO_CONNECTION, why);
}

bool tl_connection_address(const tl_connection *c, const tl_identity *id, tl_address *address)
{
    tl_url url;
    if (tl_url_read((tl_span){c->url, c->url_n}, TL_URL_BROKER, &url) != NULL) {
        return false;
    }
    const tl_span ca = c->pinned ? tl_identity_server_ca(id) : (tl_span){NULL, 0};
    *address = (tl_address){url.host, url.port, url.secure, {NULL, 0}, ca};
    return true;
}
