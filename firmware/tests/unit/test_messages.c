/* The connection of the message side, its reports, and that nothing is lost whatever broker and power do. */
#include "check.h"
#include "message_world.h"

static message_world w;

static bool has(const tl_json *object, const char *name, const char *text)
{
    tl_json value;
    if (!tl_json_member(object, name, &value)) {
        return false;
    }
    return value.kind >= TL_JSON_STRING ? tl_json_says(&value, tl_text(text)) : tl_is(value.text, text);
}

static bool has_number(const tl_json *object, const char *name, int64_t number)
{
    tl_json value;
    int64_t found;
    return tl_json_member(object, name, &value) && tl_json_whole(&value, INT64_MIN, INT64_MAX, &found) &&
           found == number;
}

static tl_json payload_of(const tl_json *message)
{
    tl_json payload = {TL_JSON_NULL, {0}};
    (void)tl_json_member(message, "payload", &payload);
    return payload;
}

static void fresh(void)
{
    world_init(&w);
    CHECK(world_boot(&w));
}

/* Everything that waits is taken: nothing of it is said again. */
static void accept_all(void)
{
    world_turn(&w);
    if (w.messages.outbox.count > 0) {
        world_accept(&w, tl_outbox_number(&w.messages.outbox, (uint16_t)(w.messages.outbox.count - 1)));
    }
    CHECK(w.messages.outbox.count == 0);
}

static void test_greets(void)
{
    tl_json hello, payload;
    fresh();
    CHECK(!tl_messages_asks(&w.messages));
    world_connect(&w);
    CHECK(w.starts == 1 && w.subscriptions == 3 && strcmp(w.username, "d_1") == 0 && strcmp(w.password, "secret") == 0);
    CHECK(strcmp(w.will_topic, PREFIX "/hello") == 0 && strstr(w.will, "\"ts\":null") != NULL);
    CHECK(strstr(w.will, "\"payload\":{\"gone\":true,\"instance\":\"") != NULL);
    CHECK(w.said_count == 1 && world_said(&w, TL_KIND_HELLO, &hello) == 1);
    payload = payload_of(&hello);
    CHECK(has_number(&hello, "boot", 0) && has_number(&hello, "seq", 0) && has_number(&payload, "boot", 0));
    CHECK(has(&payload, "type", "esp32") && has(&payload, "config", "null"));
    CHECK(has(&payload, "instance", w.messages.instance) && strlen(w.messages.instance) == 24);
    world_tell(&w, "accepted", "{\"v\":1,\"hello\":7,\"boot\":0,\"seq\":0,\"time\":1,\"prefix\":\"" PREFIX "\"}");
    CHECK(tl_outbox_boot(&w.messages.outbox) == 0); /* the answer to another hello */
    /* Again until it is answered, more slowly each time; nothing is numbered before that. */
    world_pass(&w, 4999);
    CHECK(w.said_count == 1);
    world_pass(&w, 1);
    CHECK(w.said_count == 2);
    world_pass(&w, 10000 + 20000 + 40000);
    CHECK(w.said_count == 5 && world_said(&w, TL_KIND_HELLO, &hello) == 5);
    world_answer_hello(&w, (tl_number){0, 0});
    CHECK(tl_outbox_boot(&w.messages.outbox) == 1);
    CHECK(w.said_count > 6 && world_said(&w, TL_KIND_HELLO, &hello) == 6); /* with the boot that it has now */
    CHECK(has_number(&hello, "boot", 1));
    const size_t said = w.said_count;
    world_answer_hello(&w, (tl_number){0, 0});
    world_pass(&w, 3000);
    CHECK(w.said_count == said);
}

