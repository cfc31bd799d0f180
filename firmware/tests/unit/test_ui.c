/* The page's routes, asked by whole requests; the answers cut as lines with little room cut them. */
#include <stdlib.h>

#include "check.h"
#include "towline/bytes.h"
#include "towline/ui.h"
#include "toy_crypto.h"

#define ANSWER_MAX 60000u

typedef struct {
    tl_ui_facts facts;
    tl_ui_sensor sensors[20];
    unsigned sensor_count;
    tl_ui_line lines[600];
    unsigned line_count;
    bool lines_grow; /* each that is read makes another */
    tl_ui_settings kept, told;
    char told_text[5][400];
    unsigned changes, begun, ended, dropped, restarts, resets;
    const char *why, *begin_why, *add_why, *end_why;
    uint64_t size, got;
    bool force;
} machine;

static void facts(void *device, tl_ui_facts *into)
{
    *into = ((machine *)device)->facts;
}

static bool sensor(void *device, unsigned index, tl_ui_sensor *into)
{
    const machine *m = device;
    if (index >= m->sensor_count) {
        return false;
    }
    *into = m->sensors[index];
    return true;
}

static bool line(void *device, uint32_t after, tl_ui_line *into)
{
    machine *m = device;
    if (m->lines_grow) {
        *into = (tl_ui_line){after + 1, 5, 'I', tl_text("asked")};
        return true;
    }
    for (unsigned i = 0; i < m->line_count; i++) {
        if (m->lines[i].number > after) {
            *into = m->lines[i];
            return true;
        }
    }
    return false;
}

static void settings(void *device, tl_ui_settings *into)
{
    *into = ((machine *)device)->kept;
}

static void keep(machine *m, unsigned i, tl_span from, tl_span *to)
{
    *to = (tl_span){NULL, 0};
    if (from.at != NULL) {
        memcpy(m->told_text[i], from.at, from.n);
        *to = (tl_span){(uint8_t *)m->told_text[i], from.n};
    }
}

static const char *change(void *device, const tl_ui_settings *to)
{
    machine *m = device;
    m->changes++;
    m->told = *to;
    keep(m, 0, to->name, &m->told.name);
    keep(m, 1, to->ssid, &m->told.ssid);
    keep(m, 2, to->password, &m->told.password);
    keep(m, 3, to->gateway, &m->told.gateway);
    keep(m, 4, to->token, &m->told.token);
    return m->why;
}

static const char *image_begin(void *device, uint64_t size, bool force)
{
    machine *m = device;
    m->begun++;
    m->size = size;
    m->force = force;
    m->got = 0;
    return m->begin_why;
}

static const char *image_add(void *device, tl_span piece)
{
    ((machine *)device)->got += piece.n;
    return ((machine *)device)->add_why;
}

static const char *image_end(void *device)
{
    ((machine *)device)->ended++;
    return ((machine *)device)->end_why;
}

static void image_drop(void *device)
{
    ((machine *)device)->dropped++;
}

static void restart(void *device)
{
    ((machine *)device)->restarts++;
}

static void reset(void *device)
{
    ((machine *)device)->resets++;
}

static const tl_ui_device CALLS = {facts,     sensor,    line,       settings, change, image_begin,
                                   image_add, image_end, image_drop, restart,  reset};

typedef struct {
    machine machine;
    tl_login login;
    tl_ui ui;
    tl_grant grant;
    uint8_t small[TL_SMALL_BODY_MAX];
    char cookie[64];
} world;

static world *started(void)
{
    world *w = calloc(1, sizeof *w);
    tl_login_init(&w->login, &TOY_CRYPTO, NULL);
    CHECK(tl_login_set_pin(&w->login, tl_text("12345678")));
    tl_ui_init(&w->ui, &CALLS, &w->machine, &w->login, 4);
    (void)tl_ui_tick(&w->ui, 1000);
    w->machine.facts.rssi = w->machine.facts.time_s = TL_UI_UNKNOWN;
    return w;
}

