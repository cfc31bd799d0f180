#include "fetch_lws.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n);

static const struct lws_protocols PROTOCOLS[] = {
    {.name = "fetch", .callback = on_event, .rx_buffer_size = TL_FETCH_PIECE},
    {.name = NULL},
};

/* --- the request's thread --- */

static bool stopped(tl_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    const bool stopping = f->stopping;
    pthread_mutex_unlock(&f->lock);
    return stopping;
}

static int end(tl_fetch *f, const char *why)
{
    f->over = true;
    if (f->why == NULL) {
        f->why = why;
    }
    return -1;
}

static void step_over(lws_sorted_usec_list_t *step)
{
    tl_fetch *f = lws_container_of(step, tl_fetch, step);
    end(f, "no answer in time");
    lws_cancel_service(f->context);
}

static void all_over(lws_sorted_usec_list_t *all)
{
    tl_fetch *f = lws_container_of(all, tl_fetch, all);
    end(f, "the answer takes too long");
    lws_cancel_service(f->context);
}

static void progress(tl_fetch *f)
{
    lws_sul_schedule(f->context, 0, &f->step, step_over, (lws_usec_t)TL_FETCH_STEP_MS * LWS_US_PER_MS);
}

static int tell(tl_fetch *f, tl_event event)
{
    event.number = f->number;
    if (stopped(f)) {
        return end(f, "stopped");
    }
    return tl_queue_post(f->queue, &event) ? 0 : end(f, "the core is stuck");
}

/* Gives the core what came, and waits until it is done with it: meanwhile TCP slows the server. */
static int give_piece(tl_fetch *f)
{
    struct timespec until;
    if (f->n == 0) {
        return 0;
    }
    pthread_mutex_lock(&f->lock);
    f->lent = true;
    pthread_mutex_unlock(&f->lock);
    const int told = tell(f, (tl_event){.kind = TL_EVENT_FETCH_DATA, .bytes = {f->piece, f->n}});
    f->n = 0;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += TL_FETCH_ALL_MS / 1000;
    pthread_mutex_lock(&f->lock);
    int waited = told;
    while (f->lent && !f->stopping && waited == 0) {
        waited = pthread_cond_timedwait(&f->changed, &f->lock, &until);
    }
    const bool done = !f->lent;
    pthread_mutex_unlock(&f->lock);
    progress(f);
    return done ? 0 : end(f, "the core is stuck");
}

static int content_came(tl_fetch *f, const uint8_t *content, size_t n)
{
    while (n > 0) {
        const size_t room = TL_FETCH_PIECE - f->n, part = n < room ? n : room;
        memcpy(f->piece + f->n, content, part);
        f->n += part;
        content += part;
        n -= part;
        if (f->n == TL_FETCH_PIECE && give_piece(f) != 0) {
            return -1;
        }
    }
    return 0;
}

static int head_came(tl_fetch *f, struct lws *wsi)
{
    char length[12];
    const unsigned status = lws_http_client_http_response(wsi);
    const bool told = lws_hdr_copy(wsi, length, sizeof length, WSI_TOKEN_HTTP_CONTENT_LENGTH) > 0;
    progress(f);
    return tell(f, (tl_event){.kind = TL_EVENT_FETCH_HEAD,
                              .status = (uint16_t)status,
                              .length = told ? (uint32_t)strtoul(length, NULL, 10) : TL_LENGTH_NOT_TOLD});
}

static int read_more(tl_fetch *f, struct lws *wsi)
{
    char *at = (char *)f->raw + LWS_PRE;
    int n = TL_FETCH_PIECE;
    if (lws_http_client_read(wsi, &at, &n) < 0) {
        return end(f, "the connection broke");
    }
    progress(f);
    return f->over ? -1 : give_piece(f);
}

