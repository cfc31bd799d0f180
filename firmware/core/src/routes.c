#include "towline/routes.h"

#include <string.h>

#include "towline/bytes.h"

enum {
    UNAUTHORIZED = 401,
    FORBIDDEN = 403,
    NOT_FOUND = 404,
    WRONG_METHOD = 405,
    TOO_LARGE = 413,
    MISDIRECTED = 421,
    BUSY = 503
};

/* --- which route --- */

static bool serves(const tl_route *route, tl_span method)
{
    return tl_is(method, route->method) || (tl_is(method, "HEAD") && strcmp(route->method, "GET") == 0);
}

uint16_t tl_routes_find(tl_routes routes, const tl_http_request *request, const tl_route **found)
{
    uint16_t status = NOT_FOUND;
    *found = NULL;
    for (size_t i = 0; i < routes.count; i++) {
        if (tl_is(request->path, routes.route[i].path)) {
            if (serves(&routes.route[i], request->method)) {
                *found = &routes.route[i];
                return 0;
            }
            status = WRONG_METHOD;
        }
    }
    return status;
}

/* --- who may --- */

static bool is_safe(tl_span method)
{
    return tl_is(method, "GET") || tl_is(method, "HEAD");
}

/* A foreign name that points at this device (DNS rebinding) would make its page one origin with ours. */
static bool is_our_host(const tl_exchange_origin *origin)
{
    for (size_t i = 0; i < origin->host_count; i++) {
        if (tl_same_host(origin->request->header[TL_H_HOST], origin->hosts[i])) {
            return true;
        }
    }
    return false;
}

/* On the LAN the page is served in the clear: its origin is `http://` and the Host. Without an Origin it is no
 * browser's cross-site request. */
static bool is_own_origin(const tl_http_request *request)
{
    static const char scheme[] = "http://";
    tl_span sent = request->header[TL_H_ORIGIN];
    if (sent.at == NULL) {
        return true;
    }
    return tl_is(tl_take(&sent, sizeof scheme - 1), scheme) && tl_same_host(sent, request->header[TL_H_HOST]);
}

static uint16_t judge_lan(const tl_exchange_origin *origin)
{
    if (!is_our_host(origin)) {
        return MISDIRECTED;
    }
    return is_safe(origin->request->method) || is_own_origin(origin->request) ? 0 : FORBIDDEN;
}

static uint16_t judge_body(const tl_route *route, const tl_http_request *request)
{
    if (route->body == TL_BODY_NONE) {
        return request->chunked || request->content_length > 0 ? TOO_LARGE : 0;
    }
    return route->body == TL_BODY_SMALL && request->content_length > TL_SMALL_BODY_MAX ? TOO_LARGE : 0;
}

uint16_t tl_route_admit(const tl_route *route, const tl_exchange_origin *origin)
{
    const tl_http_request *request = origin->request;
    const uint16_t status = origin->by_tunnel ? 0 : judge_lan(origin);
    if (status != 0) {
        return status;
    }
    /* A page of another origin cannot send this header without asking first (CORS), and nobody here says yes. */
    if (!is_safe(request->method) && !tl_is(request->header[TL_H_X_TOWLINE], "1")) {
        return FORBIDDEN;
    }
    if (route->who != TL_ANYONE && !(origin->by_tunnel ? origin->grant != NULL : origin->logged_in)) {
        return origin->by_tunnel ? FORBIDDEN : UNAUTHORIZED;
    }
    return judge_body(route, request);
}

/* --- an exchange --- */

static bool has_body(const tl_http_request *request)
{
    return request->chunked || request->content_length > 0;
}