/* One request and its answer. */
typedef struct {
    tl_http_request request;
    tl_exchange x;
    tl_fill how;
    char text[ANSWER_MAX + 1];
    size_t n;
} answer;

#define LAN_HOST "device.local"

static void begin(world *w, answer *a, const char *head, bool by_tunnel)
{
    static const tl_span host = {(const uint8_t *)LAN_HOST, sizeof LAN_HOST - 1};
    CHECK_NAMED(tl_http_read_head(tl_text(head), &a->request) == 0, head);
    const tl_exchange_origin origin = {.request = &a->request, .by_tunnel = by_tunnel, .grant = by_tunnel ? &w->grant : NULL,
                                       .logged_in = !by_tunnel && tl_login_holds(&w->login, a->request.header[TL_H_COOKIE], w->ui.now_ms),
                                       .hosts = &host, .host_count = 1};
    a->n = 0;
    a->how = TL_FILL_MORE;
    tl_exchange_begin(&a->x, TL_UI_ROUTES, &origin, &w->ui, (tl_out){w->small, 0, sizeof w->small, false});
}

/* Fills until there is nothing more for now. */
static void read_on(answer *a, size_t room)
{
    for (a->how = TL_FILL_MORE; a->how == TL_FILL_MORE && a->n + room <= ANSWER_MAX;) {
        uint8_t *exact = malloc(room);
        tl_out out = {exact, 0, room, false};
        a->how = tl_exchange_fill(&a->x, &out);
        memcpy(a->text + a->n, exact, out.n);
        a->n += out.n;
        free(exact);
    }
    a->text[a->n] = '\0';
}

static int status_of(const answer *a)
{
    return a->n > 12 ? atoi(a->text + 9) : 0;
}

static answer *ask(world *w, const char *head, const char *body, bool by_tunnel, size_t room)
{
    answer *a = calloc(1, sizeof *a);
    begin(w, a, head, by_tunnel);
    if (body[0] != '\0') {
        tl_exchange_body(&a->x, tl_text(body));
    }
    tl_exchange_body_over(&a->x);
    read_on(a, room);
    return a;
}

/* The answer's status, nothing else of it. */
static int asked(world *w, const char *head, const char *body, bool by_tunnel)
{
    answer *a = ask(w, head, body, by_tunnel, TL_FILL_ROOM_MIN);
    const int status = status_of(a);
    tl_exchange_over(&a->x);
    free(a);
    return status;
}

/* What was sent in chunks, without them; empty where they are not whole. */
static const char *content_of(const answer *a, bool whole)
{
    static char content[ANSWER_MAX];
    const char *at = strstr(a->text, "\r\n\r\n");
    size_t n = 0;
    CHECK(at != NULL && strstr(a->text, "Transfer-Encoding: chunked") != NULL);
    if (at == NULL) {
        return "";
    }
    for (at += 4; *at != '\0';) {
        char *end;
        const size_t size = strtoul(at, &end, 16);
        if (size == 0) {
            CHECK(whole && strcmp(end, "\r\n\r\n") == 0);
            content[n] = '\0';
            return content;
        }
        memcpy(content + n, end + 2, size);
        n += size;
        at = end + 2 + size + 2;
    }
    CHECK(!whole);
    content[n] = '\0';
    return content;
}

#define TUNNEL " HTTP/1.1\r\nHost: device.test\r\n"
#define LAN " HTTP/1.1\r\nHost: " LAN_HOST "\r\n"
#define OURS "X-Towline: 1\r\n"
#define LENGTH "Content-Length: 9\r\n"

static const size_t ROOMS[] = {TL_FILL_ROOM_MIN, 700, 1024, 2032};

/* --- the page --- */