static void test_health(void)
{
    tl_json heartbeat, payload, part;
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    CHECK(world_said(&w, TL_KIND_HEARTBEAT, &heartbeat) == 1);
    payload = payload_of(&heartbeat);
    CHECK(has(&heartbeat, "type", "heartbeat") && has_number(&payload, "rssi", -61));
    CHECK(tl_json_member(&payload, "memory", &part) && has_number(&part, "available", 150000) &&
          has_number(&part, "min", 120000) && has_number(&part, "largest", 60000));
    CHECK(tl_json_member(&payload, "outbox", &part) && has_number(&part, "entries", 0));
    CHECK(!tl_json_member(&payload, "sensors", &part));
    world_accept(&w, (tl_number){1, 1});
    CHECK(tl_sensors_set(&w.messages.sensors, "soil", tl_text("41.5")));
    world_pass(&w, 60000);
    CHECK(world_said(&w, TL_KIND_HEARTBEAT, &heartbeat) == 2);
    payload = payload_of(&heartbeat);
    CHECK(tl_json_member(&payload, "sensors", &part) && has(&part, "soil", "41.5"));
    world_pass(&w, 60000); /* it is told once */
    CHECK(world_said(&w, TL_KIND_HEARTBEAT, &heartbeat) >= 3);
    payload = payload_of(&heartbeat);
    CHECK(!tl_json_member(&payload, "sensors", &part));
}

static void test_sensors(void)
{
    static tl_sensors s;
    memset(&s, 0, sizeof s);
    CHECK(tl_sensors_set(&s, "a", tl_text("1")) && tl_sensors_set(&s, "b", tl_text("\"x\"")));
    CHECK(tl_is((tl_span){s.text, s.n}, "\"a\":1,\"b\":\"x\""));
    CHECK(tl_sensors_set(&s, "a", tl_text("true")) && tl_is((tl_span){s.text, s.n}, "\"b\":\"x\",\"a\":true"));
    CHECK(tl_sensors_set(&s, "c", tl_text("-2.5e3")) && tl_sensors_set(&s, "a", tl_text("2")));
    CHECK(tl_is((tl_span){s.text, s.n}, "\"b\":\"x\",\"c\":-2.5e3,\"a\":2"));
    static const char *const bad[] = {"", "null", "[1]", "{}", "1,\"z\":2", "NaN", "\"\\u0000\"", "nul", "1 2"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_NAMED(!tl_sensors_set(&s, "d", tl_text(bad[i])), bad[i]);
    }
    CHECK(!tl_sensors_set(&s, "", tl_text("1")) && !tl_sensors_set(&s, "a b", tl_text("1")) &&
          !tl_sensors_set(&s, "\"", tl_text("1")));
    char name[70], text[300];
    memset(name, 'n', sizeof name);
    name[65] = 0;
    CHECK(!tl_sensors_set(&s, name, tl_text("1")));
    name[64] = 0;
    CHECK(tl_sensors_set(&s, name, tl_text("1")));
    memset(text, 'x', sizeof text);
    text[0] = text[258] = '"';
    text[259] = 0;
    CHECK(!tl_sensors_set(&s, "t", tl_text(text)));
    text[257] = '"';
    text[258] = 0;
    CHECK(tl_sensors_set(&s, "t", tl_text(text)));
    const uint16_t n = s.n;
    int more = 0;
    for (char key[3] = "00"; more < 40; more++) {
        key[0] = (char)('0' + more / 10);
        key[1] = (char)('0' + more % 10);
        (void)tl_sensors_set(&s, key, tl_text("12345678"));
        CHECK(s.n + 2u <= TL_SENSORS_MAX);
    }
    CHECK(s.n > n && s.n + 2u > TL_SENSORS_MAX - 16); /* full, and never above */
    char digits[301]; /* to the byte: "a": and 300 digits, ,"b": and 201, two braces */
    memset(digits, '1', 300);
    digits[300] = 0;
    memset(&s, 0, sizeof s);
    CHECK(tl_sensors_set(&s, "a", tl_text(digits)));
    digits[202] = 0;
    CHECK(!tl_sensors_set(&s, "b", tl_text(digits)));
    digits[201] = 0;
    CHECK(tl_sensors_set(&s, "b", tl_text(digits)) && s.n + 2u == TL_SENSORS_MAX);
}

