#include "towline/provisioning.h"

#include "check.h"
#include "nvs.h"
#include "towline/bytes.h"

#define NOW UINT64_C(5000)

static struct {
    bool started, start_fails;
    unsigned starts, stops, answers;
    char name[32];
    uint8_t salt[TL_PROVISIONING_SALT];
    uint8_t answer[64];
    size_t answer_n;
    unsigned wifi, gateway; /* changes told */
    bool told_before_answer;
} radio;

static nvs kv;
static tl_settings settings;
static tl_settings_store store;
static tl_provisioning p;

static bool radio_record(void *with, tl_span user, tl_span password, uint8_t *to)
{
    (void)with;
    memset(to, (int)(user.n + password.n), TL_PROVISIONING_RECORD);
    return tl_is(user, "towline");
}

static bool radio_start(void *with, const tl_provisioning_offer *offer)
{
    (void)with;
    radio.starts++;
    radio.started = !radio.start_fails;
    CHECK(offer->salt.n == TL_PROVISIONING_SALT && offer->verifier.n == TL_PROVISIONING_VERIFIER);
    memcpy(radio.salt, offer->salt.at, offer->salt.n);
    memcpy(radio.name, offer->service_name.at, offer->service_name.n);
    return radio.started;
}

static void radio_answer(void *with, tl_span bytes)
{
    (void)with;
    radio.answers++;
    CHECK(bytes.n <= sizeof radio.answer);
    radio.answer_n = bytes.n;
    if (bytes.n > 0) {
        memcpy(radio.answer, bytes.at, bytes.n);
    }
}

static void radio_stop(void *with)
{
    (void)with;
    radio.stops++;
    radio.started = false;
}

static void changed(void *device, bool wifi, bool gateway)
{
    (void)device;
    radio.wifi += wifi;
    radio.gateway += gateway;
    radio.told_before_answer = radio.told_before_answer || radio.answers == 0;
}

static const tl_port_provisioning RADIO = {NULL, radio_record, radio_start, radio_answer, radio_stop};
static tl_port port;

static void start(void)
{
    memset(&radio, 0, sizeof radio);
    nvs_init(&kv);
    port = (tl_port){.kv = &kv.port, .provisioning = &RADIO};
    CHECK(tl_provisioning_new_pin(&port, tl_text("12345678")));
    (void)tl_settings_load(&store, &kv.port, &settings);
    const tl_provisioning_parts parts = {&port, &settings, &store, changed, NULL};
    tl_provisioning_open(&p, &parts, tl_text("Towline-abc"), NOW);
}

static void ask(tl_provisioning_endpoint endpoint, tl_span bytes, uint64_t now_ms)
{
    const tl_event event = {.kind = TL_EVENT_PROVISIONING_REQUEST, .number = endpoint, .bytes = bytes};
    const unsigned before = radio.answers;
    tl_provisioning_event(&p, &event, now_ms);
    CHECK(radio.answers == before + 1);
}

static void tell(tl_event_kind kind, uint64_t now_ms)
{
    const tl_event event = {.kind = (uint8_t)kind};
    tl_provisioning_event(&p, &event, now_ms);
}

static bool join_is(tl_provisioning_join join)
{
    ask(TL_PROVISIONING_WIFI, (tl_span){NULL, 0}, NOW);
    return radio.answer_n == 1 && radio.answer[0] == join;
}

static void wifi(const char *bytes, size_t n)
{
    ask(TL_PROVISIONING_WIFI, (tl_span){(const uint8_t *)bytes, n}, NOW);
}

static bool towline_says(const char *request, const char *answer)
{
    ask(TL_PROVISIONING_TOWLINE, tl_text(request), NOW);
    return tl_is((tl_span){radio.answer, radio.answer_n}, answer);
}

