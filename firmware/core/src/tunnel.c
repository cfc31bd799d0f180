#include "towline/tunnel.h"

#include <string.h>

#include "towline/bytes.h"
#include "tunnel_parts.h"

#define WEBSOCKET_STATUS_BASE 4000u
#define WEBSOCKET_NORMAL 1000u

static uint64_t now_of(const tl_tunnel *t)
{
    return t->parts.port->sys->now_ms(t->parts.port->sys->with);
}

static uint32_t draw(const tl_tunnel *t)
{
    uint32_t random;
    t->parts.port->crypto->random((uint8_t *)&random, sizeof random);
    return random;
}

static void set_hello(tl_tunnel *t)
{
    t->service = (tl_service){
        .name = tl_text(TL_TUNNEL_SERVICE),
        .kind = tl_text("web"),
        .upstream = {t->upstream, t->upstream_n},
    };
    t->hello = (tl_hello){
        .limits = {
            .max_frame = TL_LINK_MESSAGE_MAX - TL_HEADER_SIZE,
            .max_message = TL_LINK_MESSAGE_MAX,
            .stream_window = TL_STREAM_WINDOW,
            .connection_window = TL_CONNECTION_WINDOW,
            .max_streams = t->parts.max_streams,
            .keepalive_ms = t->parts.keepalive_ms,
        },
        .software = t->parts.software,
        .services = &t->service,
        .service_count = 1,
    };
}

void tl_tunnel_init(tl_tunnel *t, const tl_tunnel_parts *parts)
{
    memset(t, 0, sizeof *t);
    t->parts = *parts;
    t->support = t->may_dial = true;
    t->drain_until_ms = TL_NEVER;
    parts->port->crypto->random(t->instance, sizeof t->instance);
}

/* Anyone of the servers: devices that start together spread over them. */
static bool choose_server(tl_tunnel *t)
{
    uint32_t count = 0;
    while (tl_identity_tunnel(t->identity, count, &t->url)) {
        count++;
    }
    t->server = count > 0 ? draw(t) % count : 0;
    return count > 0;
}

bool tl_tunnel_start(tl_tunnel *t, const tl_identity *identity)
{
    if (t->state != TL_TUNNEL_OFF) {
        return false;
    }
    t->identity = identity;
    if (!choose_server(t)) {
        tl_log_text(t->parts.log, TL_LOG_ERROR, "no tunnel server is known", NULL);
        t->identity = NULL;
        return false;
    }
    tl_out upstream = {t->upstream, 0, sizeof t->upstream, false};
    tl_put_span(&upstream, tl_identity_device(identity));
    tl_put_text(&upstream, ".local");
    t->upstream_n = (uint8_t)upstream.n;
    set_hello(t);
    tl_grants_init(&t->grants, t->parts.port->crypto, t->parts.scratch, tl_identity_device(identity), identity->root,
                   identity->validity.from_s);
    tl_tunnel_load_trust(t);
    t->state = TL_TUNNEL_WAITING;
    t->dial_at_ms = now_of(t);
    return true;
}

/* --- sending --- */

static void close_link(tl_tunnel *t)
{
    const tl_close why = tl_mux_close_reason(&t->mux);
    t->close_said = true;
    t->parts.port->link->close(t->parts.port->link->with,
                               (uint16_t)(why.has_code ? WEBSOCKET_STATUS_BASE + why.code : WEBSOCKET_NORMAL),
                               why.reason);
}

/* All that may leave, as far as the link takes it. */
static void pump(tl_tunnel *t)
{
    const tl_port_link *link = t->parts.port->link;
    tl_out message;
    if (t->close_said || (t->state != TL_TUNNEL_CLOSING && !t->mux_lives)) {
        return;
    }
    while (link->take(link->with, &message)) {
        const size_t n = tl_mux_next_message(&t->mux, message.at, message.cap, now_of(t));
        link->send(link->with, n);
        if (n == 0) {
            if (t->state == TL_TUNNEL_CLOSING) {
                close_link(t);
            }
            return;
        }
    }
}

/* --- the mux's events --- */

static void on_challenge(void *owner, const uint8_t *nonce, tl_span server_name)
{
    tl_tunnel *t = owner;
    uint8_t text[TL_MAX_TRANSCRIPT], signature[TL_P256_SIGNATURE];
    tl_out transcript = {text, 0, sizeof text, false};
    if (!tl_same_host(server_name, t->url.host)) {
        tl_log(t->parts.log, TL_LOG_ERROR, "the server calls itself something else", server_name);
        tl_mux_close(&t->mux, TL_CLOSE_WRONG_SERVER_NAME, "not the name that was dialled");
        return;
    }
    const tl_identity *identity = t->identity;
    const tl_span device = tl_identity_device(identity);
    tl_auth_transcript(&transcript, nonce, server_name, device, t->instance);
    const tl_span message = {transcript.at, transcript.n};
    if (transcript.full || !t->parts.port->crypto->p256_sign(identity->key, message, signature) ||
        !tl_mux_authenticate(&t->mux, device, t->instance, identity->key_id, signature)) {
        tl_mux_close(&t->mux, TL_CLOSE_INTERNAL, "signing failed");
    }
}

