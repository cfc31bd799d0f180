/* What the device does with its gateway, its tunnel server and its broker: who may begin a TLS handshake when, and
 * what follows from what they say. */
#include "device_parts.h"

#include <string.h>

#include "towline/bytes.h"

/* --- settings --- */

void tl_device_apply_settings(tl_device *d)
{
    const tl_config_values *asked = &d->messages.configuration.running;
    const uint8_t level = asked->log_level == TL_LOG_LEVEL_OPEN ? (uint8_t)d->settings.log_level : asked->log_level;
    d->log.level = level;
    d->messages.report_s = d->settings.report_s;
}

/* --- commands --- */

static void identify(void *device)
{
    tl_device *d = device;
    tl_log_text(&d->log, TL_LOG_INFO, "here I am", NULL);
}

static tl_log_level change_log_level(void *device, tl_log_level level)
{
    tl_device *d = device;
    const tl_log_level was = (tl_log_level)d->log.level;
    d->log.level = (uint8_t)level;
    return was;
}

static const char *update(void *device, const tl_update *wanted)
{
    return tl_updater_begin(&((tl_device *)device)->updater, wanted);
}

static void stop_update(void *device)
{
    tl_updater_stop(&((tl_device *)device)->updater);
}

static tl_update_outcome updated(void *device)
{
    return tl_updater_outcome(&((tl_device *)device)->updater);
}

static const tl_command_work WORK = {identify, change_log_level, update, stop_update, updated};
static const tl_command_work WORK_WITHOUT_UPDATES = {.identify = identify, .log_level = change_log_level};

static void configured(void *device, const tl_config_values *values)
{
    (void)values;
    tl_device_apply_settings(device);
}

/* --- the gateway's news --- */

static void connection_came(tl_device *d, bool there)
{
    const tl_connection *c = &d->gateway.connection;
    const tl_identity *id = &d->identity;
    tl_broker broker = {
        .password = {c->password, c->password_n},
        .device = tl_identity_device(id),
        .prefix = {c->prefix, c->prefix_n},
    };
    d->connection_asked = false;
    there = there && tl_connection_address(c, id, &broker.to);
    if (c->password_n == 0) {
        tl_out key = {d->private_pem, 0, TL_PEM_KEY_MAX, false};
        tl_pem_put_private(&key, id->key, id->point);
        d->private_pem[key.n] = '\0';
        broker.certificate = tl_identity_certificate(id);
        broker.key = (tl_span){d->private_pem, key.n};
    }
    tl_messages_broker(&d->messages, there ? &broker : NULL);
}

static void begin_enrolled(tl_device *d)
{
    tl_tunnel_start(&d->tunnel, &d->identity);
    tl_messages_start(&d->messages);
}

/* The token is used up: it must not enrol a device again that its owner gave away. */
static void drop_token(tl_device *d)
{
    d->settings.token[0] = '\0';
    if (!tl_settings_commit(&d->store, &d->settings)) {
        tl_log_text(&d->log, TL_LOG_ERROR, "settings cannot be stored", NULL);
    }
}

static void told(void *owner, tl_gateway_news news, const char *why)
{
    tl_device *d = owner;
    switch (news) {
    case TL_GATEWAY_ENROLLED:
        tl_log(&d->log, TL_LOG_INFO, "enrolled", tl_identity_device(&d->identity));
        drop_token(d);
        begin_enrolled(d);
        break;
    case TL_GATEWAY_NOT_ENROLLED:
        tl_log_text(&d->log, TL_LOG_ERROR, "not enrolled", why);
        drop_token(d);
        break;
    case TL_GATEWAY_RENEWED:
        tl_log_text(&d->log, TL_LOG_INFO, "the certificate was renewed", NULL);
        tl_messages_reconnect(&d->messages);
        break;
    case TL_GATEWAY_CONNECTION:
    case TL_GATEWAY_NO_CONNECTION:
        connection_came(d, news == TL_GATEWAY_CONNECTION);
        break;
    }
}

