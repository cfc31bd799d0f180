/* The local web server, by esp_http_server.
 *
 * It parses; a request is then put into a head of HTTP/1.1 again, so that the core reads requests of the LAN and of the
 * tunnel by the same code. A request leaves the server's task (an asynchronous request) and waits in a slot; the
 * core's answers are sent by that task, in its turn. Who is slow holds the LAN's other clients up for
 * SEND_WAIT_S at most, and nobody else.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

#include "esp_http_server.h"
#include "freertos/semphr.h"
#include "towline/http_parse.h"

/* lwIP has 10 sockets; the server takes three beside these, and the tunnel, messages and a fetch one each. */
enum { SOCKETS = 4, STACK = 5120, SEND_WAIT_S = 5, RECEIVE_WAIT_S = 5 };

typedef struct {
    /* Under the lock. */
    httpd_req_t *request; /* NULL: free */
    uint32_t count;       /* of the requests that were here */
    size_t answer_n;      /* > 0, or `over`: it waits to be sent, and the core leaves `answer` alone */
    bool over, broken, wants_room, gone;
    /* Of the server's task. */
    size_t body_left;
    bool expects_continue;
    char head[TL_HTTP_HEAD_MAX];
    size_t head_n;
    uint8_t body[TL_WEB_ANSWER_ROOM];
    char answer[TL_WEB_ANSWER_ROOM];
} web_slot;

typedef struct {
    SemaphoreHandle_t lock;
    httpd_handle_t server;
    web_slot slot[TL_WEB_SLOTS];
} web_state;

static web_state *web;

static void lock(void)
{
    xSemaphoreTake(web->lock, portMAX_DELAY);
}

static void unlock(void)
{
    xSemaphoreGive(web->lock);
}

static tl_web_ref ref_of(const web_slot *slot)
{
    return (slot->count << 8) | (tl_web_ref)(slot - web->slot);
}

static bool tell(const web_slot *slot, tl_event_kind kind, tl_span bytes)
{
    return tl_esp_post(&(tl_event){.kind = (uint8_t)kind, .number = ref_of(slot), .bytes = bytes});
}

/* --- the server's task --- */

/* The slot is free, and its reference dead. `cut`: nothing more is read from that client. */
static void end_request(web_slot *slot, bool cut)
{
    lock();
    httpd_req_t *request = slot->request;
    slot->request = NULL;
    unlock();
    if (cut || slot->body_left > 0) {
        httpd_sess_trigger_close(request->handle, httpd_req_to_sockfd(request));
    }
    httpd_req_async_handler_complete(request);
}

/* The core still has the reference: it says when the request is over. */
static void client_gone(web_slot *slot)
{
    lock();
    const bool news = !slot->gone;
    slot->gone = true;
    unlock();
    if (news && !tell(slot, TL_EVENT_WEB_GONE, (tl_span){NULL, 0})) {
        end_request(slot, true);
    }
}

static bool send_text(const web_slot *slot, const char *text, size_t n)
{
    for (size_t sent = 0; sent < n;) {
        const int some = httpd_send(slot->request, text + sent, n - sent);
        if (some <= 0) {
            return false;
        }
        sent += (size_t)some;
    }
    return true;
}

/* The client sends its body when it is told to, which the server does not do by itself. */
static bool invite(web_slot *slot)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    const bool waits = slot->expects_continue;
    slot->expects_continue = false;
    return !waits || send_text(slot, go_on, sizeof go_on - 1);
}

static bool read_piece(web_slot *slot)
{
    if (slot->body_left == 0) {
        return tell(slot, TL_EVENT_WEB_BODY_OVER, (tl_span){NULL, 0});
    }
    const size_t most = slot->body_left < sizeof slot->body ? slot->body_left : sizeof slot->body;
    const int n = invite(slot) ? httpd_req_recv(slot->request, (char *)slot->body, most) : -1;
    if (n <= 0) {
        return false;
    }
    slot->body_left -= (size_t)n;
    return tell(slot, TL_EVENT_WEB_BODY, (tl_span){slot->body, (size_t)n});
}

