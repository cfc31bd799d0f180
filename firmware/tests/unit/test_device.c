/* The whole core on a machine of memory: its first start, its page on the LAN, who is let in, what it gives back. */
#include <stdlib.h>

#include "check.h"
#include "device_parts.h"
#include "memory_flash.h"
#include "messages_parts.h"
#include "nvs.h"
#include "towline/bytes.h"
#include "toy_crypto.h"

enum { ANSWER = 1 << 15, PIN_AT = 33, REF = 256, END_MS = 5000 };

typedef struct {
    tl_device *device;
    tl_config config;
    tl_crypto crypto;
    tl_port port;
    tl_port_sys sys;
    tl_port_link link;
    tl_port_mqtt mqtt;
    tl_port_fetch fetch;
    tl_port_web web;
    tl_port_network network;
    memory_flash flash;
    nvs store;
    uint64_t now;
    char pin[TL_PIN_DIGITS + 1];
    unsigned reboots, applied, dialled, fetched, released;
    char ssid[TL_WIFI_SSID_MAX + 1];
    bool no_listener;

    /* the one request that is under way */
    tl_web_ref ref;
    unsigned reads;
    size_t room; /* bytes that an answer may have at once */
    bool blocked;
    char answer[ANSWER];
    size_t answer_n;
    tl_fill how;
} machine;

static machine m;

/* --- its port --- */

static uint64_t now_ms(void *with)
{
    (void)with;
    return m.now;
}

static int64_t wall_s(void *with)
{
    (void)with;
    return -1;
}

static void log_line(void *with, tl_log_level level, tl_span line)
{
    static const char pin[] = "PIN of the page on this network: ";
    (void)with;
    (void)level;
    if (line.n == PIN_AT + TL_PIN_DIGITS && memcmp(line.at, pin, PIN_AT) == 0) {
        memcpy(m.pin, line.at + PIN_AT, TL_PIN_DIGITS);
    }
}

static void memory(void *with, tl_memory *found)
{
    (void)with;
    *found = (tl_memory){100000, 80000, 60000};
}

static tl_reset_reason reset_reason(void *with)
{
    (void)with;
    return TL_RESET_POWER;
}

static void reboot(void *with)
{
    (void)with;
    m.reboots++;
}

static uint32_t open_link(void *with, const tl_address *to)
{
    (void)with;
    (void)to;
    return ++m.dialled;
}

static uint32_t start_fetch(void *with, const tl_fetch_request *request)
{
    (void)with;
    (void)request;
    return ++m.fetched;
}

static void stop_fetch(void *with)
{
    (void)with;
}

static void release_fetch(void *with, tl_span data)
{
    (void)with;
    (void)data;
    m.released++;
}

static void stop_mqtt(void *with)
{
    (void)with;
}

static bool start_web(void *with)
{
    (void)with;
    return !m.no_listener;
}

static void read_on(void *with, tl_web_ref request)
{
    (void)with;
    CHECK(request == m.ref);
    m.reads++;
}

static bool take(void *with, tl_web_ref request, tl_out *answer)
{
    (void)with;
    CHECK(request == m.ref);
    *answer = (tl_out){(uint8_t *)m.answer + m.answer_n, 0, TL_WEB_ANSWER_ROOM, false};
    return !m.blocked && m.answer_n + TL_WEB_ANSWER_ROOM <= ANSWER;
}

static void send_part(void *with, tl_web_ref request, size_t n, tl_fill how)
{
    (void)with;
    CHECK(request == m.ref && n <= TL_WEB_ANSWER_ROOM);
    m.answer_n += n;
    m.how = how;
}

static bool apply(void *with, tl_span ssid, tl_span password)
{
    (void)with;
    (void)password;
    m.applied++;
    memcpy(m.ssid, ssid.at, ssid.n);
    m.ssid[ssid.n] = '\0';
    return ssid.n != 7;
}

static bool rssi(void *with, int8_t *dbm)
{
    (void)with;
    *dbm = -61;
    return true;
}

static bool host_name(void *with, size_t index, tl_out *host)
{
    (void)with;
    tl_put_text(host, "192.0.2.7");
    return index == 0;
}

static bool new_key(uint8_t key[TL_P256_PRIVATE])
{
    memset(key, 3, TL_P256_PRIVATE);
    return true;
}

static bool public_point(const uint8_t key[TL_P256_PRIVATE], uint8_t point[TL_P256_POINT])
{
    memset(point, key[0], TL_P256_POINT);
    point[0] = 4;
    return true;
}