static void test_readings(void)
{
    tl_json report, payload, values, value;
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    world_forget(&w);
    CHECK(tl_messages_measured(&w.messages, "temperature", 2150, 2));
    CHECK(tl_messages_measured(&w.messages, "temperature", 2090, 2));
    CHECK(tl_messages_measured(&w.messages, "temperature", -1, 2) && tl_messages_measured(&w.messages, "door", 1, 0));
    CHECK(!tl_messages_measured(&w.messages, "no name", 1, 0));
    world_pass(&w, 60000);
    CHECK(world_said(&w, TL_KIND_TELEMETRY, &report) == 1);
    payload = payload_of(&report);
    CHECK(tl_json_member(&payload, "values", &values) && tl_json_member(&values, "temperature", &value));
    CHECK(tl_is(value.text, "\"n\":3,\"min\":-0.01,\"max\":21.50,\"mean\":14.13,\"last\":-0.01"));
    CHECK(tl_json_member(&values, "door", &value) && has_number(&value, "n", 1));
    CHECK(tl_json_member(&payload, "from", &value) && tl_json_member(&payload, "to", &value));
    accept_all();
    world_pass(&w, 120000); /* nothing was measured: nothing is said */
    CHECK(world_said(&w, TL_KIND_TELEMETRY, &report) == 1);
    /* More than one entry holds. */
    static char names[TL_READINGS][65];
    for (int i = 2; i < (int)TL_READINGS; i++) {
        memset(names[i], 'a' + i, 64);
        CHECK(tl_messages_measured(&w.messages, names[i], INT32_MIN, 9));
        CHECK(tl_messages_measured(&w.messages, names[i], INT32_MAX, 9));
    }
    CHECK(!tl_messages_measured(&w.messages, "one_more", 1, 0));
    world_forget(&w);
    world_pass(&w, 60000);
    accept_all();
    CHECK(world_said(&w, TL_KIND_TELEMETRY, &report) > 1);
    unsigned told = 0;
    for (size_t i = 0; i < w.said_count; i++) {
        tl_json message, name;
        if (w.said[i].kind == TL_KIND_TELEMETRY) {
            CHECK(tl_json_check((tl_span){w.said[i].bytes, w.said[i].n}, &message) == TL_JSON_FINE);
            payload = payload_of(&message);
            CHECK(tl_json_member(&payload, "values", &values));
            for (tl_span rest = values.text; tl_json_next_member(&rest, &name, &value);) {
                told++;
            }
        }
    }
    CHECK(told == TL_READINGS - 2);
}

static const char *config_text(char *text, unsigned version, const char *body)
{
    sprintf(text, "{\"v\":1,\"version\":%u,\"body\":%s,\"sha256\":\"%064u\"}", version, body, version);
    return text;
}

/* The last report of the configuration. */
static tl_json report_of(unsigned *count)
{
    tl_json state;
    *count = world_said(&w, TL_KIND_STATE, &state);
    return payload_of(&state);
}

