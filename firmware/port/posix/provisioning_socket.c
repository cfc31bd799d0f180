#include "provisioning_socket.h"

#include "protobuf.h"
#include "psa_crypto.h"
#include "towline/bytes.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static const char PROTO_VERSION[] =
    "{\"prov\":{\"ver\":\"v1.1\",\"sec_ver\":2,\"sec_patch_ver\":1,\"cap\":[\"wifi_prov\"]}}";

/* network_config.proto: a payload's type and message, and what is in the messages. */
enum { CONFIG_TYPE = 1, GET_STATUS = 0, SET_CONFIG = 2, APPLY_CONFIG = 4, FIRST_MESSAGE = 10 };
enum { SET_SSID = 1, SET_PASSPHRASE = 2, STATION_STATE = 2, FAIL_REASON = 10, CONNECTED = 11 };
enum { NETWORK_NOT_FOUND = 1, STATE_CONNECTED = 0, STATE_FAILED = 3 };
enum { STATUS = 1, SUCCESS = 0, INVALID_ARGUMENT = 4 };
enum { OK = 200, NOT_FOUND = 404, FAILED = 500 };

/* --- asking the core --- */

static struct timespec deadline(uint32_t ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000u);
    return at;
}

/* What the core answers, in `reply`; false: it did not, or provisioning ends. */
static bool ask(tl_provisioning_socket *p, tl_provisioning_endpoint endpoint, tl_span bytes)
{
    const tl_event event = {.kind = TL_EVENT_PROVISIONING_REQUEST, .number = endpoint, .bytes = bytes};
    pthread_mutex_lock(&p->lock);
    p->asked = true;
    pthread_mutex_unlock(&p->lock);
    const bool posted = tl_queue_post(p->queue, &event);
    const struct timespec until = deadline(TL_PROVISIONING_ASK_MS);
    int waited = 0;
    pthread_mutex_lock(&p->lock);
    while (posted && p->asked && !p->stopping && waited == 0) {
        waited = pthread_cond_timedwait(&p->told, &p->lock, &until);
    }
    const bool answered = posted && !p->asked && !p->stopping;
    p->over = p->over || (posted && !answered); /* the core may still read what it was asked */
    p->asked = false;
    pthread_mutex_unlock(&p->lock);
    return answered;
}

static void answer(void *with, tl_span bytes)
{
    tl_provisioning_socket *p = with;
    pthread_mutex_lock(&p->lock);
    if (p->asked && bytes.n <= sizeof p->reply) {
        if (bytes.n > 0) {
            memcpy(p->reply, bytes.at, bytes.n);
        }
        p->reply_n = bytes.n;
        p->asked = false;
        pthread_cond_signal(&p->told);
    }
    pthread_mutex_unlock(&p->lock);
}

/* --- prov-config --- */

static bool get_status(tl_provisioning_socket *p, tl_out *message)
{
    if (!ask(p, TL_PROVISIONING_WIFI, (tl_span){NULL, 0}) || p->reply_n != 1) {
        return false;
    }
    tl_pb_put_number(message, STATION_STATE, p->reply[0]);
    if (p->reply[0] == STATE_CONNECTED) {
        tl_pb_put_bytes(message, CONNECTED, (tl_span){NULL, 0});
    } else if (p->reply[0] == STATE_FAILED) {
        tl_pb_put_number(message, FAIL_REASON, NETWORK_NOT_FOUND);
    }
    return true;
}

static bool set_config(tl_provisioning_socket *p, tl_span request, tl_out *message)
{
    tl_span ssid, password;
    if (!tl_pb_bytes(request, SET_PASSPHRASE, &password)) {
        password = (tl_span){NULL, 0}; /* an open network */
    }
    const bool fits = tl_pb_bytes(request, SET_SSID, &ssid) && ssid.n > 0 && ssid.n <= TL_WIFI_SSID_MAX &&
                      password.n <= TL_WIFI_PASSWORD_MAX && memchr(ssid.at, 0, ssid.n) == NULL;
    tl_out out = {(uint8_t *)p->wifi, 0, sizeof p->wifi, false};
    if (fits) {
        tl_put_span(&out, ssid);
        tl_put_u8(&out, 0);
        tl_put_span(&out, password);
    }
    p->wifi_n = out.n;
    tl_pb_put_number(message, STATUS, fits ? SUCCESS : INVALID_ARGUMENT);
    return true;
}

static bool apply_config(tl_provisioning_socket *p, tl_out *message)
{
    if (p->wifi_n > 0 && !ask(p, TL_PROVISIONING_WIFI, (tl_span){(const uint8_t *)p->wifi, p->wifi_n})) {
        return false;
    }
    tl_pb_put_number(message, STATUS, p->wifi_n > 0 && p->reply_n == 1 ? SUCCESS : INVALID_ARGUMENT);
    return true;
}

