#include "towline/lan.h"

#include <string.h>

#include "towline/bytes.h"

void tl_lan_init(tl_lan *lan, const tl_port *port, tl_routes routes, void *routes_owner, const tl_login *login,
                 uint8_t *small)
{
    memset(lan, 0, sizeof *lan);
    lan->port = port;
    lan->routes = routes;
    lan->routes_owner = routes_owner;
    lan->login = login;
    lan->small = small;
}

static tl_lan_slot *slot_of(tl_lan *lan, tl_web_ref ref)
{
    tl_lan_slot *slot = &lan->slot[tl_web_slot(ref) % TL_WEB_SLOTS];
    return ref != 0 && slot->ref == ref ? slot : NULL;
}

static void over(tl_lan *lan, tl_lan_slot *slot)
{
    if (lan->small_lent_to == slot->ref) {
        lan->small_lent_to = 0;
    }
    slot->ref = 0;
    tl_exchange_over(&slot->exchange);
}

/* As much of the answer as there is room for. */
static void answer(tl_lan *lan, tl_lan_slot *slot)
{
    const tl_port_web *web = lan->port->web;
    tl_out out;
    tl_fill how = TL_FILL_MORE;
    while (how == TL_FILL_MORE && tl_exchange_may_fill(&slot->exchange) && web->take(web->with, slot->ref, &out)) {
        how = tl_exchange_fill(&slot->exchange, &out);
        web->send(web->with, slot->ref, how == TL_FILL_BROKEN ? 0 : out.n, how);
    }
    if (how == TL_FILL_END || how == TL_FILL_BROKEN) {
        over(lan, slot);
    }
}

/* What Host may say. Asked for each request: an address comes and goes with its network. */
static size_t read_names(tl_lan *lan)
{
    const tl_port_network *network = lan->port->network;
    size_t n = 0;
    for (; n < TL_LAN_NAMES; n++) {
        tl_out name = {lan->names + n * TL_LAN_NAME_MAX, 0, TL_LAN_NAME_MAX, false};
        if (!network->name(network->with, n, &name) || name.full) {
            break;
        }
        lan->name[n] = (tl_span){name.at, name.n};
    }
    return n;
}

static bool collects(const tl_exchange *x)
{
    return x->status == 0 && x->route->body == TL_BODY_SMALL;
}

static void request_came(tl_lan *lan, tl_web_ref ref, tl_span head)
{
    const tl_port_web *web = lan->port->web;
    const tl_port_sys *sys = lan->port->sys;
    tl_lan_slot *slot = &lan->slot[tl_web_slot(ref) % TL_WEB_SLOTS];
    memset(slot, 0, sizeof *slot);
    slot->ref = ref;
    const uint16_t wrong = tl_http_read_head(head, &slot->request);
    tl_exchange_origin origin = {
        .request = &slot->request,
        .hosts = lan->name,
        .host_count = read_names(lan),
    };
    if (wrong != 0) {
        slot->exchange.origin = origin;
        tl_exchange_refuse(&slot->exchange, wrong);
    } else {
        const tl_span cookie = slot->request.header[TL_H_COOKIE];
        const tl_out small = {lan->small, 0, lan->small_lent_to == 0 ? TL_SMALL_BODY_MAX : 0, false};
        origin.logged_in = tl_login_holds(lan->login, cookie, sys->now_ms(sys->with));
        tl_exchange_begin(&slot->exchange, lan->routes, &origin, lan->routes_owner, small);
        if (collects(&slot->exchange) && small.cap > 0) {
            lan->small_lent_to = ref;
        }
    }
    if (slot->exchange.status == 0) {
        web->read_on(web->with, ref);
    } else {
        answer(lan, slot);
    }
}

static void body_came(tl_lan *lan, tl_lan_slot *slot, tl_span piece)
{
    const tl_port_web *web = lan->port->web;
    tl_exchange_body(&slot->exchange, piece);
    if (slot->exchange.status == 0) {
        web->read_on(web->with, slot->ref);
    } else {
        answer(lan, slot);
    }
}

static void body_over(tl_lan *lan, tl_lan_slot *slot)
{
    tl_exchange_body_over(&slot->exchange);
    if (lan->small_lent_to == slot->ref) {
        lan->small_lent_to = 0; /* a route has read its body when it was told that it is over */
    }
    answer(lan, slot);
}

void tl_lan_event(tl_lan *lan, const tl_event *event)
{
    tl_lan_slot *slot = slot_of(lan, event->number);
    if (event->kind == TL_EVENT_WEB_REQUEST) {
        request_came(lan, event->number, event->bytes);
    } else if (slot != NULL && event->kind == TL_EVENT_WEB_BODY) {
        body_came(lan, slot, event->bytes);
    } else if (slot != NULL && event->kind == TL_EVENT_WEB_BODY_OVER) {
        body_over(lan, slot);
    } else if (slot != NULL && event->kind == TL_EVENT_WEB_ROOM) {
        answer(lan, slot);
    } else if (event->kind == TL_EVENT_WEB_GONE) { /* also of one that was never heard: its place must be free again */
        lan->port->web->send(lan->port->web->with, event->number, 0, TL_FILL_BROKEN);
        if (slot != NULL) {
            over(lan, slot);
        }
    }
}

void tl_lan_wake(tl_lan *lan)
{
    for (size_t i = 0; i < TL_WEB_SLOTS; i++) {
        if (lan->slot[i].ref != 0) {
            answer(lan, &lan->slot[i]);
        }
    }
}