static void read_body(void *with)
{
    web_slot *slot = with;
    if (slot->request != NULL && !slot->gone && !slot->over && !read_piece(slot)) {
        client_gone(slot);
    }
}

static void send_answer(void *with)
{
    web_slot *slot = with;
    if (slot->request == NULL) {
        return;
    }
    const bool sent = !slot->gone && send_text(slot, slot->answer, slot->answer_n);
    if (slot->over) {
        end_request(slot, slot->broken || !sent);
        return;
    }
    lock();
    slot->answer_n = 0;
    const bool wanted = slot->wants_room;
    slot->wants_room = false;
    unlock();
    if (!sent) {
        client_gone(slot);
    } else if (wanted && !tell(slot, TL_EVENT_WEB_ROOM, (tl_span){NULL, 0})) {
        client_gone(slot);
    }
}

static const char *method_name(int method)
{
    switch (method) {
    case HTTP_GET:
        return "GET";
    case HTTP_HEAD:
        return "HEAD";
    case HTTP_POST:
        return "POST";
    case HTTP_PUT:
        return "PUT";
    case HTTP_PATCH:
        return "PATCH";
    case HTTP_DELETE:
        return "DELETE";
    case HTTP_OPTIONS:
        return "OPTIONS";
    default:
        return NULL;
    }
}

static bool put(web_slot *slot, const char *text)
{
    const size_t n = strlen(text);
    if (n > sizeof slot->head - slot->head_n) {
        return false;
    }
    memcpy(slot->head + slot->head_n, text, n);
    slot->head_n += n;
    return true;
}

static bool put_header(web_slot *slot, httpd_req_t *request, const char *name)
{
    const size_t n = httpd_req_get_hdr_value_len(request, name);
    if (n == 0) {
        return true;
    }
    if (!put(slot, name) || !put(slot, ": ") || n + 1 > sizeof slot->head - slot->head_n ||
        httpd_req_get_hdr_value_str(request, name, slot->head + slot->head_n, n + 1) != ESP_OK) {
        return false;
    }
    slot->head_n += n;
    return put(slot, "\r\n");
}

/* As it may stand on the line; only what the core reads. */
static bool write_head(web_slot *slot, httpd_req_t *request)
{
    static const char *const names[] = {"Host",          "Origin",          "Cookie",    "Content-Type", "If-None-Match",
                                        "Accept-Encoding", "X-Towline", "Connection"};
    const char *method = method_name(request->method);
    slot->head_n = 0;
    if (method == NULL || !put(slot, method) || !put(slot, " ") || !put(slot, request->uri) ||
        !put(slot, " HTTP/1.1\r\n")) {
        return false;
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (!put_header(slot, request, names[i])) {
            return false;
        }
    }
    if (request->content_len > 0) {
        char line[40];
        snprintf(line, sizeof line, "Content-Length: %u\r\n", (unsigned)request->content_len);
        if (!put(slot, line)) {
            return false;
        }
    }
    return put(slot, "\r\n");
}

static web_slot *free_slot(void)
{
    web_slot *found = NULL;
    for (size_t i = 0; found == NULL && i < TL_WEB_SLOTS; i++) {
        lock();
        found = web->slot[i].request == NULL ? &web->slot[i] : NULL;
        unlock();
    }
    return found;
}

static esp_err_t refuse(httpd_req_t *request, const char *status)
{
    httpd_resp_send_custom_err(request, status, status);
    return ESP_FAIL; /* the connection ends: a body may be on its way */
}