static int add_header(struct lws *wsi, uint8_t **at, uint8_t *limit, const char *name, const char *value)
{
    const uint8_t *key = (const uint8_t *)name, *text = (const uint8_t *)value;
    return lws_add_http_header_by_name(wsi, key, text, (int)strlen(value), at, limit);
}

static int add_headers(tl_fetch *f, struct lws *wsi, void *in, size_t n)
{
    uint8_t **at = in, *limit = *at + n;
    char length[24];
    int failed = add_header(wsi, at, limit, "accept:", "application/json");
    if (f->bearer[0] != '\0') {
        failed |= add_header(wsi, at, limit, "authorization:", f->bearer);
    }
    if (f->body.n > 0) {
        snprintf(length, sizeof length, "%zu", f->body.n);
        failed |= add_header(wsi, at, limit, "content-type:", "application/json");
        failed |= add_header(wsi, at, limit, "content-length:", length);
        lws_client_http_body_pending(wsi, 1);
        lws_callback_on_writable(wsi);
    }
    return failed ? end(f, "no room for the request") : 0;
}

static int send_body(tl_fetch *f, struct lws *wsi)
{
    const size_t left = f->body.n - f->body_sent, n = left < TL_FETCH_PIECE ? left : TL_FETCH_PIECE;
    const bool last = n == left;
    if (left == 0) {
        return 0;
    }
    memcpy(f->raw + LWS_PRE, f->body.at + f->body_sent, n);
    if (lws_write(wsi, f->raw + LWS_PRE, n, last ? LWS_WRITE_HTTP_FINAL : LWS_WRITE_HTTP) < (int)n) {
        return end(f, "the connection broke");
    }
    f->body_sent += n;
    progress(f);
    if (last) {
        lws_client_http_body_pending(wsi, 0);
    } else {
        lws_callback_on_writable(wsi);
    }
    return 0;
}

static int failed(tl_fetch *f, const char *error, size_t n)
{
    snprintf(f->error, sizeof f->error, "%.*s", (int)n, error != NULL ? error : "");
    return end(f, f->error[0] != '\0' ? f->error : "could not connect");
}

static int on_event(struct lws *wsi, enum lws_callback_reasons reason, void *user, void *in, size_t n)
{
    struct lws_context *context = lws_get_context(wsi);
    tl_fetch *f = context != NULL ? lws_context_user(context) : NULL;
    (void)user;
    switch (reason) {
    case LWS_CALLBACK_CLIENT_APPEND_HANDSHAKE_HEADER:
        return add_headers(f, wsi, in, n);
    case LWS_CALLBACK_CLIENT_HTTP_WRITEABLE:
        return send_body(f, wsi);
    case LWS_CALLBACK_ESTABLISHED_CLIENT_HTTP:
        return head_came(f, wsi);
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP:
        return read_more(f, wsi);
    case LWS_CALLBACK_RECEIVE_CLIENT_HTTP_READ:
        return content_came(f, in, n);
    case LWS_CALLBACK_COMPLETED_CLIENT_HTTP:
        f->whole = give_piece(f) == 0;
        end(f, NULL);
        return -1;
    case LWS_CALLBACK_CLIENT_CONNECTION_ERROR:
        return failed(f, in, n);
    case LWS_CALLBACK_CLOSED_CLIENT_HTTP:
        end(f, "the connection broke");
        return 0;
    default:
        return 0;
    }
}

static void serve(tl_fetch *f)
{
    struct lws_client_connect_info info = {
        .context = f->context,
        .address = f->to.host,
        .host = f->to.authority,
        .port = f->to.port,
        .path = f->to.path,
        .method = f->method,
        .ssl_connection = (f->to.secure ? LCCSCF_USE_SSL : 0) | LCCSCF_HTTP_NO_FOLLOW_REDIRECT,
        .protocol = PROTOCOLS[0].name,
        .alpn = "http/1.1",
    };
    progress(f);
    lws_sul_schedule(f->context, 0, &f->all, all_over, (lws_usec_t)TL_FETCH_ALL_MS * LWS_US_PER_MS);
    if (lws_client_connect_via_info(&info) == NULL) {
        end(f, "could not connect");
    }
    while (!f->over && !stopped(f) && lws_service(f->context, 0) >= 0) {
    }
    lws_sul_cancel(&f->step);
    lws_sul_cancel(&f->all);
}