static uint16_t judged(tl_exchange *x, tl_routes routes)
{
    const tl_route *route;
    uint16_t status = tl_routes_find(routes, x->origin.request, &route);
    if (status == 0 && x->origin.request->upgrade) {
        status = NOT_FOUND; /* nothing here speaks another protocol */
    }
    if (status == 0) {
        status = tl_route_admit(route, &x->origin);
    }
    if (status == 0 && route->body == TL_BODY_SMALL && has_body(x->origin.request) && x->small.cap == 0) {
        status = BUSY;
    }
    if (status != 0) {
        return status;
    }
    x->route = route;
    status = route->begin != NULL ? route->begin(x) : 0;
    if (status != 0) {
        x->route = NULL; /* it took nothing, so it has nothing to give back */
    }
    return status;
}

void tl_exchange_refuse(tl_exchange *x, uint16_t status)
{
    if (x->status != 0) {
        return; /* the first reason is told */
    }
    x->status = status;
    x->owes_continue = false;
    /* What is left of the body would have to be read first. */
    x->close = x->close || (!x->body_over && has_body(x->origin.request));
}

void tl_exchange_begin(tl_exchange *x, tl_routes routes, const tl_exchange_origin *origin, void *owner, tl_out small)
{
    const tl_http_request *request = origin->request;
    *x = (tl_exchange){.origin = *origin, .owner = owner, .small = small};
    if (x->small.cap > TL_SMALL_BODY_MAX) {
        x->small.cap = TL_SMALL_BODY_MAX;
    }
    x->head_only = tl_is(request->method, "HEAD");
    x->close = request->close;
    x->owes_continue = request->expect_continue;
    const uint16_t status = judged(x, routes);
    if (status != 0) {
        tl_exchange_refuse(x, status);
    }
}

void tl_exchange_body(tl_exchange *x, tl_span piece)
{
    x->owes_continue = false; /* it did not wait */
    x->body_n += piece.n;
    if (x->status != 0 || x->route == NULL) {
        return;
    }
    uint16_t status = 0;
    if (x->route->body == TL_BODY_SMALL) {
        tl_put_span(&x->small, piece);
        status = x->small.full ? TOO_LARGE : 0;
    } else {
        status = x->route->on_body(x, piece, false);
    }
    if (status != 0) {
        tl_exchange_refuse(x, status);
    }
}

void tl_exchange_body_over(tl_exchange *x)
{
    x->body_over = true;
    x->owes_continue = false;
    if (x->status != 0 || x->route == NULL || x->route->on_body == NULL) {
        return;
    }
    const tl_span whole = {x->small.at, x->small.n}, none = {NULL, 0};
    const uint16_t status = x->route->on_body(x, x->route->body == TL_BODY_SMALL ? whole : none, true);
    if (status != 0) {
        tl_exchange_refuse(x, status);
    }
}

bool tl_exchange_may_fill(const tl_exchange *x)
{
    return x->status != 0 || x->owes_continue || x->body_over;
}

static tl_fill fill_refusal(tl_exchange *x, tl_out *out)
{
    if (x->started) {
        return TL_FILL_BROKEN;
    }
    x->started = true;
    tl_answer_refusal(out, x->status, x->why, x->head_only, x->close);
    return out->full ? TL_FILL_BROKEN : TL_FILL_END;
}

tl_fill tl_exchange_fill(tl_exchange *x, tl_out *out)
{
    if (out->cap - out->n < TL_FILL_ROOM_MIN) {
        return TL_FILL_MORE;
    }
    if (x->status != 0) {
        return fill_refusal(x, out);
    }
    if (x->owes_continue) {
        x->owes_continue = false;
        tl_answer_continue(out);
        return TL_FILL_AGAIN;
    }
    if (!x->body_over || x->route == NULL) {
        return TL_FILL_AGAIN;
    }
    const tl_fill filled = x->route->fill(x, out);
    x->started = true;
    return out->full ? TL_FILL_BROKEN : filled;
}

void tl_exchange_over(tl_exchange *x)
{
    if (x->route != NULL && x->route->over != NULL) {
        x->route->over(x);
    }
    *x = (tl_exchange){.route = NULL};
}