static void all_is_told_and_it_closes(void)
{
    start();
    CHECK(p.open && radio.starts == 1 && radio.salt[0] == 7 + 8 && strcmp(radio.name, "Towline-abc") == 0);
    CHECK(tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_OPEN_MS && join_is(TL_JOIN_NOT_ASKED));
    wifi("Home\0secret", 11);
    CHECK(radio.answer_n == 1 && radio.answer[0] == TL_JOIN_UNDER_WAY && radio.wifi == 1 && radio.gateway == 0);
    CHECK(strcmp(settings.ssid, "Home") == 0 && strcmp(settings.password, "secret") == 0);
    CHECK(tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_JOIN_MS);
    tell(TL_EVENT_NETWORK_UP, NOW + 1);
    CHECK(join_is(TL_JOIN_DONE) && tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_OPEN_MS);
    CHECK(towline_says("{\"gateway\":\"https://g\",\"token\":\"t\",\"name\":\"K\\u00fcche\"}", "{}"));
    CHECK(radio.gateway == 1 && !radio.told_before_answer && strcmp(settings.name, "K\303\274che") == 0);
    CHECK(tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_LINGER_MS);
    CHECK(tl_provisioning_run(&p, NOW + TL_PROVISIONING_LINGER_MS) == UINT64_MAX && radio.stops == 1 && !p.open);
    CHECK(tl_provisioning_run(&p, NOW + TL_PROVISIONING_LINGER_MS) == UINT64_MAX && radio.stops == 1);
    tl_settings back;
    tl_settings_store other;
    CHECK(tl_settings_load(&other, &kv.port, &back) && memcmp(&back, &settings, sizeof back) == 0);
    CHECK(strcmp(back.gateway, "https://g") == 0 && strcmp(back.token, "t") == 0);
}

static void the_other_way_round(void)
{
    start();
    CHECK(towline_says("{\"token\":\"t\",\"gateway\":\"https://g\"}", "{}"));
    CHECK(tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_OPEN_MS);
    tell(TL_EVENT_NETWORK_UP, NOW); /* nobody asked for one: an Ethernet */
    CHECK(tl_provisioning_run(&p, NOW) == NOW + TL_PROVISIONING_OPEN_MS && join_is(TL_JOIN_NOT_ASKED));
    wifi("Open", 4);
    CHECK(settings.password[0] == '\0');
    tell(TL_EVENT_NETWORK_UP, NOW + 9);
    CHECK(tl_provisioning_run(&p, NOW) == NOW + 9 + TL_PROVISIONING_LINGER_MS);
}

static void a_network_that_does_not_let_it_in(void)
{
    start();
    wifi("Home\0wrong", 10);
    CHECK(tl_provisioning_run(&p, NOW + TL_PROVISIONING_JOIN_MS - 1) == NOW + TL_PROVISIONING_JOIN_MS);
    CHECK(join_is(TL_JOIN_UNDER_WAY));
    CHECK(tl_provisioning_run(&p, NOW + TL_PROVISIONING_JOIN_MS) == NOW + TL_PROVISIONING_OPEN_MS);
    CHECK(join_is(TL_JOIN_FAILED));
    tell(TL_EVENT_NETWORK_UP, NOW); /* too late: whatever that is */
    CHECK(join_is(TL_JOIN_FAILED));
    wifi("Home\0right", 10);
    CHECK(join_is(TL_JOIN_UNDER_WAY) && radio.wifi == 2);
}

static void it_closes_by_itself(void)
{
    start();
    CHECK(tl_provisioning_run(&p, NOW + TL_PROVISIONING_OPEN_MS) == UINT64_MAX && radio.stops == 1);
    const tl_event late = {.kind = TL_EVENT_PROVISIONING_REQUEST, .number = TL_PROVISIONING_WIFI};
    tl_provisioning_event(&p, &late, NOW);
    CHECK(radio.answers == 0);
    start();
    wifi("Home", 4);
    p.joined_by_ms = p.close_at_ms + 1;
    CHECK(tl_provisioning_run(&p, NOW) == p.close_at_ms);
    tell(TL_EVENT_PROVISIONING_OVER, NOW);
    CHECK(!p.open && radio.stops == 1);
}