static void test_configuration(void)
{
    char text[700];
    unsigned count;
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    CHECK(w.configured == 1 && w.config.version == 0 && w.config.log_level == TL_LOG_LEVEL_OPEN);
    world_forget(&w);
    world_tell(&w, "config", config_text(text, 4, "{\"health_every_s\":10,\"log_level\":\"debug\",\"report_s\":5}"));
    tl_json report = report_of(&count);
    CHECK(count == 1 && has_number(&report, "version", 4) && has_number(&report, "told", 4));
    CHECK(w.configured == 2 && w.config.health_every_s == 10 && w.config.log_level == TL_LOG_DEBUG);
    CHECK(w.config.report_s == 5);
    /* What it does not take is refused whole. */
    static const char *const bad[] = {
        "{\"health_every_s\":0}", "{\"health_every_s\":61}", "{\"health_every_s\":1.5}", "{\"health_every_s\":\"1\"}",
        "{\"log_level\":\"loud\"}", "{\"log_level\":2}", "{\"report_s\":4}", "{\"report_s\":3601}", "{\"x\":1}",
        "{\"report_s\":60,\"health_every_s\":true}", "{\"health_every_s\":20,\"\\u0078\":1}",
    };
    for (unsigned i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        world_pass(&w, 60000);
        accept_all();
        world_forget(&w);
        world_tell(&w, "config", config_text(text, 5 + i, bad[i]));
        report = report_of(&count);
        tl_json error;
        CHECK_NAMED(count == 1 && has_number(&report, "version", 4) && has_number(&report, "told", 5 + i), bad[i]);
        CHECK_NAMED(tl_json_member(&report, "error", &error) && w.config.health_every_s == 10, bad[i]);
    }
    world_pass(&w, 6000);
    accept_all();
    world_forget(&w);
    world_tell(&w, "config", config_text(text, 3, "{}")); /* a former one */
    report = report_of(&count);
    CHECK(count == 1 && has_number(&report, "version", 4) && has_number(&report, "told", 3));
    /* A flood is looked at once in five seconds, and the last of it counts. */
    world_pass(&w, 6000);
    accept_all();
    world_forget(&w);
    const uint32_t commits = w.kv.commits;
    for (unsigned i = 20; i < 120; i++) {
        world_tell(&w, "config", config_text(text, i, "{}"));
    }
    CHECK(w.kv.commits <= commits + 1);
    accept_all();
    world_pass(&w, 5000);
    report = report_of(&count);
    CHECK(count == 2 && has_number(&report, "version", 119) && w.kv.commits == commits + 2);
    /* It is in force after a restart, and reported. */
    CHECK(world_boot(&w) && w.config.version == 119);
    world_forget(&w);
    world_connect(&w);
    world_answer_hello(&w, (tl_number){1, 40});
    report = report_of(&count);
    CHECK(count >= 1 && has_number(&report, "version", 119));
    /* One that cannot be kept is not in force. */
    world_pass(&w, 6000);
    w.kv.fails = true;
    world_tell(&w, "config", config_text(text, 200, "{\"health_every_s\":7}"));
    CHECK(w.config.version == 119 && w.messages.configuration.error != NULL);
}

static void test_hostile_words(void)
{
    static const char *const kinds[] = {"accepted", "cmd", "config", "hello", "state", "nothing"};
    static const char *const texts[] = {
        "", "{", "[]", "null", "{}", "{\"v\":1}", "{\"v\":2,\"boot\":1,\"seq\":1}", "{\"v\":1,\"boot\":1e3,\"seq\":1}",
        "{\"v\":1,\"boot\":9007199254740992,\"seq\":1}", "{\"v\":1,\"refused\":\"x\"}",
        "{\"v\":1,\"refused\":\"bad_schema\",\"id\":null}", "{\"v\":1,\"refused\":\"bad_schema\",\"id\":\"x\"}",
        "{\"v\":1,\"hello\":1,\"boot\":0,\"seq\":0,\"time\":0,\"prefix\":\"a/b/c/d_2\"}",
        "{\"v\":1,\"hello\":1,\"boot\":0,\"seq\":0,\"time\":0,\"prefix\":\"\"}",
        "{\"v\":1,\"hello\":1,\"boot\":0,\"seq\":0,\"time\":0,\"prefix\":7}",
        "{\"v\":1,\"version\":1,\"body\":{\"a\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]},\"sha256\":\"\"}",
        "{\"id\":\"019a7afd-1e01-7aaa-bbbb-ccccddddeeee\",\"v\":1,\"name\":\"ping\",\"params\":{},\"ttl_ms\":-1,"
        "\"expires\":1,\"timeout_ms\":1}",
        "\xff\xfe", "{\"v\":1,\"boot\":7,\"seq\":42,\"seq\":43}",
    };
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    const size_t said = w.said_count;
    const uint32_t commits = w.kv.commits, steps = w.flash.steps;
    for (size_t k = 0; k < sizeof kinds / sizeof kinds[0]; k++) {
        for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
            world_tell(&w, kinds[k], texts[i]);
        }
    }
    CHECK(w.said_count == said && w.lent == 0 && w.running && w.kv.commits == commits && w.flash.steps == steps);
    /* Under another's topics nothing is heard. */
    w.lent++;
    tl_messages_event(&w.messages, &(tl_event){.kind = TL_EVENT_MQTT_MESSAGE, .topic = tl_text("o_1/s_1/esp32/d_2/accepted"),
                                               .bytes = tl_text("{\"v\":1,\"boot\":1,\"seq\":1}")});
    CHECK(w.messages.outbox.count == 1 && w.lent == 0);
}

