/* One table of routes for the tunnel and the LAN, and one exchange: a request that is judged, read and answered.
 *
 * The owner of a stream or of a web slot keeps a `tl_exchange`, gives it what the parser tells, and lets it fill
 * whatever room its line has. No exchange waits for anything itself.
 */
#ifndef TOWLINE_ROUTES_H
#define TOWLINE_ROUTES_H

#include "towline/grants.h"
#include "towline/http_answer.h"
#include "towline/http_parse.h"
#include "towline/span.h"
#include "towline/stream_fill.h"

#define TL_SMALL_BODY_MAX 1024u /* settings, a PIN, a command: a page's form has no more */
#define TL_FILL_ROOM_MIN 512u   /* `fill` is not called for less: any head of ours fits, as does an event */

typedef struct tl_exchange tl_exchange;

typedef enum { TL_ANYONE, TL_LOGGED_IN } tl_who;
typedef enum { TL_BODY_NONE, TL_BODY_SMALL, TL_BODY_STREAMED } tl_body_kind;

/* 0: go on; else the status to answer. */
typedef uint16_t (*tl_route_begin)(tl_exchange *);
/* A small body comes whole, in one call with `last`, and is gone behind it; a streamed one in pieces, then an empty
 * one with `last`. */
typedef uint16_t (*tl_route_body)(tl_exchange *, tl_span piece, bool last);
/* Writes the next of the answer, head first; with `head_only` no more than the head. */
typedef tl_fill (*tl_route_fill)(tl_exchange *, tl_out *);
/* The exchange is over, answered or cut short: what `begin` took is given back. Once, and only where `begin` said 0. */
typedef void (*tl_route_over)(tl_exchange *);

typedef struct {
    const char *method; /* "GET" serves HEAD as well */
    const char *path;   /* exactly so: no pattern, no percent-encoding */
    uint8_t who;        /* tl_who */
    uint8_t body;       /* tl_body_kind */
    tl_route_begin begin;  /* NULL: nothing to do */
    tl_route_body on_body; /* NULL for TL_BODY_NONE */
    tl_route_fill fill;
    tl_route_over over; /* NULL: nothing to do */
} tl_route;

typedef struct {
    const tl_route *route;
    size_t count;
} tl_routes;

/* Where the request comes from. */
typedef struct {
    const tl_http_request *request;
    bool by_tunnel;
    bool logged_in;          /* on the LAN: the cookie is one of ours */
    const tl_grant *grant;   /* by the tunnel: what opened the stream; it is the login */
    const tl_span *hosts;    /* on the LAN: what this device is called, with the port where it is not 80 */
    size_t host_count;
} tl_exchange_origin;

struct tl_exchange {
    tl_exchange_origin origin;
    const tl_route *route; /* NULL: none serves it */
    void *owner;           /* the device, for the routes */
    tl_out small;          /* lent for a small body; cap 0: none is free */
    uint64_t body_n;       /* bytes of the body so far */
    uint64_t progress;     /* the route's own: how far its answer is */
    const char *why;       /* a literal for the reader of a refusal; NULL: its status says it */
    uint16_t status;       /* of a refusal; 0: the route answers */
    bool head_only;        /* HEAD */
    bool body_over;
    bool owes_continue;    /* the client waits for 100 before it sends the body */
    bool close;            /* the line ends with this answer */
    bool started;          /* the answer has begun: a refusal comes too late */
};

/* The route, or the status to answer: 404 where no route has the path, 405 where none has the method. */
uint16_t tl_routes_find(tl_routes, const tl_http_request *, const tl_route **found);
/* Whether this route may be used from there; 0, or the status. */
uint16_t tl_route_admit(const tl_route *, const tl_exchange_origin *);

/* A head came. `small` may be lent for this request alone. */
void tl_exchange_begin(tl_exchange *, tl_routes, const tl_exchange_origin *, void *owner, tl_out small);
void tl_exchange_body(tl_exchange *, tl_span piece);
/* The parser's END, with a body or without. */
void tl_exchange_body_over(tl_exchange *);
/* The head or the body was no HTTP: answers this status and closes, if nothing was said yet. */
void tl_exchange_refuse(tl_exchange *, uint16_t status);
/* Whether the answer may begin, or go on: a small body is answered when it came. */
bool tl_exchange_may_fill(const tl_exchange *);
/* TL_FILL_END is the end of the answer: of the line only where `close` is set, else the next request may come. */
tl_fill tl_exchange_fill(tl_exchange *, tl_out *);
/* The owner is done with it: behind the end of the answer, or because the line is gone. */
void tl_exchange_over(tl_exchange *);

#endif