static void on_ready(void *owner, const tl_hello *peer)
{
    tl_tunnel *t = owner;
    t->state = TL_TUNNEL_UP;
    tl_reconnect_opened(&t->reconnect, now_of(t));
    tl_log(t->parts.log, TL_LOG_INFO, "tunnel open", peer->software);
    if (peer->has_key_list) {
        tl_tunnel_take_keys(t, peer->key_list);
    }
}

static void on_grant(void *owner, const uint8_t *id, tl_span token)
{
    tl_tunnel_granted(owner, id, token);
}

static void on_revoke(void *owner, const uint8_t *id)
{
    tl_tunnel_revoked(owner, id);
}

static void on_requested(void *owner, tl_stream_ref stream, const tl_open *open)
{
    tl_tunnel *t = owner;
    tl_grant *grant = tl_tunnel_admit(t, stream, open);
    if (grant != NULL) {
        tl_exchanges_open(&t->exchanges, stream, grant);
    }
}

static void on_data(void *owner, tl_stream_ref stream)
{
    tl_exchanges_came(&((tl_tunnel *)owner)->exchanges, stream);
}

static tl_fill on_fill(void *owner, tl_stream_ref stream, tl_out *out)
{
    return tl_exchanges_fill(&((tl_tunnel *)owner)->exchanges, stream, out);
}

static void on_over(void *owner, tl_stream_ref stream, tl_over how, tl_reset_code code)
{
    (void)how;
    (void)code;
    tl_exchanges_stream_over(&((tl_tunnel *)owner)->exchanges, stream);
}

static void on_goaway(void *owner, uint32_t retry_after_ms, tl_close_code code, tl_span reason)
{
    tl_tunnel *t = owner;
    t->retry_after_ms = retry_after_ms;
    tl_log(t->parts.log, TL_LOG_INFO, "the server says goodbye", reason);
    if (code == TL_CLOSE_NORMAL || code == TL_CLOSE_IDS_EXHAUSTED) {
        t->drain_until_ms = now_of(t) + TL_DRAIN_MS;
        tl_exchanges_drain(&t->exchanges, now_of(t));
    }
}

/* Dials the next server when it is time, unless the tunnel was stopped. */
static void wait_to_dial(tl_tunnel *t, const tl_close *why)
{
    const uint64_t now_ms = now_of(t);
    const uint32_t wait = tl_reconnect_ended(&t->reconnect, tl_ending_of(why), now_ms, draw(t), t->retry_after_ms);
    t->dial_at_ms = now_ms + wait;
    t->server++;
}

static void on_lost(void *owner, const tl_close *why)
{
    tl_tunnel *t = owner;
    t->mux_lives = false;
    t->drain_until_ms = TL_NEVER;
    t->state = TL_TUNNEL_CLOSING;
    t->close_at_ms = now_of(t) + TL_LAST_WORD_MS;
    tl_log_text(t->parts.log, why->code == TL_CLOSE_NORMAL && why->has_code ? TL_LOG_INFO : TL_LOG_WARNING,
                "tunnel ended", why->reason);
    wait_to_dial(t, why);
}

static const tl_mux_events EVENTS = {
    .challenge = on_challenge,
    .ready = on_ready,
    .grant = on_grant,
    .revoke = on_revoke,
    .requested = on_requested,
    .data_came = on_data,
    .peer_finished = on_data,
    .fill = on_fill,
    .over = on_over,
    .goaway = on_goaway,
    .lost = on_lost,
};

/* --- the link --- */

static void dial(tl_tunnel *t)
{
    if (!tl_identity_tunnel(t->identity, t->server, &t->url)) {
        t->server = 0; /* behind the last one comes the first */
        tl_identity_tunnel(t->identity, 0, &t->url);
    }
    const tl_port_link *link = t->parts.port->link;
    const tl_url *url = &t->url;
    const tl_address to = {url->host, url->port, url->secure, url->path, tl_identity_server_ca(t->identity)};
    t->retry_after_ms = 0;
    t->close_said = false;
    t->link = link->open(link->with, &to);
    if (t->link == 0) {
        tl_log(t->parts.log, TL_LOG_ERROR, "cannot dial", url->host);
        wait_to_dial(t, &(tl_close){.fault = TL_FAULT_LOCAL});
        return;
    }
    t->state = TL_TUNNEL_DIALLING;
}