static void the_page(void)
{
    world *w = started();
    for (size_t i = 0; i < sizeof ROOMS / sizeof *ROOMS; i++) {
        answer *a = ask(w, "GET /" TUNNEL "Accept-Encoding: gzip\r\n\r\n", "", true, ROOMS[i]);
        const char *body = strstr(a->text, "\r\n\r\n");
        CHECK(a->how == TL_FILL_END && status_of(a) == 200 && body != NULL);
        CHECK(a->n - (size_t)(body + 4 - a->text) == tl_page_size && memcmp(body + 4, tl_page, tl_page_size) == 0);
        CHECK(strstr(a->text, "Content-Encoding: gzip\r\n") != NULL && strstr(a->text, tl_page_policy) != NULL);
        free(a);
    }
    CHECK(tl_page_size <= 12 * 1024 && strstr(tl_page_policy, "unsafe") == NULL);
    char head[200];
    snprintf(head, sizeof head, "GET /" LAN "If-None-Match: W/%s\r\n\r\n", tl_page_etag);
    answer *a = ask(w, head, "", false, TL_FILL_ROOM_MIN);
    CHECK(status_of(a) == 304 && strcmp(a->text + a->n - 4, "\r\n\r\n") == 0 && a->how == TL_FILL_END);
    free(a);
    a = ask(w, "HEAD /" LAN "\r\n", "", false, TL_FILL_ROOM_MIN);
    CHECK(status_of(a) == 200 && strcmp(a->text + a->n - 4, "\r\n\r\n") == 0 && a->how == TL_FILL_END);
    free(a);
    free(w);
}

/* --- who may --- */

static void nothing_without_a_login(void)
{
    static const char *const heads[] = {
        "POST /api/logout" LAN OURS "\r\n", "GET /api/status" LAN "\r\n", "GET /api/live" LAN "\r\n",
        "GET /api/logs" LAN "\r\n", "GET /api/settings" LAN "\r\n", "POST /api/settings" LAN OURS LENGTH "\r\n",
        "POST /api/firmware" LAN OURS LENGTH "\r\n", "POST /api/restart" LAN OURS "\r\n", "POST /api/reset" LAN OURS "\r\n",
    };
    world *w = started();
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        CHECK_NAMED(asked(w, heads[i], "", false) == 401, heads[i]);
    }
    const machine *m = &w->machine;
    CHECK(m->changes + m->begun + m->dropped + m->restarts + m->resets == 0 && w->ui.live[0] == 0);
    CHECK(TL_UI_ROUTES.count == 2 + sizeof heads / sizeof *heads); /* the page and the login are for anyone */
    free(w);
}

#define PIN(pin) "{\"pin\":\"" pin "\"}"

static void logging_in(void)
{
    world *w = started();
    CHECK(asked(w, "POST /api/login" TUNNEL OURS "Content-Length: 18\r\n\r\n", PIN("12345678"), true) == 404);
    CHECK(asked(w, "POST /api/login" LAN "Content-Length: 18\r\n\r\n", PIN("12345678"), false) == 403);
    static const char *const odd[] = {"", "12345678", "{}", "{\"pin\":12345678}", "[]", "{\"pin\":\"1", "{\"pin\":\"1\",\"pin\":\"1\"}"};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        CHECK_NAMED(asked(w, "POST /api/login" LAN OURS "Content-Length: 18\r\n\r\n", odd[i], false) == 400, odd[i]);
    }
    answer *a = ask(w, "POST /api/login" LAN OURS "Content-Length: 18\r\n\r\n", PIN("12345678"), false, TL_FILL_ROOM_MIN);
    const char *cookie = strstr(a->text, "Set-Cookie: towline=");
    CHECK(status_of(a) == 204 && cookie != NULL && strstr(a->text, "HttpOnly; SameSite=Strict") != NULL);
    char head[300];
    snprintf(head, sizeof head, "GET /api/status" LAN "Cookie: %.30s\r\n\r\n", cookie + strlen("Set-Cookie: "));
    free(a);
    CHECK(asked(w, head, "", false) == 200);
    snprintf(head, sizeof head, "POST /api/logout" LAN OURS "Cookie: towline=x\r\n\r\n");
    CHECK(asked(w, head, "", false) == 401);
    for (unsigned i = 0; i < TL_LOGIN_TRIES; i++) {
        a = ask(w, "POST /api/login" LAN OURS "Content-Length: 18\r\n\r\n", PIN("12345679"), false, TL_FILL_ROOM_MIN);
        CHECK(status_of(a) == 401 && strstr(a->text, "not the PIN") != NULL && strstr(a->text, "Set-Cookie") == NULL);
        free(a);
    }
    CHECK(asked(w, "POST /api/login" LAN OURS "Content-Length: 18\r\n\r\n", PIN("12345678"), false) == 429);
    (void)tl_ui_tick(&w->ui, 1000 + TL_LOGIN_WAIT_MS);
    CHECK(asked(w, "POST /api/login" LAN OURS "Content-Length: 18\r\n\r\n", PIN("12345678"), false) == 204);
    free(w);
}