static esp_err_t on_request(httpd_req_t *request)
{
    web_slot *slot = free_slot();
    if (slot == NULL) {
        return refuse(request, "503 Service Unavailable");
    }
    if (httpd_req_get_hdr_value_len(request, "Transfer-Encoding") > 0) {
        return refuse(request, "411 Length Required");
    }
    if (!write_head(slot, request)) {
        return refuse(request, "431 Request Header Fields Too Large");
    }
    httpd_req_t *kept;
    if (httpd_req_async_handler_begin(request, &kept) != ESP_OK) {
        return refuse(request, "503 Service Unavailable");
    }
    lock();
    slot->request = kept;
    slot->count = slot->count % 0xFFFFFFu + 1;
    slot->answer_n = 0;
    slot->over = slot->broken = slot->wants_room = slot->gone = false;
    slot->body_left = kept->content_len;
    slot->expects_continue = httpd_req_get_hdr_value_len(kept, "Expect") > 0;
    unlock();
    if (!tell(slot, TL_EVENT_WEB_REQUEST, (tl_span){(const uint8_t *)slot->head, slot->head_n})) {
        end_request(slot, true);
    }
    return ESP_OK;
}

/* --- the core's side --- */

/* The slot of a request that is not over; NULL: a late caller. */
static web_slot *slot_of(tl_web_ref ref)
{
    web_slot *slot = tl_web_slot(ref) < TL_WEB_SLOTS ? &web->slot[tl_web_slot(ref)] : NULL;
    return slot != NULL && slot->request != NULL && !slot->over && ref_of(slot) == ref ? slot : NULL;
}

/* Refused only by a server that is no more: then no request goes on. */
static void do_in_server(httpd_work_fn_t work, web_slot *slot)
{
    if (httpd_queue_work(web->server, work, slot) != ESP_OK) {
        lock();
        slot->gone = true;
        unlock();
    }
}

static bool start(void *with)
{
    (void)with;
    httpd_config_t config = HTTPD_DEFAULT_CONFIG();
    config.server_port = CONFIG_TOWLINE_LAN_PORT;
    config.stack_size = STACK;
    config.max_open_sockets = SOCKETS;
    config.lru_purge_enable = true; /* idle connections give way */
    config.recv_wait_timeout = RECEIVE_WAIT_S;
    config.send_wait_timeout = SEND_WAIT_S;
    config.uri_match_fn = httpd_uri_match_wildcard;
    const httpd_uri_t all = {.uri = "/*", .method = (httpd_method_t)HTTP_ANY, .handler = on_request};
    return httpd_start(&web->server, &config) == ESP_OK && httpd_register_uri_handler(web->server, &all) == ESP_OK;
}

static bool take(void *with, tl_web_ref request, tl_out *answer)
{
    (void)with;
    bool room = false;
    lock();
    web_slot *slot = slot_of(request);
    if (slot != NULL) {
        room = slot->answer_n == 0 && !slot->gone;
        slot->wants_room = !room;
        *answer = (tl_out){(uint8_t *)slot->answer, 0, sizeof slot->answer, false};
    }
    unlock();
    return room;
}

static void send_part(void *with, tl_web_ref request, size_t n, tl_fill how)
{
    (void)with;
    lock();
    web_slot *slot = slot_of(request);
    bool work = false;
    if (slot != NULL) {
        slot->answer_n = n;
        slot->over = how == TL_FILL_END || how == TL_FILL_BROKEN;
        slot->broken = how == TL_FILL_BROKEN;
        work = n > 0 || slot->over;
    }
    unlock();
    if (work) {
        do_in_server(send_answer, slot);
    }
}

static void read_on(void *with, tl_web_ref request)
{
    (void)with;
    lock();
    web_slot *slot = slot_of(request);
    unlock();
    if (slot != NULL) {
        do_in_server(read_body, slot);
    }
}

const tl_port_web *tl_esp_web(void)
{
    static const tl_port_web group = {NULL, start, read_on, take, send_part};
    web = calloc(1, sizeof *web);
    configASSERT(web != NULL);
    web->lock = xSemaphoreCreateMutex();
    configASSERT(web->lock != NULL);
    return &group;
}