/* Each command has the number of its type, its answer the next; the messages stand in fields in the same order. */
static bool configure(tl_provisioning_socket *p, tl_span request, tl_out *to)
{
    uint8_t room[64];
    tl_out message = {room, 0, sizeof room, false};
    uint64_t type;
    tl_span command = {NULL, 0};
    if (!tl_pb_number(request, CONFIG_TYPE, &type) || type > APPLY_CONFIG) {
        return false;
    }
    const uint32_t field = FIRST_MESSAGE + (uint32_t)type;
    (void)tl_pb_bytes(request, field, &command); /* one without members may be left out */
    const bool done = type == GET_STATUS     ? get_status(p, &message)
                      : type == SET_CONFIG   ? set_config(p, command, &message)
                      : type == APPLY_CONFIG ? apply_config(p, &message)
                                             : false;
    tl_pb_put_number(to, CONFIG_TYPE, type + 1);
    tl_pb_put_bytes(to, field + 1, (tl_span){message.at, message.n});
    return done && !message.full;
}

/* --- requests --- */

static bool in_session(tl_provisioning_socket *p, tl_out *to)
{
    const bool wifi = tl_is(p->parser.request.path, "/prov-config");
    uint8_t room[sizeof p->reply];
    tl_out plain = {p->plain, 0, sizeof p->plain, false}, reply = {room, 0, sizeof room, false};
    if (!tl_security2_read(&p->session, (tl_span){p->body, p->body_n}, &plain)) {
        return false;
    }
    const tl_span request = {p->plain, plain.n};
    if (wifi ? !configure(p, request, &reply) : !ask(p, TL_PROVISIONING_TOWLINE, request)) {
        return false;
    }
    return tl_security2_write(&p->session, wifi ? (tl_span){room, reply.n} : (tl_span){p->reply, p->reply_n}, to);
}

static unsigned respond(tl_provisioning_socket *p, tl_out *to)
{
    const tl_span path = p->parser.request.path;
    bool done = false;
    if (!tl_is(p->parser.request.method, "POST")) {
        return NOT_FOUND;
    }
    if (tl_is(path, "/proto-ver")) {
        tl_put_text(to, PROTO_VERSION);
        done = true;
    } else if (tl_is(path, "/prov-session")) {
        done = tl_security2_handshake(&p->session, (tl_span){p->body, p->body_n}, to);
    } else if (tl_is(path, "/prov-config") || tl_is(path, "/towline")) {
        done = in_session(p, to);
    } else {
        return NOT_FOUND;
    }
    return done && !to->full ? OK : FAILED;
}

/* A session is a connection's, or of whoever has its cookie. */
static void find_session(tl_provisioning_socket *p, bool *ours)
{
    char cookie[32];
    const int n = snprintf(cookie, sizeof cookie, "session=%u", (unsigned)p->cookie);
    const tl_span told = p->parser.request.header[TL_H_COOKIE];
    if (*ours || (p->cookie != 0 && tl_same(told, (tl_span){(const uint8_t *)cookie, (size_t)n}))) {
        *ours = true;
        return;
    }
    tl_security2_end(&p->session);
    do {
        tl_psa_crypto()->random((uint8_t *)&p->cookie, sizeof p->cookie);
    } while (p->cookie == 0);
    *ours = true;
}