static void test_only_so_many_in_the_client(void)
{
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    world_accept(&w, (tl_number){1, 1});
    world_forget(&w);
    w.holds_taken = true;
    for (int i = 0; i < 20; i++) {
        CHECK(tl_messages_say(&w.messages, TL_KIND_EVENT, "door", tl_text("{\"open\":true}")));
    }
    world_turn(&w);
    CHECK(w.said_count == TL_UNTAKEN_MAX);
    world_event(&w, TL_EVENT_MQTT_TAKEN);
    world_turn(&w);
    CHECK(w.said_count == TL_UNTAKEN_MAX + 1);
    w.holds_taken = false;
    world_event(&w, TL_EVENT_MQTT_TAKEN);
    w.takes_nothing = true; /* the client says not now: it is asked again, not at once */
    world_turn(&w);
    const uint64_t due = tl_messages_run(&w.messages);
    CHECK(due > w.now_ms && due <= w.now_ms + TL_PUBLISH_AGAIN_MS);
    w.takes_nothing = false;
    world_pass(&w, TL_PUBLISH_AGAIN_MS);
    world_turn(&w);
    CHECK(w.said_count == 20);
    CHECK(!tl_messages_say(&w.messages, TL_KIND_EVENT, "door", (tl_span){w.said[0].bytes, TL_ENTRY_MAX}));
}

/* Until it dials or asks: at most the longest wait. */
static void wait_its_time(void)
{
    for (int i = 0; i < 320 && !w.running && !tl_messages_asks(&w.messages); i++) {
        world_pass(&w, 1000);
    }
}

static void test_asks_again(void)
{
    fresh();
    world_pass(&w, 2000);
    CHECK(tl_messages_asks(&w.messages));
    tl_messages_broker(&w.messages, NULL); /* the gateway has none: slowly */
    CHECK(!tl_messages_asks(&w.messages));
    world_pass(&w, 6000);
    CHECK(!tl_messages_asks(&w.messages));
    world_pass(&w, 20000);
    CHECK(tl_messages_asks(&w.messages));
    const tl_broker anothers = {.device = tl_text("d_1"), .prefix = tl_text("o_1/s_1/esp32/d_2")};
    tl_messages_broker(&w.messages, &anothers);
    CHECK(!tl_messages_asks(&w.messages) && w.starts == 0);
    world_connect(&w);
    CHECK(w.starts == 1);
    for (unsigned i = 0; i < TL_ASK_AGAIN_AFTER; i++) { /* each was open, so each counts as the first */
        world_event(&w, TL_EVENT_MQTT_LOST);
        wait_its_time();
        CHECK(w.running && !tl_messages_asks(&w.messages));
        world_event(&w, TL_EVENT_MQTT_CONNECTED);
    }
    for (unsigned i = 0; i < TL_ASK_AGAIN_AFTER + 1; i++) {
        CHECK(!tl_messages_asks(&w.messages));
        world_event(&w, TL_EVENT_MQTT_LOST);
        wait_its_time();
    }
    CHECK(tl_messages_asks(&w.messages));
    world_tell_broker(&w);
    world_turn(&w);
    tl_messages_may_dial(&w.messages, false); /* somebody else shakes hands */
    world_event(&w, TL_EVENT_MQTT_LOST);
    const unsigned starts = w.starts;
    world_pass(&w, 200000);
    CHECK(w.starts == starts);
    tl_messages_may_dial(&w.messages, true);
    world_pass(&w, 10);
    CHECK(w.starts == starts + 1);
    world_event(&w, TL_EVENT_NETWORK_DOWN);
    CHECK(!w.running);
    world_pass(&w, 200000);
    CHECK(w.starts == starts + 1);
    world_event(&w, TL_EVENT_NETWORK_UP);
    world_pass(&w, TL_SETTLE_MS);
    CHECK(w.starts == starts + 2 && w.running);
    tl_messages_stop(&w.messages);
    CHECK(!w.running);
    world_pass(&w, 200000);
    CHECK(w.starts == starts + 2);
}

