#include "web_mhd.h"

#include <stdlib.h>
#include <string.h>

#include "web_parts.h"

/* --- waiting for each other --- */

static void wait_for_place(tl_web *web, tl_web_request *r)
{
    size_t i = 0;
    while (web->waiting[i] != NULL) { /* there are as many as connections */
        i++;
    }
    web->waiting[i] = r;
    tl_web_suspend(r);
}

/* Tells the core, and waits for what it does. Called under the lock, which it gives up meanwhile. */
static enum MHD_Result ask_core(tl_web_request *r, tl_event_kind kind, tl_span bytes)
{
    const tl_event event = {.kind = (uint8_t)kind, .number = r->place->ref, .bytes = bytes};
    tl_web_suspend(r); /* first: the core may be quick */
    pthread_mutex_unlock(&r->web->lock);
    const bool told = tl_queue_post(r->web->queue, &event);
    pthread_mutex_lock(&r->web->lock);
    if (!told) {
        tl_web_resume(r);
    }
    return told ? MHD_YES : MHD_NO;
}

/* --- places --- */

static tl_web_place *take_place(tl_web *web, tl_web_request *r)
{
    for (unsigned i = 0; i < TL_WEB_SLOTS; i++) {
        tl_web_place *place = &web->place[i];
        if (place->ref == 0) {
            web->count = (web->count + 1) & 0xFFFFFFu;
            place->ref = (web->count == 0 ? 1u : web->count) << 8 | i;
            place->request = r;
            place->response = NULL;
            place->queued = place->chunked = place->core_done = place->wants_body = place->wants_room = false;
            place->how = TL_FILL_MORE;
            place->answer_at = place->answer_n = place->head_n = 0;
            return place;
        }
    }
    return NULL;
}

/* --- the request's head --- */

static void put(tl_web_place *place, const char *text)
{
    const size_t n = strlen(text);
    if (n > TL_WEB_HEAD_MAX - place->head_n) {
        place->head_n = TL_WEB_HEAD_MAX + 1; /* seen at the end */
    } else if (place->head_n <= TL_WEB_HEAD_MAX) {
        memcpy(place->head + place->head_n, text, n);
        place->head_n += n;
    }
}

static enum MHD_Result put_header(void *to, enum MHD_ValueKind kind, const char *name, const char *value)
{
    tl_web_place *place = to;
    (void)kind;
    if (strcasecmp(name, "Expect") != 0 && place->head_n <= TL_WEB_HEAD_MAX) { /* the server answers 100 itself */
        put(place, name);
        put(place, ": ");
        put(place, value != NULL ? value : "");
        put(place, "\r\n");
    }
    return MHD_YES;
}

static bool write_head(tl_web_place *place, const tl_web_request *r, const char *method, const char *version)
{
    put(place, method);
    put(place, " ");
    put(place, r->target);
    put(place, " ");
    put(place, version);
    put(place, "\r\n");
    MHD_get_connection_values(r->connection, MHD_HEADER_KIND, put_header, place);
    put(place, "\r\n");
    return r->target[0] != '\0' && place->head_n <= TL_WEB_HEAD_MAX;
}

static enum MHD_Result refuse(struct MHD_Connection *connection, unsigned status)
{
    struct MHD_Response *response = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    MHD_add_response_header(response, MHD_HTTP_HEADER_CONNECTION, "close");
    const enum MHD_Result queued = MHD_queue_response(connection, status, response);
    MHD_destroy_response(response);
    return queued;
}