static void link_opened(tl_tunnel *t)
{
    const tl_mux_config config = {
        .hello = &t->hello,
        .events = &EVENTS,
        .owner = t,
        .streams = t->parts.streams,
        .rings = t->parts.rings,
        .epoch = t->epoch,
    };
    if (t->state != TL_TUNNEL_DIALLING) {
        return; /* stopped meanwhile */
    }
    t->state = TL_TUNNEL_SHAKING_HANDS;
    t->mux_lives = true;
    t->logged = 0;
    tl_mux_init(&t->mux, &config, now_of(t));
    tl_exchanges_init(&t->exchanges, &t->mux, t->parts.routes, t->parts.routes_owner, t->parts.lines, t->parts.small);
    tl_grants_connected(&t->grants);
}

static void link_closed(tl_tunnel *t, const tl_event *event)
{
    if (t->mux_lives) {
        tl_log_text(t->parts.log, TL_LOG_DEBUG, "link closed", event->why);
        tl_mux_link_closed(&t->mux, event->status);
    } else if (t->state == TL_TUNNEL_DIALLING) {
        tl_log_text(t->parts.log, TL_LOG_WARNING, "the tunnel server was not reached", event->why);
        wait_to_dial(t, &(tl_close){.fault = TL_FAULT_PEER});
    }
    if (t->epoch < tl_mux_epoch(&t->mux)) {
        t->epoch = tl_mux_epoch(&t->mux);
    }
    t->link = 0;
    t->state = t->identity != NULL ? TL_TUNNEL_WAITING : TL_TUNNEL_OFF;
}

static void message_came(tl_tunnel *t, tl_span message)
{
    if (t->mux_lives) {
        tl_mux_receive(&t->mux, message, now_of(t));
    }
    t->parts.port->link->release(t->parts.port->link->with, message);
}

void tl_tunnel_event(tl_tunnel *t, const tl_event *event)
{
    if (event->kind == TL_EVENT_NETWORK_UP) {
        t->network = true;
        t->dial_at_ms = now_of(t) + TL_NETWORK_SETTLE_MS;
    } else if (event->kind == TL_EVENT_NETWORK_DOWN) {
        t->network = false;
    } else if (event->kind == TL_EVENT_LINK_MESSAGE) {
        message_came(t, event->bytes);
    } else if (event->number == t->link && event->kind == TL_EVENT_LINK_OPENED) {
        link_opened(t);
    } else if (event->number == t->link && event->kind == TL_EVENT_LINK_CLOSED) {
        link_closed(t, event);
    }
    pump(t);
}

/* --- time --- */

static uint64_t earlier(uint64_t one, uint64_t other)
{
    return one < other ? one : other;
}

static void run_mux(tl_tunnel *t, uint64_t now_ms)
{
    tl_mux_on_timer(&t->mux, now_ms);
    if (t->mux_lives) {
        tl_exchanges_on_timer(&t->exchanges, now_ms);
    }
    if (t->mux_lives && now_ms >= t->drain_until_ms) {
        tl_mux_close(&t->mux, TL_CLOSE_NORMAL, "the server is left");
    }
}

uint64_t tl_tunnel_run(tl_tunnel *t)
{
    const uint64_t now_ms = now_of(t);
    uint64_t next = tl_tunnel_keep_trust(t, now_ms);
    if (t->state == TL_TUNNEL_WAITING && t->network && t->may_dial && now_ms >= t->dial_at_ms) {
        dial(t);
    }
    if (t->mux_lives) {
        run_mux(t, now_ms);
    }
    pump(t);
    if (t->state == TL_TUNNEL_CLOSING && !t->close_said) {
        if (now_ms >= t->close_at_ms) {
            close_link(t);
        } else {
            next = earlier(next, t->close_at_ms);
        }
    }
    if (t->state == TL_TUNNEL_WAITING && t->network && t->may_dial) {
        next = earlier(next, t->dial_at_ms);
    }
    if (t->mux_lives) {
        next = earlier(next, earlier(tl_mux_timer(&t->mux), tl_exchanges_timer(&t->exchanges)));
        next = earlier(next, t->drain_until_ms);
    }
    return next;
}

void tl_tunnel_stop(tl_tunnel *t, const char *reason)
{
    const tl_port_link *link = t->parts.port->link;
    if (t->mux_lives) {
        tl_mux_close(&t->mux, TL_CLOSE_NORMAL, reason);
        pump(t);
    } else if (t->state == TL_TUNNEL_DIALLING) {
        t->close_said = true;
        link->close(link->with, WEBSOCKET_NORMAL, reason);
        t->state = TL_TUNNEL_CLOSING;
    } else if (t->state == TL_TUNNEL_WAITING) {
        t->state = TL_TUNNEL_OFF;
    }
    t->identity = NULL;
}

void tl_tunnel_wake(tl_tunnel *t)
{
    if (t->mux_lives) {
        tl_exchanges_wake(&t->exchanges);
    }
}

unsigned tl_tunnel_open_streams(const tl_tunnel *t)
{
    unsigned open = 0;
    for (uint32_t i = 0; t->mux_lives && i < t->parts.max_streams; i++) {
        open += t->parts.streams[i].state != TL_STREAM_FREE;
    }
    return open;
}
