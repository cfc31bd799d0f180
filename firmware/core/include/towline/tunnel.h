/* The device's one tunnel: dials, proves who it is, lets in what a grant allows, and dials again.
 *
 * Joins the link (port), the mux, the grants and the routes; each of them knows nothing of the others. One tunnel
 * at a time: a server that drains is left before the next is dialled, since a second TLS session has no room.
 */
#ifndef TOWLINE_TUNNEL_H
#define TOWLINE_TUNNEL_H

#include "towline/exchange.h"
#include "towline/identity.h"
#include "towline/log_ring.h"
#include "towline/reconnect.h"

#define TL_TUNNEL_SERVICE "web"
#define TL_STREAM_WINDOW 4096u
#define TL_CONNECTION_WINDOW 16384u
#define TL_DRAIN_MS 5000u           /* what is under way when a server says goodbye may end */
#define TL_LAST_WORD_MS 1000u       /* for our GOAWAY to leave */
#define TL_NETWORK_SETTLE_MS 1000u  /* from an address on the network to the first dial: routes and names follow it */
#define TL_UNSEEN_SAVE_MS 10000u    /* a server that invents revocations must not wear the flash */
#define TL_LOGGED_REFUSALS 20u      /* a connection; a hostile server must not fill the log */
#define TL_REVOKED_KEY "revoked"    /* in the key-value store */
#define TL_UPSTREAM_MAX (TL_MAX_NAME + 6u) /* the device's id, `.local` */

typedef enum {
    TL_TUNNEL_OFF,
    TL_TUNNEL_WAITING, /* for the time to dial, or the network */
    TL_TUNNEL_DIALLING,
    TL_TUNNEL_SHAKING_HANDS,
    TL_TUNNEL_UP,
    TL_TUNNEL_CLOSING /* the link's end is awaited */
} tl_tunnel_state;

/* What it works with; pointers to what outlives it. */
typedef struct {
    const tl_port *port;
    tl_log_ring *log;
    tl_routes routes;
    void *routes_owner;
    tl_span software;      /* for people */
    uint32_t max_streams;
    uint32_t keepalive_ms;
    tl_stream *streams;    /* max_streams */
    uint8_t *rings;        /* max_streams × TL_STREAM_WINDOW */
    tl_line *lines;        /* max_streams */
    uint8_t *small;        /* TL_SMALL_BODY_MAX */
    tl_grants_scratch *scratch;
} tl_tunnel_parts;

typedef struct {
    tl_tunnel_parts parts;
    const tl_identity *identity; /* NULL: off, or about to be */
    uint8_t state; /* a tl_tunnel_state */
    bool network;
    bool may_dial; /* false: somebody else shakes hands just now; the owner calls `run` when he is done */
    bool support;  /* whether who acts for another may come in */
    bool unseen_to_save;
    bool mux_lives;  /* the link is open, and the mux has not been lost */
    bool close_said; /* to the link */
    uint8_t logged;
    uint8_t upstream_n;
    uint32_t link;   /* the port's number of it; 0: none */
    uint32_t server; /* which of the identity's is dialled, or was */
    uint32_t epoch;  /* of the mux, over all connections */
    uint32_t retry_after_ms;
    uint64_t dial_at_ms;
    uint64_t close_at_ms;    /* while closing: the link is closed then, whether the last word left or not */
    uint64_t drain_until_ms; /* TL_NEVER: no server said goodbye */
    uint64_t unseen_saved_ms;
    uint8_t instance[TL_INSTANCE_SIZE];
    tl_url url; /* of the server that is dialled */
    uint8_t upstream[TL_UPSTREAM_MAX];
    tl_service service;
    tl_hello hello;
    tl_reconnect reconnect;
    tl_mux mux;
    tl_exchanges exchanges;
    tl_grants grants;
} tl_tunnel;

void tl_tunnel_init(tl_tunnel *, const tl_tunnel_parts *);
/* Dials from now on. `identity` stays where it is meanwhile. False: it names no server, or the tunnel is not off yet. */
bool tl_tunnel_start(tl_tunnel *, const tl_identity *identity);
/* Says goodbye and is off, once the link is closed. `reason`: a literal. */
void tl_tunnel_stop(tl_tunnel *, const char *reason);
/* LINK_* and NETWORK_*. */
void tl_tunnel_event(tl_tunnel *, const tl_event *);
/* What is due; when it wants to be called again. */
uint64_t tl_tunnel_run(tl_tunnel *);
/* Routes that said TL_FILL_AGAIN are asked again. */
void tl_tunnel_wake(tl_tunnel *);
unsigned tl_tunnel_open_streams(const tl_tunnel *);

#endif