static void logging_out(void)
{
    world *w = started();
    unsigned place;
    CHECK(tl_login_try(&w->login, tl_text("12345678"), 1000, &place) == 0);
    uint8_t room[160];
    tl_out out = {room, 0, sizeof room, false};
    tl_login_cookie(&w->login, place, &out);
    char head[300];
    snprintf(head, sizeof head, "POST /api/logout" LAN OURS "Cookie: %.30s\r\n\r\n", (char *)room);
    answer *a = ask(w, head, "", false, TL_FILL_ROOM_MIN);
    CHECK(status_of(a) == 204 && strstr(a->text, "Set-Cookie: towline=; Path=/; Max-Age=0") != NULL);
    CHECK(asked(w, head, "", false) == 401);
    free(a);
    free(w);
}

/* --- status and live --- */

static char LONG_TEXT[300];

/* Everything as long as it can be, and everything of it grows in JSON. */
static void fill_up(machine *m)
{
    memset(LONG_TEXT, 1, sizeof LONG_TEXT - 1);
    const tl_span text = tl_text(LONG_TEXT);
    tl_span *const texts[] = {&m->facts.device, &m->facts.name, &m->facts.hardware, &m->facts.version, &m->facts.reset_reason,
                              &m->facts.firmware, &m->facts.ssid, &m->facts.address, &m->facts.tunnel, &m->facts.messages};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        *texts[i] = text;
    }
    int64_t *const numbers[] = {&m->facts.uptime_s, &m->facts.time_s, &m->facts.rssi, &m->facts.memory_free, &m->facts.memory_least,
                                &m->facts.memory_block, &m->facts.outbox, &m->facts.streams, &m->facts.received};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        *numbers[i] = INT64_MIN + 1;
    }
    m->sensor_count = sizeof m->sensors / sizeof *m->sensors;
    for (unsigned i = 0; i < m->sensor_count; i++) {
        m->sensors[i] = (tl_ui_sensor){text, INT64_MIN + 1, 9};
    }
}

static void status(void)
{
    static const char expected[] =
        "{\"device\":\"d_1\",\"name\":\"Pump \\\"A\\\"\",\"hardware\":\"\",\"version\":\"1.2.3\",\"reset\":\"\",\"firmware\":\"\","
        "\"ssid\":\"\",\"address\":\"\",\"tunnel\":\"up\",\"messages\":\"\",\"uptime_s\":61,\"time_s\":null,\"rssi\":-70,"
        "\"memory_free\":0,\"memory_least\":0,\"memory_block\":0,\"outbox\":0,\"streams\":0,\"received\":0,"
        "\"by_tunnel\":true,\"support\":true,\"sensors\":[[\"heat_c\",21.50],[\"door\",null]]}";
    world *w = started();
    machine *m = &w->machine;
    m->facts.device = tl_text("d_1");
    m->facts.name = tl_text("Pump \"A\"");
    m->facts.version = tl_text("1.2.3");
    m->facts.tunnel = tl_text("up");
    m->facts.uptime_s = 61;
    m->facts.rssi = -70;
    m->sensors[0] = (tl_ui_sensor){tl_text("heat_c"), 2150, 2};
    m->sensors[1] = (tl_ui_sensor){tl_text("door"), TL_UI_UNKNOWN, 0};
    m->sensor_count = 2;
    w->grant.acting = true;
    for (size_t i = 0; i < sizeof ROOMS / sizeof *ROOMS; i++) {
        answer *a = ask(w, "GET /api/status" TUNNEL "\r\n", "", true, ROOMS[i]);
        CHECK(a->how == TL_FILL_END && strcmp(content_of(a, true), expected) == 0);
        free(a);
    }
    fill_up(m);
    for (size_t room = TL_FILL_ROOM_MIN; room < 2 * TL_FILL_ROOM_MIN; room++) {
        answer *a = ask(w, "GET /api/status" TUNNEL "\r\n", "", true, room);
        tl_json json;
        CHECK(a->how == TL_FILL_END && tl_json_check(tl_text(content_of(a, true)), &json) == TL_JSON_FINE);
        free(a);
    }
    free(w);
}