static void test_no_answer_of_the_broker(void)
{
    fresh();
    world_pass(&w, 2000);
    world_tell_broker(&w);
    world_turn(&w);
    CHECK(w.starts == 1 && w.running && w.messages.state == TL_MESSAGES_CONNECTING);
    world_pass(&w, TL_MQTT_CONNECT_MS - 1);
    CHECK(w.running && w.messages.state == TL_MESSAGES_CONNECTING);
    world_pass(&w, 1);
    CHECK(!w.running || w.starts == 2);
    world_event(&w, TL_EVENT_MQTT_LOST); /* of the former one, late: the next is left as well, and nothing hangs */
    world_pass(&w, 61000);
    CHECK(w.starts >= 2);
}

static void test_moved(void)
{
    fresh();
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_tell(&w, "accepted",
               "{\"v\":1,\"hello\":99,\"boot\":0,\"seq\":0,\"time\":1,\"prefix\":\"o_2/s_9/esp32/d_1\"}");
    CHECK(!w.running);
    world_pass(&w, 61000);
    CHECK(tl_messages_asks(&w.messages));
}

/* --- nothing is lost --- */

typedef struct {
    line bridge;
    uint32_t kept[2000]; /* marks of events, in the order in which they were taken */
    size_t count;
    tl_number told;
} platform;

static platform p;

static tl_number pair_of(const tl_json *message, const char *name)
{
    tl_json list, item;
    int64_t boot = 0, seq = 0;
    if (tl_json_member(message, name, &list)) {
        tl_span rest = list.text;
        CHECK(tl_json_next_item(&rest, &item) && tl_json_whole(&item, 0, INT64_MAX, &boot));
        CHECK(tl_json_next_item(&rest, &item) && tl_json_whole(&item, 0, INT64_MAX, &seq));
    }
    return (tl_number){(uint64_t)boot, (uint64_t)seq};
}

/* What the broker has reaches the platform, or not. */
static void platform_hears(const said_message *said)
{
    tl_json message, member, payload;
    int64_t boot, seq, mark;
    if (said->kind > TL_KIND_HEARTBEAT) {
        return;
    }
    CHECK(tl_json_check((tl_span){said->bytes, said->n}, &message) == TL_JSON_FINE);
    CHECK(tl_json_member(&message, "boot", &member) && tl_json_whole(&member, 1, INT64_MAX, &boot));
    CHECK(tl_json_member(&message, "seq", &member) && tl_json_whole(&member, 1, INT64_MAX, &seq));
    const tl_number number = {(uint64_t)boot, (uint64_t)seq}, floor = pair_of(&message, "floor");
    tl_number before = {number.boot, number.seq - 1};
    if (tl_json_member(&message, "prev", &member)) {
        before = pair_of(&message, "prev");
    }
    CHECK(!tl_number_above(floor, p.told)); /* nothing counts as accepted that was not told to be */
    if (line_offer(&p.bridge, number, before, floor) == PLACE_TAKE && said->kind == TL_KIND_EVENT) {
        payload = payload_of(&message);
        CHECK(tl_json_member(&payload, "mark", &member) && tl_json_whole(&member, 1, INT32_MAX, &mark));
        p.kept[p.count++] = (uint32_t)mark;
    }
}