static void set_context(tl_fetch *f, struct lws_context *context)
{
    pthread_mutex_lock(&f->lock);
    f->context = context;
    pthread_mutex_unlock(&f->lock);
}

static void *run(void *of)
{
    tl_fetch *f = of;
    tl_lws lws;
    if (!f->over && tl_lws_begin(&lws, PROTOCOLS, &f->to, f)) {
        set_context(f, lws.context);
        serve(f);
        set_context(f, NULL);
        tl_lws_end(&lws);
    }
    const tl_event last = {
        .kind = f->whole ? TL_EVENT_FETCH_END : TL_EVENT_FETCH_FAILED,
        .number = f->number,
        .why = f->whole ? NULL : f->why != NULL ? f->why : "no certificate to trust, or no memory",
    };
    pthread_mutex_lock(&f->lock);
    f->under_way = false;
    const bool stopping = f->stopping;
    pthread_mutex_unlock(&f->lock);
    if (!stopping) {
        tl_queue_post_last(f->queue, &last);
    }
    return NULL;
}

/* --- the core's side --- */

static void join(tl_fetch *f)
{
    if (f->has_thread) {
        pthread_join(f->thread, NULL);
        f->has_thread = false;
    }
}

static uint32_t start(void *with, const tl_fetch_request *request)
{
    tl_fetch *f = with;
    pthread_mutex_lock(&f->lock);
    const bool busy = f->under_way && !f->stopping;
    pthread_mutex_unlock(&f->lock);
    if (busy || request->bearer.n > TL_FETCH_BEARER_MAX - sizeof "Bearer ") {
        return 0;
    }
    join(f);
    f->number = f->number % UINT32_MAX + 1;
    f->over = f->whole = f->lent = f->stopping = false;
    f->why = NULL;
    f->n = f->body_sent = 0;
    f->body = request->body;
    snprintf(f->method, sizeof f->method, "%s", request->method);
    f->bearer[0] = '\0';
    if (request->bearer.n > 0) {
        snprintf(f->bearer, sizeof f->bearer, "Bearer %.*s", (int)request->bearer.n, (const char *)request->bearer.at);
    }
    if (!tl_lws_address_read(&f->to, &request->to)) {
        end(f, "no address that may be dialled");
    }
    f->under_way = true; /* before there is a thread: it says when it is over, which may be at once */
    f->has_thread = pthread_create(&f->thread, NULL, run, f) == 0;
    if (!f->has_thread) {
        f->under_way = false;
    }
    return f->has_thread ? f->number : 0;
}

static void release(void *with, tl_span data)
{
    tl_fetch *f = with;
    (void)data; /* there is one piece */
    pthread_mutex_lock(&f->lock);
    f->lent = false;
    pthread_cond_signal(&f->changed);
    pthread_mutex_unlock(&f->lock);
}

static void stop(void *with)
{
    tl_fetch *f = with;
    pthread_mutex_lock(&f->lock);
    f->stopping = true;
    pthread_cond_signal(&f->changed);
    if (f->context != NULL) {
        lws_cancel_service(f->context);
    }
    pthread_mutex_unlock(&f->lock);
}

void tl_fetch_init(tl_fetch *f, tl_queue *queue)
{
    memset(f, 0, sizeof *f);
    f->queue = queue;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->changed, &monotonic);
    pthread_condattr_destroy(&monotonic);
    f->port = (tl_port_fetch){f, start, release, stop};
}

void tl_fetch_end(tl_fetch *f)
{
    stop(f);
    join(f);
    pthread_cond_destroy(&f->changed);
    pthread_mutex_destroy(&f->lock);
}