static bool send_all(int line, tl_span bytes)
{
    while (bytes.n > 0) {
        const ssize_t n = send(line, bytes.at, bytes.n, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        (void)tl_take(&bytes, (size_t)n);
    }
    return true;
}

static bool send_answer(tl_provisioning_socket *p, int line, unsigned status, const tl_out *body)
{
    char head[160];
    const size_t n = status == OK ? body->n : 0;
    const int head_n =
        snprintf(head, sizeof head, "HTTP/1.1 %u %s\r\nContent-Length: %zu\r\nSet-Cookie: session=%u\r\n\r\n", status,
                 status == OK ? "OK" : "No", n, (unsigned)p->cookie);
    return send_all(line, (tl_span){(const uint8_t *)head, (size_t)head_n}) && send_all(line, (tl_span){body->at, n});
}

/* --- a connection --- */

/* Whether there is something to read; false: it was quiet for too long, or the end is near. */
static bool wait_readable(const tl_provisioning_socket *p, int line, int ms)
{
    struct pollfd ready[2] = {{.fd = line, .events = POLLIN}, {.fd = p->wake, .events = POLLIN}};
    int n;
    do {
        n = poll(ready, 2, ms);
    } while (n < 0 && errno == EINTR);
    return n > 0 && ready[1].revents == 0;
}

/* A request's end came: answers it. */
static bool finish(tl_provisioning_socket *p, int line, bool *ours)
{
    uint8_t room[1024];
    tl_out out = {room, 0, sizeof room, false};
    find_session(p, ours);
    const unsigned status = respond(p, &out);
    p->over = p->over || p->session.wrong >= TL_PROVISIONING_TRIES;
    return send_answer(p, line, status, &out) && !p->over;
}

static bool feed(tl_provisioning_socket *p, int line, tl_span came, bool *ours)
{
    for (;;) {
        size_t taken;
        const tl_http_result result = tl_http_feed(&p->parser, came, &taken);
        (void)tl_take(&came, taken);
        switch (result) {
        case TL_HTTP_HEAD:
            p->body_n = 0;
            break;
        case TL_HTTP_BODY:
            if (p->parser.body.n > sizeof p->body - p->body_n) {
                return false;
            }
            memcpy(p->body + p->body_n, p->parser.body.at, p->parser.body.n);
            p->body_n += p->parser.body.n;
            break;
        case TL_HTTP_END:
            if (!finish(p, line, ours)) {
                return false;
            }
            break;
        default:
            return result == TL_HTTP_MORE;
        }
    }
}

static void serve(tl_provisioning_socket *p, int line)
{
    uint8_t came[2048];
    bool ours = false;
    tl_http_init(&p->parser);
    while (wait_readable(p, line, TL_PROVISIONING_QUIET_MS)) {
        const ssize_t n = recv(line, came, sizeof came, 0);
        if (n <= 0 || !feed(p, line, (tl_span){came, (size_t)n}, &ours)) {
            break;
        }
    }
}

static void *run(void *of)
{
    tl_provisioning_socket *p = of;
    tl_security2_init(&p->session, p->record);
    while (!p->over && wait_readable(p, p->listener, -1)) {
        const int line = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        if (line >= 0) {
            serve(p, line);
            close(line);
        }
    }
    tl_security2_end(&p->session);
    if (p->over) {
        const tl_event over = {.kind = TL_EVENT_PROVISIONING_OVER};
        (void)tl_queue_post(p->queue, &over);
    }
    return NULL;
}

/* --- the group of the port header --- */

static bool record(void *with, tl_span user, tl_span password, uint8_t *to)
{
    (void)with;
    return tl_srp_new_record(user, password, to);
}

static bool listen_on(tl_provisioning_socket *p)
{
    static const int yes = 1;
    p->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return p->listener >= 0 && setsockopt(p->listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0 &&
           bind(p->listener, (const struct sockaddr *)&p->listen, sizeof p->listen) == 0 && listen(p->listener, 4) == 0;
}

static void close_all(tl_provisioning_socket *p)
{
    if (p->listener >= 0) {
        close(p->listener);
    }
    if (p->wake >= 0) {
        close(p->wake);
    }
    p->listener = p->wake = -1;
}

static bool start(void *with, const tl_provisioning_offer *offer)
{
    tl_provisioning_socket *p = with;
    tl_out kept = {p->record, 0, sizeof p->record, false};
    tl_put_span(&kept, offer->salt);
    tl_put_span(&kept, offer->verifier);
    if (p->started || kept.n != sizeof p->record) {
        return false;
    }
    p->stopping = p->over = false;
    p->wake = eventfd(0, EFD_CLOEXEC);
    p->started = p->wake >= 0 && listen_on(p) && pthread_create(&p->thread, NULL, run, p) == 0;
    if (!p->started) {
        close_all(p);
    }
    return p->started;
}

static void stop(void *with)
{
    tl_provisioning_socket *p = with;
    if (!p->started) {
        return;
    }
    pthread_mutex_lock(&p->lock);
    p->stopping = true;
    pthread_cond_signal(&p->told);
    pthread_mutex_unlock(&p->lock);
    (void)eventfd_write(p->wake, 1);
    pthread_join(p->thread, NULL);
    close_all(p);
    p->started = false;
}

void tl_provisioning_socket_init(tl_provisioning_socket *p, tl_queue *queue, const struct sockaddr_in *listen)
{
    pthread_condattr_t monotonic;
    memset(p, 0, sizeof *p);
    p->queue = queue;
    p->listen = *listen;
    p->listener = p->wake = -1;
    p->port = (tl_port_provisioning){p, record, start, answer, stop};
    pthread_mutex_init(&p->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->told, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void tl_provisioning_socket_end(tl_provisioning_socket *p)
{
    stop(p);
    pthread_cond_destroy(&p->told);
    pthread_mutex_destroy(&p->lock);
}