/* --- begin --- */

bool tl_device_cloud_init(tl_device *d)
{
    const tl_gateway_parts gateway = {
        .port = d->port,
        .log = &d->log,
        .workspace = &d->workspace,
        .scratch = &d->scratch,
        .identity = &d->identity,
        .grants = &d->tunnel.grants,
        .tell = told,
        .owner = d,
    };
    const tl_messages_parts messages = {
        .port = d->port,
        .log = &d->log,
        .software = d->software,
        .type = d->config->type,
        .work = d->config->firmware != NULL ? &WORK : &WORK_WITHOUT_UPDATES,
        .configured = configured,
        .device = d,
        .first_sector = 0,
        .sectors = d->config->outbox_sectors,
    };
    tl_gateway_init(&d->gateway, &gateway);
    tl_updater_init(&d->updater, d->port, &d->log, &d->ota, &d->messages.commands);
    if (!tl_messages_open(&d->messages, &messages)) {
        tl_log_text(&d->log, TL_LOG_ERROR, "the outbox cannot be used: nothing is reported", NULL);
    }
    return tl_identity_load(&d->identity, d->port->kv, d->port->crypto);
}

void tl_device_cloud_begin(tl_device *d)
{
    if (d->identity.enrolled) {
        begin_enrolled(d);
        return;
    }
    if (d->settings.gateway[0] == '\0') {
        return; /* it serves its LAN alone */
    }
    const tl_enrolment_ask ask = {
        .gateway = tl_text(d->settings.gateway),
        .token = tl_text(d->settings.token),
        .name = tl_text(d->settings.name),
        .hardware_id = d->config->hardware_id,
        .software = tl_text(d->software),
    };
    const char *wrong = tl_gateway_enrol(&d->gateway, &ask);
    if (wrong != NULL) {
        tl_log_text(&d->log, TL_LOG_ERROR, "the gateway's address cannot be used", wrong);
    } else if (ask.token.n == 0 && !tl_gateway_waits(&d->gateway)) {
        tl_gateway_stop(&d->gateway); /* nothing to ask with */
    }
}

/* --- time --- */

static bool tunnel_shakes_hands(const tl_device *d)
{
    return d->tunnel.state == TL_TUNNEL_DIALLING || d->tunnel.state == TL_TUNNEL_SHAKING_HANDS;
}

/* One TLS handshake at a time: each takes what memory is left beside two sessions. A fetch is one from begin to end. */
uint64_t tl_device_cloud_run(tl_device *d)
{
    const bool fetches = d->gateway.call.number != 0 || d->updater.number != 0;
    tl_updater_run(&d->updater);
    d->tunnel.support = d->settings.support == 1; /* at once: who is in must not undo it meanwhile */
    d->tunnel.may_dial = !fetches && d->messages.state != TL_MESSAGES_CONNECTING;
    uint64_t next = tl_tunnel_run(&d->tunnel);
    tl_messages_may_dial(&d->messages, !fetches && !tunnel_shakes_hands(d));
    if (!d->stopping) {
        next = tl_earlier(next, tl_messages_run(&d->messages));
    }
    if (tl_messages_asks(&d->messages) && !d->connection_asked) {
        d->connection_asked = true;
        tl_gateway_ask_connection(&d->gateway);
    }
    if (!tunnel_shakes_hands(d) && d->messages.state != TL_MESSAGES_CONNECTING) {
        next = tl_earlier(next, tl_gateway_run(&d->gateway));
    }
    return next;
}

void tl_device_stop(tl_device *d)
{
    tl_gateway_stop(&d->gateway);
    tl_updater_stop(&d->updater);
    tl_messages_stop(&d->messages);
    tl_tunnel_stop(&d->tunnel, "the device stops");
    d->stopping = true;
}

bool tl_device_stopped(const tl_device *d)
{
    return d->stopping && d->tunnel.state == TL_TUNNEL_OFF;
}