static enum MHD_Result begin(tl_web_request *r, const char *method, const char *version)
{
    tl_web *web = r->web;
    tl_web_place *place = take_place(web, r);
    if (place == NULL) {
        wait_for_place(web, r);
        return MHD_YES;
    }
    r->place = place;
    if (!write_head(place, r, method, version)) {
        place->core_done = true; /* it never heard of it */
        return refuse(r->connection, MHD_HTTP_REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    return ask_core(r, TL_EVENT_WEB_REQUEST, (tl_span){place->head, place->head_n});
}

/* --- its body --- */

static enum MHD_Result body_came(tl_web_request *r, const char *bytes, size_t *n)
{
    tl_web_place *place = r->place;
    if (place->response != NULL || place->core_done) { /* it is refused, and may be answered behind it only */
        r->drained += *n;
        *n = 0;
        return r->drained <= TL_WEB_DRAIN_MAX ? MHD_YES : MHD_NO;
    }
    if (!place->wants_body) {
        tl_web_suspend(r);
        return MHD_YES;
    }
    const size_t piece = *n < TL_WEB_BODY_PIECE ? *n : TL_WEB_BODY_PIECE;
    memcpy(place->body, bytes, piece);
    *n -= piece;
    place->wants_body = false;
    return ask_core(r, TL_EVENT_WEB_BODY, (tl_span){place->body, piece});
}

static enum MHD_Result body_ended(tl_web_request *r)
{
    if (!r->place->wants_body) {
        tl_web_suspend(r);
        return MHD_YES;
    }
    r->phase = AT_END;
    return ask_core(r, TL_EVENT_WEB_BODY_OVER, (tl_span){NULL, 0});
}

/* --- its answer --- */

/* Called under the lock, which it gives up meanwhile: libmicrohttpd holds a lock of the response while it reads it. */
static enum MHD_Result queue_answer(tl_web_request *r)
{
    struct MHD_Response *response = r->place->response;
    const unsigned status = r->place->status;
    r->place->queued = true;
    pthread_mutex_unlock(&r->web->lock);
    const enum MHD_Result queued = MHD_queue_response(r->connection, status, response);
    MHD_destroy_response(response); /* the queue keeps it */
    pthread_mutex_lock(&r->web->lock);
    return queued;
}

static enum MHD_Result go_on(tl_web_request *r)
{
    if (r->place->response != NULL) {
        return queue_answer(r);
    }
    if (r->place->core_done) {
        return MHD_NO;
    }
    tl_web_suspend(r);
    return MHD_YES;
}

static enum MHD_Result on_request(void *of, struct MHD_Connection *connection, const char *url, const char *method,
                                  const char *version, const char *bytes, size_t *n, void **own)
{
    tl_web *web = of;
    tl_web_request *r = *own;
    enum MHD_Result result;
    (void)url;
    if (r == NULL) {
        return MHD_NO; /* no memory */
    }
    pthread_mutex_lock(&web->lock);
    r->connection = connection;
    if (web->stopping) {
        result = MHD_NO;
    } else if (r->place == NULL) {
        result = begin(r, method, version);
    } else if (r->phase == AT_HEAD && r->place->response == NULL && r->place->wants_body) {
        r->phase = IN_BODY;
        result = MHD_YES;
    } else if (r->phase == IN_BODY && *n > 0) {
        result = body_came(r, bytes, n);
    } else if (r->phase == IN_BODY && r->place->response == NULL && !r->place->core_done) {
        result = body_ended(r);
    } else {
        result = go_on(r);
    }
    pthread_mutex_unlock(&web->lock);
    return result;
}

/* The target as it came: what a route is called is compared byte by byte, so nothing may be decoded here. */
static void *on_target(void *of, const char *target, struct MHD_Connection *connection)
{
    tl_web_request *r = calloc(1, sizeof *r);
    if (r != NULL) {
        r->web = of;
        r->connection = connection;
        if (strlen(target) < sizeof r->target) {
            memcpy(r->target, target, strlen(target) + 1);
        }
    }
    return r;
}

static size_t as_it_is(void *of, struct MHD_Connection *connection, char *text)
{
    (void)of;
    (void)connection;
    return strlen(text);
}

static void on_over(void *of, struct MHD_Connection *connection, void **own, enum MHD_RequestTerminationCode why)
{
    tl_web *web = of;
    tl_web_request *r = *own;
    (void)connection;
    (void)why;
    if (r == NULL) {
        return;
    }
    *own = NULL;
    pthread_mutex_lock(&web->lock);
    tl_event gone = {.kind = TL_EVENT_NONE};
    if (r->place != NULL) {
        r->place->request = NULL;
        if (!r->place->core_done) {
            gone = (tl_event){.kind = TL_EVENT_WEB_GONE, .number = r->place->ref};
        }
        tl_web_free_if_over(web, r->place);
    }
    for (size_t i = 0; i < TL_WEB_CONNECTIONS; i++) {
        web->waiting[i] = web->waiting[i] == r ? NULL : web->waiting[i];
    }
    pthread_mutex_unlock(&web->lock);
    free(r);
    if (gone.kind != TL_EVENT_NONE) {
        tl_queue_post_last(web->queue, &gone);
    }
}

static bool start(void *with)
{
    tl_web *web = with;
    const unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME;
    web->stopping = false;
    web->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, web, MHD_OPTION_SOCK_ADDR, &web->listen, MHD_OPTION_CONNECTION_LIMIT,
        TL_WEB_CONNECTIONS, MHD_OPTION_CONNECTION_TIMEOUT, TL_WEB_IDLE_S, MHD_OPTION_CONNECTION_MEMORY_LIMIT,
        (size_t)TL_WEB_CONNECTION_BYTES, MHD_OPTION_LISTENING_ADDRESS_REUSE, 1u, MHD_OPTION_NOTIFY_COMPLETED, on_over,
        web, MHD_OPTION_URI_LOG_CALLBACK, on_target, web, MHD_OPTION_UNESCAPE_CALLBACK, as_it_is, NULL, MHD_OPTION_END);
    return web->daemon != NULL;
}

uint16_t tl_web_bound_port(const tl_web *web)
{
    const union MHD_DaemonInfo *info =
        web->daemon != NULL ? MHD_get_daemon_info(web->daemon, MHD_DAEMON_INFO_BIND_PORT) : NULL;
    return info != NULL ? info->port : 0;
}

static void stop(tl_web *web)
{
    if (web->daemon == NULL) {
        return;
    }
    pthread_mutex_lock(&web->lock);
    web->stopping = true;
    tl_web_resume_waiting(web); /* it may not be stopped while something is suspended */
    for (size_t i = 0; i < TL_WEB_SLOTS; i++) {
        tl_web_resume(web->place[i].ref != 0 ? web->place[i].request : NULL);
    }
    pthread_mutex_unlock(&web->lock);
    MHD_stop_daemon(web->daemon);
    web->daemon = NULL;
}

void tl_web_init(tl_web *web, tl_queue *queue, const struct sockaddr_in *listen)
{
    memset(web, 0, sizeof *web);
    web->queue = queue;
    web->listen = *listen;
    pthread_mutex_init(&web->lock, NULL);
    web->port = (tl_port_web){.with = web, .start = start};
    tl_web_core_side(web);
}

void tl_web_end(tl_web *web)
{
    stop(web);
    pthread_mutex_destroy(&web->lock);
}