static void live(void)
{
    world *w = started();
    machine *m = &w->machine;
    CHECK(tl_ui_timer(&w->ui) == UINT64_MAX && !tl_ui_tick(&w->ui, 5000));
    fill_up(m);
    answer *a = ask(w, "GET /api/live" TUNNEL "\r\n", "", true, TL_FILL_ROOM_MIN);
    CHECK(a->how == TL_FILL_AGAIN && strstr(a->text, "Content-Type: text/event-stream\r\n") != NULL);
    CHECK(strncmp(content_of(a, false), "data:{", 6) == 0 && tl_ui_timer(&w->ui) == 6000);
    const size_t first = a->n;
    read_on(a, TL_FILL_ROOM_MIN);
    CHECK(a->how == TL_FILL_AGAIN && a->n == first); /* woken too early */
    CHECK(!tl_ui_tick(&w->ui, 5999) && tl_ui_tick(&w->ui, 6000) && tl_ui_timer(&w->ui) == 7000);
    read_on(a, TL_FILL_ROOM_MIN);
    CHECK(a->how == TL_FILL_AGAIN && a->n > first);
    const char *content = content_of(a, false), *second = strstr(content, "]}\n\ndata:{");
    CHECK(second != NULL && strcmp(content + strlen(content) - 4, "]}\n\n") == 0);
    answer *more[4];
    for (unsigned i = 0; i < 2; i++) {
        more[i] = ask(w, "GET /api/live" TUNNEL "\r\n", "", true, 2032);
        CHECK(more[i]->how == TL_FILL_AGAIN);
    }
    CHECK(w->ui.live[1] == 3 && asked(w, "GET /api/live" TUNNEL "\r\n", "", true) == 503 && w->ui.live[1] == 3);
    tl_exchange_over(&more[0]->x);
    CHECK(asked(w, "GET /api/live" TUNNEL "\r\n", "", true) == 200); /* it came, and went again */
    tl_exchange_over(&more[1]->x);
    tl_exchange_over(&a->x);
    CHECK(w->ui.live[1] == 0 && tl_ui_timer(&w->ui) == UINT64_MAX);
    free(more[0]);
    free(more[1]);
    free(a);
    a = ask(w, "HEAD /api/live" TUNNEL "\r\n", "", true, TL_FILL_ROOM_MIN);
    CHECK(a->how == TL_FILL_END && strcmp(a->text + a->n - 4, "\r\n\r\n") == 0);
    tl_exchange_over(&a->x);
    free(a);
    free(w);
}

static void live_on_the_lan(void)
{
    world *w = started();
    unsigned place;
    CHECK(tl_login_try(&w->login, tl_text("12345678"), 1000, &place) == 0);
    uint8_t room[160];
    tl_out out = {room, 0, sizeof room, false};
    tl_login_cookie(&w->login, place, &out);
    char head[300];
    snprintf(head, sizeof head, "GET /api/live" LAN "Cookie: %.30s\r\n\r\n", (char *)room);
    answer *a = ask(w, head, "", false, 1024), *b = ask(w, head, "", false, 1024);
    CHECK(a->how == TL_FILL_AGAIN && b->how == TL_FILL_AGAIN && asked(w, head, "", false) == 503);
    CHECK(tl_ui_tick(&w->ui, 2000));
    read_on(a, 1024);
    CHECK(a->how == TL_FILL_AGAIN);
    tl_login_end(&w->login, tl_text(strstr(head, "towline=")));
    char cookie[40];
    snprintf(cookie, sizeof cookie, "%.30s", (char *)room);
    tl_login_end(&w->login, tl_text(cookie));
    CHECK(tl_ui_tick(&w->ui, 3000));
    read_on(a, 1024);
    CHECK(a->how == TL_FILL_END && strcmp(a->text + a->n - 5, "0\r\n\r\n") == 0); /* logged out: so is what was open */
    tl_exchange_over(&a->x);
    tl_exchange_over(&b->x);
    CHECK(w->ui.live[0] == 0);
    free(a);
    free(b);
    free(w);
}