static bool sign(const uint8_t key[TL_P256_PRIVATE], tl_span message, uint8_t signature[TL_P256_SIGNATURE])
{
    (void)message;
    memset(signature, key[0], TL_P256_SIGNATURE);
    return true;
}

/* --- begin --- */

static void build(void)
{
    memset(&m, 0, sizeof m);
    m.now = 1000;
    m.crypto = TOY_CRYPTO;
    m.crypto.p256_new = new_key;
    m.crypto.p256_public = public_point;
    m.crypto.p256_sign = sign;
    m.sys = (tl_port_sys){NULL, now_ms, wall_s, log_line, memory, reset_reason, reboot};
    m.link = (tl_port_link){.open = open_link};
    m.mqtt = (tl_port_mqtt){.stop = stop_mqtt};
    m.fetch = (tl_port_fetch){NULL, start_fetch, release_fetch, stop_fetch};
    m.web = (tl_port_web){.start = start_web, .read_on = read_on, .take = take, .send = send_part};
    m.network = (tl_port_network){.apply = apply, .rssi = rssi, .name = host_name};
    flash_init(&m.flash, FLASH_SECTORS, 0);
    nvs_init(&m.store);
    m.port = (tl_port){
        .crypto = &m.crypto,
        .sys = &m.sys,
        .link = &m.link,
        .mqtt = &m.mqtt,
        .fetch = &m.fetch,
        .web = &m.web,
        .kv = &m.store.port,
        .flash = &m.flash.port,
        .network = &m.network,
    };
    m.config = (tl_config){
        .version = "1.2.3",
        .hardware = "test",
        .type = "esp32",
        .hardware_id = tl_text("0a1b2c3d4e5f"),
        .max_streams = 4,
        .outbox_sectors = FLASH_SECTORS,
    };
}

static bool boot(void)
{
    void *block = malloc(tl_device_size(&m.config));
    memset(block, 0xA5, tl_device_size(&m.config));
    m.device = tl_device_init(block, &m.config, &m.port);
    if (m.device == NULL) {
        free(block);
    }
    return m.device != NULL;
}

static void run_for(uint64_t ms)
{
    for (const uint64_t until = m.now + ms; m.now < until;) {
        const uint32_t wait = tl_device_run(m.device);
        m.now += wait == 0 ? 1 : wait < until - m.now ? wait : until - m.now;
    }
}

static void happen(tl_event_kind kind, tl_span bytes)
{
    tl_device_event(m.device, &(tl_event){.kind = (uint8_t)kind, .number = m.ref, .bytes = bytes});
}

static void ask(const char *head)
{
    m.ref += REF;
    m.reads = 0;
    m.answer_n = 0;
    m.how = TL_FILL_MORE;
    happen(TL_EVENT_WEB_REQUEST, tl_text(head));
}

static bool answered(const char *begin)
{
    return m.answer_n > strlen(begin) && memcmp(m.answer, begin, strlen(begin)) == 0;
}

/* With an empty body. */
static void get(const char *head)
{
    ask(head);
    if (m.reads > 0) {
        happen(TL_EVENT_WEB_BODY_OVER, (tl_span){NULL, 0});
    }
}

static void post(const char *path, const char *cookie, const char *body)
{
    char head[400];
    snprintf(head, sizeof head,
             "POST %s HTTP/1.1\r\nHost: 192.0.2.7\r\nX-Towline: 1\r\nCookie: %s\r\nContent-Type: application/json\r\n"
             "Content-Length: %u\r\n\r\n",
             path, cookie, (unsigned)strlen(body));
    ask(head);
    for (size_t at = 0; m.reads > 0 && at < strlen(body); at += 5) { /* in pieces */
        const tl_span piece = {(const uint8_t *)body + at, strlen(body) - at < 5 ? strlen(body) - at : 5};
        happen(TL_EVENT_WEB_BODY, piece);
    }
    if (m.how == TL_FILL_MORE) {
        happen(TL_EVENT_WEB_BODY_OVER, (tl_span){NULL, 0});
    }
}

/* The cookie of a login; empty: it was refused. */
static void log_in(const char *pin, char cookie[64])
{
    char body[40];
    snprintf(body, sizeof body, "{\"pin\":\"%s\"}", pin);
    post("/api/login", "none", body);
    m.answer[m.answer_n] = '\0';
    const char *set = strstr(m.answer, "towline=");
    cookie[0] = '\0';
    if (set != NULL) {
        const size_t n = strcspn(set, ";\r");
        CHECK(n < 64);
        memcpy(cookie, set, n);
        cookie[n] = '\0';
    }
}