static uint32_t story_chance;

static uint32_t one_of(uint32_t n)
{
    story_chance = story_chance * 1664525u + 1013904223u;
    return (story_chance >> 8) % n;
}

static void hear_some(uint32_t reach)
{
    for (size_t i = 0; i < w.said_count; i++) {
        if (one_of(100) < reach) {
            platform_hears(&w.said[i]);
        }
    }
    world_forget(&w);
}

static void tell_what_is_kept(void)
{
    p.told = p.bridge.have;
    if (w.running && w.messages.state == TL_MESSAGES_UP) {
        world_accept(&w, p.bridge.have);
    }
}

static void test_nothing_is_lost(void)
{
    for (uint32_t seed = 1; seed <= 12; seed++) {
        char text[40];
        uint32_t mark = 0;
        story_chance = seed;
        memset(&p, 0, sizeof p);
        fresh();
        world_connect(&w);
        world_answer_hello(&w, (tl_number){0, 0});
        for (int step = 0; step < 250; step++) {
            switch (one_of(12)) {
            case 0: /* kill -9 of the device, or its power: what was cut costs a sector its rest */
                w.flash.cut_at = one_of(3) == 0 ? w.flash.steps + 1 + one_of(5) : 0;
                sprintf(text, "{\"mark\":%u}", (unsigned)mark + 1);
                if (tl_messages_say(&w.messages, TL_KIND_EVENT, "step", tl_text(text))) {
                    mark++;
                }
                CHECK(world_boot(&w));
                world_forget(&w);
                break;
            case 1: /* the broker dies: what it took is gone */
                world_forget(&w);
                world_event(&w, TL_EVENT_MQTT_LOST);
                break;
            case 2:
                hear_some(50);
                break;
            case 3:
            case 4:
                hear_some(100);
                tell_what_is_kept();
                break;
            case 5:
                world_pass(&w, 1000u * one_of(30));
                break;
            case 6:
                world_connect(&w);
                world_answer_hello(&w, p.bridge.have);
                p.told = p.bridge.have;
                break;
            default:
                sprintf(text, "{\"mark\":%u}", (unsigned)mark + 1);
                if (w.messages.outbox.count < 60 &&
                    tl_messages_say(&w.messages, TL_KIND_EVENT, "step", tl_text(text))) {
                    mark++;
                }
                world_turn(&w);
                break;
            }
        }
        for (int i = 0; i < 60 && w.messages.outbox.count > 0; i++) {
            if (w.messages.state != TL_MESSAGES_UP) {
                world_connect(&w);
            }
            world_answer_hello(&w, p.bridge.have);
            world_pass(&w, 20000);
            hear_some(100);
            tell_what_is_kept();
        }
        /* Each once and in order. One whose store was cut off may be there, and the next bears its mark again. */
        uint32_t last = 0;
        for (size_t i = 0; i < p.count; i++) {
            CHECK(p.kept[i] == last + 1 || p.kept[i] == last);
            last = p.kept[i];
        }
        CHECK(last == mark || last == mark + 1);
        CHECK(mark > 60 && w.messages.outbox.dropped == 0);
    }
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_greets),
        CHECK_TEST(test_health),
        CHECK_TEST(test_sensors),
        CHECK_TEST(test_readings),
        CHECK_TEST(test_configuration),
        CHECK_TEST(test_hostile_words),
        CHECK_TEST(test_only_so_many_in_the_client),
        CHECK_TEST(test_asks_again),
        CHECK_TEST(test_no_answer_of_the_broker),
        CHECK_TEST(test_moved),
        CHECK_TEST(test_nothing_is_lost),
    };
    return CHECK_ALL(tests);
}