/* --- logs --- */

static void logs(void)
{
    world *w = started();
    machine *m = &w->machine;
    m->lines[0] = (tl_ui_line){7, 1234, 'W', tl_text("one\ntwo\x1b[31m")};
    m->lines[1] = (tl_ui_line){9, 99999999999, 'E', tl_text("")};
    m->line_count = 2;
    answer *a = ask(w, "GET /api/logs" TUNNEL "\r\n", "", true, 1024);
    CHECK(strcmp(content_of(a, true), "7 1234 W one two [31m\n9 99999999999 E \n") == 0);
    free(a);
    static const struct {
        const char *query;
        unsigned lines;
    } cases[] = {{"?after=6", 2}, {"?after=7", 1}, {"?after=8", 1}, {"?after=9", 0}, {"?after=999999999", 0}, {"?after=9999999999", 2},
                 {"?after=", 2}, {"?after=7x", 2}, {"?after=-7", 2}, {"?before=9", 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char head[100];
        snprintf(head, sizeof head, "GET /api/logs%s" TUNNEL "\r\n", cases[i].query);
        a = ask(w, head, "", true, TL_FILL_ROOM_MIN);
        unsigned count = 0;
        for (const char *at = content_of(a, true); *at != '\0'; at++) {
            count += *at == '\n';
        }
        CHECK_NAMED(a->how == TL_FILL_END && count == cases[i].lines, cases[i].query);
        free(a);
    }
    memset(LONG_TEXT, 'x', sizeof LONG_TEXT - 1);
    for (unsigned i = 0; i < 50; i++) {
        m->lines[i] = (tl_ui_line){UINT32_MAX - 50 + i, UINT32_MAX, 'D', tl_text(LONG_TEXT)};
    }
    m->line_count = 50;
    a = ask(w, "GET /api/logs" TUNNEL "\r\n", "", true, TL_FILL_ROOM_MIN);
    CHECK(a->how == TL_FILL_END && strlen(content_of(a, true)) == 50 * (strlen("4294967245 4294967295 D \n") + TL_UI_LINE_MAX));
    free(a);
    m->lines_grow = true; /* each answer is logged: it ends all the same */
    a = ask(w, "GET /api/logs" TUNNEL "\r\n", "", true, 2032);
    CHECK(a->how == TL_FILL_END && strstr(content_of(a, true), "\n256 5 I asked\n") != NULL && strstr(a->text, "\n257 ") == NULL);
    free(a);
    free(w);
}

/* --- settings --- */

#define POST_SETTINGS "POST /api/settings" TUNNEL OURS "Content-Length: 9\r\n\r\n"

static void shown_settings(void)
{
    world *w = started();
    machine *m = &w->machine;
    m->kept = (tl_ui_settings){.name = tl_text("Pump"), .ssid = tl_text("Yard"), .password = tl_text("secret99"),
                               .gateway = tl_text("https://g.test"), .token = tl_text("tok-1"), .support = 1, .has_password = true};
    answer *a = ask(w, "GET /api/settings" TUNNEL "\r\n", "", true, TL_FILL_ROOM_MIN);
    CHECK(strcmp(content_of(a, true), "{\"name\":\"Pump\",\"ssid\":\"Yard\",\"gateway\":\"https://g.test\",\"has_password\":true,"
                                      "\"support\":true}") == 0);
    CHECK(strstr(a->text, "secret99") == NULL && strstr(a->text, "tok-1") == NULL);
    free(a);
    memset(LONG_TEXT, 'x', sizeof LONG_TEXT - 1);
    m->kept = (tl_ui_settings){.name = tl_text(LONG_TEXT), .ssid = tl_text(LONG_TEXT), .gateway = tl_text(LONG_TEXT)};
    a = ask(w, "GET /api/settings" TUNNEL "\r\n", "", true, TL_FILL_ROOM_MIN);
    tl_json json;
    CHECK(a->how == TL_FILL_END && tl_json_check(tl_text(content_of(a, true)), &json) == TL_JSON_FINE);
    free(a);
    free(w);
}

static void changed_settings(void)
{
    world *w = started();
    machine *m = &w->machine;
    CHECK(asked(w, POST_SETTINGS, "{}", true) == 204 && m->changes == 1 && m->told.name.at == NULL && m->told.support == TL_UI_UNKNOWN);
    CHECK(asked(w, POST_SETTINGS, "{\"name\":\"a\\u00e9\\n\",\"n\\u0061me2\":\"\"}", true) == 422 && m->changes == 1);
    CHECK(asked(w, POST_SETTINGS, " {\"ssid\":\"Y\\u00e4rd \\ud83d\\ude00\",\"password\":\"\",\"n\\u0061me\":\"\\\"x\\\"\",\"support\":false,"
                                  "\"gateway\":\"https:\\/\\/g\",\"token\":\"t\"}", true) == 204);
    CHECK(m->changes == 2 && tl_is(m->told.ssid, "Y\xc3\xa4rd \xf0\x9f\x98\x80") && tl_is(m->told.name, "\"x\""));
    CHECK(m->told.password.at != NULL && m->told.password.n == 0 && m->told.support == 0);
    CHECK(tl_is(m->told.gateway, "https://g") && tl_is(m->told.token, "t"));
    static const char *const bad[] = {"", "x", "[]", "\"a\"", "null", "{\"name\":1}", "{\"name\":null}", "{\"support\":1}",
                                      "{\"support\":\"true\"}", "{\"support\":null}", "{\"pin\":\"1\"}", "{\"name\":\"a\",\"name\":\"b\"}",
                                      "{\"name\":\"a\"", "{\"has_password\":true}", "{\"name\":\"\\u0000\"}", "{\"name\":[\"a\"]}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_NAMED(asked(w, POST_SETTINGS, bad[i], true) == 422 && m->changes == 2, bad[i]);
    }
    m->why = "An SSID has at most 32 bytes.";
    answer *a = ask(w, POST_SETTINGS, "{\"ssid\":\"x\"}", true, TL_FILL_ROOM_MIN);
    CHECK(status_of(a) == 422 && strstr(a->text, "\r\n\r\nAn SSID has at most 32 bytes.\n") != NULL);
    free(a);
    free(w);
}

/* --- an image --- */

#define UPLOAD "POST /api/firmware" TUNNEL OURS

static void an_image(void)
{
    world *w = started();
    machine *m = &w->machine;
    answer *a = calloc(1, sizeof *a);
    begin(w, a, UPLOAD "Content-Length: 300000\r\n\r\n", true);
    CHECK(m->begun == 1 && m->size == 300000 && !m->force && w->ui.receiving);
    tl_exchange_body(&a->x, tl_text("0123456789"));
    CHECK(m->got == 10 && asked(w, UPLOAD LENGTH "\r\n", "", true) == 409 && m->begun == 1 && w->ui.receiving);
    tl_exchange_over(&a->x); /* cut */
    CHECK(m->dropped == 1 && m->ended == 0 && !w->ui.receiving);

    CHECK(asked(w, UPLOAD LENGTH "\r\n", "123456789", true) == 204 && m->ended == 1 && m->dropped == 1);
    static const struct {
        const char *head;
        int status;
    } heads[] = {{UPLOAD "\r\n", 400}, {UPLOAD "Transfer-Encoding: chunked\r\n\r\n", 400}, {UPLOAD "Content-Length: 0\r\n\r\n", 400}};
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++) {
        CHECK_NAMED(asked(w, heads[i].head, "", true) == heads[i].status && m->begun == 2 && m->dropped == 1, heads[i].head);
    }
    m->end_why = "The image is not signed.";
    a = (free(a), ask(w, UPLOAD LENGTH "\r\n", "123456789", true, TL_FILL_ROOM_MIN));
    CHECK(status_of(a) == 422 && strstr(a->text, "\nThe image is not signed.\n") != NULL);
    tl_exchange_over(&a->x);
    CHECK(m->dropped == 1 && !w->ui.receiving); /* it ended itself: what comes now may be another's */
    m->add_why = "It is for other hardware.";
    const uint64_t before = m->ended;
    CHECK(asked(w, UPLOAD LENGTH "\r\n", "123456789", true) == 422 && m->ended == before && m->dropped == 1);
    m->begin_why = "It is too large.";
    CHECK(asked(w, UPLOAD LENGTH "\r\n", "", true) == 422 && m->dropped == 1 && !w->ui.receiving);
    free(a);
    free(w);
}