static void what_is_no_setting_changes_nothing(void)
{
    static const char half[] = {(char)0xC3, 0};
    start();
    const tl_settings before = settings;
    wifi("\0secret", 7);
    CHECK(radio.answer_n == 0);
    wifi("33 bytes of an SSID are too many...", 33);
    CHECK(radio.answer_n == 0);
    wifi(half, 1);
    CHECK(radio.answer_n == 0);
    wifi("Home\0a\0b", 8);
    CHECK(radio.answer_n == 0 && join_is(TL_JOIN_NOT_ASKED));
    CHECK(towline_says("", "{\"error\":\"no JSON object\"}") && towline_says("[]", "{\"error\":\"no JSON object\"}"));
    CHECK(towline_says("{\"gateway\":\"a\",\"gateway\":\"b\",\"token\":\"t\"}", "{\"error\":\"no JSON object\"}"));
    CHECK(towline_says("{\"token\":\"t\"}", "{\"error\":\"gateway\"}"));
    CHECK(towline_says("{\"gateway\":\"\",\"token\":\"t\"}", "{\"error\":\"gateway\"}"));
    CHECK(towline_says("{\"gateway\":1,\"token\":\"t\"}", "{\"error\":\"gateway\"}"));
    CHECK(towline_says("{\"gateway\":\"a\\nb\",\"token\":\"t\"}", "{\"error\":\"gateway\"}"));
    CHECK(towline_says("{\"gateway\":\"a\"}", "{\"error\":\"token\"}"));
    CHECK(towline_says("{\"gateway\":\"a\",\"token\":\"t\",\"name\":7}", "{\"error\":\"name\"}"));
    CHECK(memcmp(&before, &settings, sizeof before) == 0 && radio.wifi == 0 && radio.gateway == 0);
    kv.fail_at = 1;
    wifi("Home", 4);
    CHECK(radio.answer_n == 0);
    CHECK(towline_says("{\"gateway\":\"a\",\"token\":\"t\"}", "{\"error\":\"it cannot be kept\"}"));
    CHECK(memcmp(&before, &settings, sizeof before) == 0 && radio.wifi == 0 && radio.gateway == 0);
}

static void without_a_radio_or_a_pin_it_stays_shut(void)
{
    start();
    const tl_provisioning_parts parts = {&port, &settings, &store, changed, NULL};
    radio.starts = 0;
    CHECK(nvs_erase(&kv, TL_PROVISIONING_KEY));
    tl_provisioning_open(&p, &parts, tl_text("x"), NOW);
    CHECK(!p.open && radio.starts == 0 && tl_provisioning_run(&p, UINT64_MAX) == UINT64_MAX);
    CHECK(nvs_set(&kv, TL_PROVISIONING_KEY, tl_text("short")));
    tl_provisioning_open(&p, &parts, tl_text("x"), NOW);
    CHECK(!p.open && radio.starts == 0);
    port.provisioning = NULL;
    CHECK(tl_provisioning_new_pin(&port, tl_text("12345678")));
    tl_provisioning_open(&p, &parts, tl_text("x"), NOW);
    CHECK(!p.open);
    start();
    radio.start_fails = true;
    tl_provisioning_open(&p, &parts, tl_text("x"), NOW);
    CHECK(!p.open && tl_provisioning_run(&p, UINT64_MAX) == UINT64_MAX && radio.stops == 0);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(all_is_told_and_it_closes),
        CHECK_TEST(the_other_way_round),
        CHECK_TEST(a_network_that_does_not_let_it_in),
        CHECK_TEST(it_closes_by_itself),
        CHECK_TEST(what_is_no_setting_changes_nothing),
        CHECK_TEST(without_a_radio_or_a_pin_it_stays_shut),
    };
    return CHECK_ALL(tests);
}
