/* The device's page on its own network: the web server's requests, by the same routes as the tunnel's. */
#ifndef TOWLINE_LAN_H
#define TOWLINE_LAN_H

#include "towline/login.h"
#include "towline/routes.h"
#include "towline_port.h"

#define TL_LAN_NAMES 4u /* what the device may be called: its addresses, its mDNS name */
#define TL_LAN_NAME_MAX (TL_ADDRESS_TEXT_MAX + 24u)

typedef struct {
    tl_web_ref ref; /* 0: free */
    tl_http_request request;
    tl_exchange exchange;
} tl_lan_slot;

typedef struct {
    const tl_port *port;
    tl_routes routes;
    void *routes_owner;
    const tl_login *login;
    uint8_t *small; /* TL_SMALL_BODY_MAX bytes, for one small body at a time */
    tl_web_ref small_lent_to;
    tl_span name[TL_LAN_NAMES];
    uint8_t names[TL_LAN_NAMES * TL_LAN_NAME_MAX];
    tl_lan_slot slot[TL_WEB_SLOTS];
} tl_lan;

void tl_lan_init(tl_lan *, const tl_port *, tl_routes, void *routes_owner, const tl_login *, uint8_t *small);
/* WEB_*. */
void tl_lan_event(tl_lan *, const tl_event *);
/* Routes that said TL_FILL_AGAIN are asked again. */
void tl_lan_wake(tl_lan *);

#endif