static void force_is_for_the_lan(void)
{
    world *w = started();
    unsigned place;
    CHECK(tl_login_try(&w->login, tl_text("12345678"), 1000, &place) == 0);
    uint8_t room[160];
    tl_out out = {room, 0, sizeof room, false};
    tl_login_cookie(&w->login, place, &out);
    char head[300];
    snprintf(head, sizeof head, "POST /api/firmware?force" LAN OURS LENGTH "Cookie: %.30s\r\n\r\n", (char *)room);
    CHECK(asked(w, head, "123456789", false) == 204 && w->machine.force);
    CHECK(asked(w, "POST /api/firmware?force" TUNNEL OURS LENGTH "\r\n", "123456789", true) == 204 && !w->machine.force);
    free(w);
}

/* What an engineer is let in by is the owner's to give. */
static void support_cannot_let_itself_in(void)
{
    world *w = started();
    machine *m = &w->machine;
    w->grant.acting = true;
    CHECK(asked(w, POST_SETTINGS, "{\"support\":true}", true) == 403 && m->changes == 0);
    CHECK(asked(w, POST_SETTINGS, "{\"name\":\"x\",\"support\":false}", true) == 403 && m->changes == 0);
    CHECK(asked(w, POST_SETTINGS, "{\"name\":\"x\"}", true) == 204 && m->changes == 1);
    w->grant.acting = false;
    CHECK(asked(w, POST_SETTINGS, "{\"support\":true}", true) == 204 && m->changes == 2 && m->told.support == 1);
    free(w);
}