static void with_cookie(char *head, size_t n, const char *path, const char *cookie)
{
    snprintf(head, n, "GET %s HTTP/1.1\r\nHost: 192.0.2.7\r\nCookie: %s\r\n\r\n", path, cookie);
}

/* --- tests --- */

static void the_page_opens(void)
{
    build();
    CHECK(boot() && strlen(m.pin) == TL_PIN_DIGITS && m.applied == 1);
    m.blocked = true;
    get("GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n");
    CHECK(m.answer_n == 0);
    m.blocked = false;
    happen(TL_EVENT_WEB_ROOM, (tl_span){NULL, 0});
    CHECK(answered("HTTP/1.1 200") && m.how == TL_FILL_END && m.answer_n > 5000);
    happen(TL_EVENT_WEB_ROOM, (tl_span){NULL, 0}); /* of one that is over: nothing */
    CHECK(m.how == TL_FILL_END);
    get("GET /nothing HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n");
    CHECK(answered("HTTP/1.1 404"));
    get("nonsense\r\n\r\n");
    CHECK(answered("HTTP/1.1 400"));
    get("GET /api/status HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n");
    CHECK(answered("HTTP/1.1 401"));
    get("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    CHECK(!answered("HTTP/1.1 200"));
    free(m.device);
}

static void the_pin_lets_in(void)
{
    char cookie[64], head[200];
    build();
    CHECK(boot());
    log_in("00000000", cookie);
    CHECK(cookie[0] == '\0' || strcmp(m.pin, "00000000") == 0);
    log_in(m.pin, cookie);
    CHECK(cookie[0] != '\0');
    with_cookie(head, sizeof head, "/api/status", cookie);
    get(head);
    CHECK(answered("HTTP/1.1 200"));
    /* The same PIN after a restart: no new one is shown. */
    m.pin[0] = '\0';
    free(m.device);
    CHECK(boot() && m.pin[0] == '\0');
    get(head);
    CHECK(answered("HTTP/1.1 401"));
    free(m.device);
}

static void settings_are_taken_and_kept(void)
{
    char cookie[64];
    build();
    CHECK(boot());
    log_in(m.pin, cookie);
    post("/api/settings", cookie, "{\"ssid\":\"Yard\",\"password\":\"12345678\"}");
    CHECK(answered("HTTP/1.1 2") && m.applied == 1);
    run_for(END_MS);
    CHECK(m.applied == 2 && strcmp(m.ssid, "Yard") == 0);
    free(m.device);
    CHECK(boot() && m.applied == 3 && strcmp(m.ssid, "Yard") == 0);
    free(m.device);
}

static void a_live_answer_goes_on_until_its_client_goes(void)
{
    char cookie[64], head[200];
    build();
    CHECK(boot());
    log_in(m.pin, cookie);
    with_cookie(head, sizeof head, "/api/live", cookie);
    get(head);
    const size_t first = m.answer_n;
    CHECK(answered("HTTP/1.1 200") && m.how != TL_FILL_END);
    run_for(60000);
    CHECK(m.answer_n > first);
    happen(TL_EVENT_WEB_GONE, (tl_span){NULL, 0});
    CHECK(m.how == TL_FILL_BROKEN);
    const size_t last = m.answer_n;
    run_for(60000);
    CHECK(m.answer_n == last);
    free(m.device);
}

/* One that found no room in the queue: unless its going is answered nobody gets its place. */
static void whoever_was_never_heard_gives_the_place_back(void)
{
    build();
    CHECK(boot());
    m.ref = REF;
    happen(TL_EVENT_WEB_GONE, (tl_span){NULL, 0});
    CHECK(m.how == TL_FILL_BROKEN);
    get("GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n");
    CHECK(answered("HTTP/1.1 200"));
    free(m.device);
}

static bool keeps(const char *key)
{
    uint8_t room[TL_KV_VALUE_MAX];
    tl_out out = {room, 0, sizeof room, false};
    return m.store.port.get(m.store.port.with, key, &out);
}

/* What comes in the very moment of a reset must not be kept behind it. */
static void nothing_is_kept_behind_a_reset(void)
{
    char cookie[64];
    build();
    CHECK(boot());
    log_in(m.pin, cookie);
    post("/api/settings", cookie, "{\"gateway\":\"https://gateway.example\",\"token\":\"t_1234567890\"}");
    run_for(END_MS);
    CHECK(m.fetched == 1 && tl_outbox_begin(&m.device->messages.outbox, 0) && keeps("settings.1") && keeps("boots"));
    post("/api/reset", cookie, "");
    const tl_event answer[] = {
        {.kind = TL_EVENT_FETCH_HEAD, .number = 1, .status = 201, .length = TL_LENGTH_NOT_TOLD},
        {.kind = TL_EVENT_FETCH_DATA, .number = 1, .bytes = tl_text("{\"enrolment_id\":\"e\",\"poll_secret\":\"s\"}")},
        {.kind = TL_EVENT_FETCH_END, .number = 1},
    };
    tl_device_event(m.device, &answer[0]);
    tl_device_event(m.device, &answer[1]);
    m.now += END_MS;
    tl_device_event(m.device, &answer[2]);
    CHECK(m.reboots == 1 && m.released == 1);
    run_for(10 * TL_HEALTH_EVERY_S * 1000u);
    CHECK(!keeps("enrolment") && !keeps("settings.1") && !keeps("boots"));
    for (size_t i = 0; i < sizeof m.flash.bytes; i++) {
        if (m.flash.bytes[i] != 0xFF) {
            CHECK(!"the flash is empty");
            break;
        }
    }
    free(m.device);
}

static void a_reset_forgets_all(void)
{
    char cookie[64];
    build();
    CHECK(boot());
    log_in(m.pin, cookie);
    post("/api/settings", cookie, "{\"ssid\":\"Yard\",\"password\":\"12345678\"}");
    run_for(END_MS);
    m.flash.bytes[5] = 0;
    post("/api/reset", cookie, "");
    CHECK(answered("HTTP/1.1 202") && m.reboots == 0);
    run_for(END_MS + 1000);
    CHECK(m.reboots == 1 && m.flash.bytes[5] == 0xFF);
    m.pin[0] = m.ssid[0] = '\0';
    free(m.device);
    CHECK(boot() && strlen(m.pin) == TL_PIN_DIGITS && m.ssid[0] == '\0');
    free(m.device);
}

static void it_enrols_where_it_is_told_to(void)
{
    char cookie[64];
    build();
    CHECK(boot());
    log_in(m.pin, cookie);
    post("/api/settings", cookie, "{\"gateway\":\"https://gateway.example\",\"token\":\"t_1234567890\"}");
    CHECK(answered("HTTP/1.1 2"));
    happen(TL_EVENT_NETWORK_UP, (tl_span){NULL, 0});
    run_for(5000);
    CHECK(m.fetched == 1 && m.dialled == 0);
    m.ref = 77; /* a fetch's that is long over: given back, and that is all */
    happen(TL_EVENT_FETCH_DATA, tl_text("{}"));
    CHECK(m.released == 1);
    tl_device_stop(m.device);
    CHECK(tl_device_stopped(m.device));
    free(m.device);
}

/* What the program around the core calls. */
static void it_takes_what_is_measured_and_what_happened(void)
{
    build();
    CHECK(boot());
    CHECK(tl_device_measured(m.device, "temperature_c", 2150, 2));
    CHECK(tl_device_sensor(m.device, "door", tl_text("\"open\"")) && !tl_device_sensor(m.device, "door", tl_text("{}")));
    CHECK(tl_device_sensor(m.device, "door", tl_text("true")));
    const tl_sensors *told = &m.device->messages.sensors;
    CHECK(tl_is((tl_span){told->text, told->n}, "\"door\":true"));
    const tl_span opened = tl_text("{\"by\":\"hand\"}");
    CHECK(!tl_device_happened(m.device, "opened", opened)); /* no platform has greeted it yet */
    CHECK(tl_outbox_begin(&m.device->messages.outbox, 0));
    CHECK(tl_device_happened(m.device, "opened", opened));
    CHECK(tl_messages_outbox(&m.device->messages).entries == 1);
    free(m.device);
}

static void what_it_cannot_do_without(void)
{
    build();
    m.no_listener = true;
    CHECK(!boot());
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(the_page_opens),
        CHECK_TEST(the_pin_lets_in),
        CHECK_TEST(settings_are_taken_and_kept),
        CHECK_TEST(a_live_answer_goes_on_until_its_client_goes),
        CHECK_TEST(whoever_was_never_heard_gives_the_place_back),
        CHECK_TEST(a_reset_forgets_all),
        CHECK_TEST(nothing_is_kept_behind_a_reset),
        CHECK_TEST(it_enrols_where_it_is_told_to),
        CHECK_TEST(it_takes_what_is_measured_and_what_happened),
        CHECK_TEST(what_it_cannot_do_without),
    };
    return CHECK_ALL(tests);
}