static void endings(void)
{
    world *w = started();
    machine *m = &w->machine;
    CHECK(asked(w, "POST /api/restart" TUNNEL "\r\n", "", true) == 403 && asked(w, "GET /api/restart" TUNNEL "\r\n", "", true) == 405);
    CHECK(m->restarts == 0 && asked(w, "POST /api/restart" TUNNEL OURS "\r\n", "", true) == 202 && m->restarts == 1);
    w->grant.acting = true;
    CHECK(asked(w, "POST /api/reset" TUNNEL OURS "\r\n", "", true) == 403 && m->resets == 0);
    w->grant.acting = false;
    CHECK(asked(w, "POST /api/reset" TUNNEL OURS "\r\n", "", true) == 202 && m->resets == 1);
    free(w);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(the_page), CHECK_TEST(nothing_without_a_login), CHECK_TEST(logging_in), CHECK_TEST(logging_out),
        CHECK_TEST(status), CHECK_TEST(live), CHECK_TEST(live_on_the_lan), CHECK_TEST(logs), CHECK_TEST(shown_settings),
        CHECK_TEST(changed_settings), CHECK_TEST(an_image), CHECK_TEST(force_is_for_the_lan), CHECK_TEST(support_cannot_let_itself_in), CHECK_TEST(endings),
    };
    return CHECK_ALL(tests);
}
