/* Commands: each once, one at a time, answered whenever it comes again; after a restart too. */
#include "check.h"
#include "message_world.h"

static message_world w;

#define ID "019a7afd-1e01-7aaa-bbbb-0000000%05u"

static void fresh(void)
{
    world_init(&w);
    CHECK(world_boot(&w));
    world_connect(&w);
    world_answer_hello(&w, (tl_number){0, 0});
    world_answer_hello(&w, (tl_number){0, 0});
    world_forget(&w);
}

static void restart(void)
{
    CHECK(world_boot(&w));
    world_forget(&w);
    world_connect(&w);
    world_answer_hello(&w, (tl_number){1, 0});
}

static void ask_within(unsigned id, const char *name, const char *params, unsigned ttl_ms, unsigned timeout_ms)
{
    char text[900];
    snprintf(text, sizeof text,
             "{\"id\":\"" ID "\",\"v\":1,\"name\":\"%s\",\"params\":%s,\"ttl_ms\":%u,\"expires\":1763000030000,"
             "\"timeout_ms\":%u,\"trace\":\"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\"}",
             id, name, params, ttl_ms, timeout_ms);
    world_tell(&w, "cmd", text);
}

static void ask(unsigned id, const char *name, const char *params)
{
    ask_within(id, name, params, 30000, 10000);
}

/* How many answers of this stage the command has; `last`: the text of the last, as it was sent. */
static unsigned answers(unsigned id, const char *stage, char last[200])
{
    char name[40];
    unsigned count = 0;
    snprintf(name, sizeof name, ID, id);
    last[0] = 0;
    for (size_t i = 0; i < w.said_count; i++) {
        tl_json message, payload;
        tl_json member;
        if (w.said[i].kind == TL_KIND_ACK &&
            tl_json_check((tl_span){w.said[i].bytes, w.said[i].n}, &message) == TL_JSON_FINE &&
            tl_json_member(&message, "payload", &payload) && tl_json_member(&payload, "command", &member) &&
            tl_json_says(&member, tl_text(name)) && tl_json_member(&payload, "stage", &member) &&
            tl_json_says(&member, tl_text(stage))) {
            count++;
            snprintf(last, 200, "%.*s", (int)payload.text.n, (const char *)payload.text.at);
        }
    }
    return count;
}

static bool ended(unsigned id, const char *stage, const char *with)
{
    char last[200];
    const bool found = answers(id, stage, last) > 0 && strstr(last, with) != NULL;
    if (!found) {
        printf("command %u: %s\n", id, last);
    }
    return found;
}

static void test_harmless_ones(void)
{
    char last[200];
    fresh();
    ask(1, "ping", "{}");
    CHECK(answers(1, "received", last) == 1 && ended(1, "done", "\"at\":1763000"));
    CHECK(ended(1, "done", "\"ok\":true") && w.kv.commits == 1);
    ask(2, "log_level", "{\"level\":\"debug\"}");
    CHECK(ended(2, "done", "\"ok\":true,\"result\":{\"was\":\"info\"}") && w.level == TL_LOG_DEBUG);
    ask(3, "identify", "{}");
    CHECK(ended(3, "done", "\"ok\":true") && w.identified == 1 && w.kv.commits == 1);
    w.wall_s = -1;
    ask(4, "ping", "{}");
    CHECK(ended(4, "done", "\"at\":null"));
}

static void test_what_is_refused(void)
{
    static const struct {
        const char *name, *params, *why;
    } cases[] = {
        {"run", "{}", "unsupported"},
        {"pin", "{}", "unsupported"},
        {"ping", "{\"x\":1}", "bad_params"},
        {"reboot", "{\"now\":true}", "bad_params"},
        {"log_level", "{}", "bad_params"},
        {"log_level", "{\"level\":\"loud\"}", "bad_params"},
        {"log_level", "{\"level\":1}", "bad_params"},
        {"log_level", "{\"level\":\"info\",\"x\":0}", "bad_params"},
        {"update", "{}", "bad_params"},
        {"update", "{\"url\":\"\",\"size\":1,\"sha256\":\"%s\",\"version\":\"1\"}", "bad_params"},
        {"update", "{\"url\":\"https://a\",\"size\":0,\"sha256\":\"%s\",\"version\":\"1\"}", "bad_params"},
        {"update", "{\"url\":\"https://a\",\"size\":4294967296,\"sha256\":\"%s\",\"version\":\"1\"}", "bad_params"},
        {"update", "{\"url\":\"https://a\",\"size\":9,\"sha256\":\"%s0\",\"version\":\"1\"}", "bad_params"},
        {"update", "{\"url\":\"https://a\",\"size\":9,\"sha256\":\"%sx\",\"version\":\"1\"}", "bad_params"},
        {"update", "{\"url\":\"https://a\",\"size\":9,\"sha256\":\"%s\",\"version\":1}", "bad_params"},
    };
    char sha[65], params[300], last[200];
    memset(sha, 'a', 64);
    sha[64] = 0;
    fresh();
    const unsigned count = sizeof cases / sizeof cases[0];
    for (unsigned i = 0; i < count; i++) {
        snprintf(params, sizeof params, cases[i].params, sha);
        ask(i, cases[i].name, params);
        CHECK_NAMED(ended(i, "refused", cases[i].why) && answers(i, "received", last) == 0, cases[i].params);
    }
    CHECK(w.reboots == 0 && w.updates == 0 && w.kv.commits == 1 && w.messages.commands.update.size == 0);
    char url[TL_UPDATE_URL_MAX + 2] = {0};
    memset(url, 'u', TL_UPDATE_URL_MAX + 1);
    snprintf(params, sizeof params, "{\"url\":\"%s\",\"size\":9,\"sha256\":\"aa\",\"version\":\"1\"}", url);
    ask(100, "update", params);
    CHECK(ended(100, "refused", "bad_params"));
    /* What was refused stays refused, whatever has changed since. */
    ask(0, "ping", "{}");
    CHECK(answers(0, "refused", last) == 2 && answers(0, "done", last) == 0);
}

static void test_reboot_once(void)
{
    char last[200];
    fresh();
    ask(1, "reboot", "{}");
    CHECK(answers(1, "received", last) == 1 && answers(1, "done", last) == 0 && w.reboots == 0);
    ask(1, "reboot", "{}"); /* again, before it happens */
    CHECK(answers(1, "received", last) == 2);
    world_pass(&w, TL_REBOOT_AFTER_MS);
    CHECK(w.reboots == 1);
    restart();
    CHECK(ended(1, "done", "\"ok\":true"));
    world_forget(&w);
    ask(1, "reboot", "{}");
    CHECK(ended(1, "done", "\"ok\":true") && answers(1, "received", last) == 0);
    world_pass(&w, 10000);
    CHECK(w.reboots == 1);
    restart(); /* and for ever */
    ask(1, "reboot", "{}");
    world_pass(&w, 10000);
    CHECK(ended(1, "done", "\"ok\":true") && w.reboots == 1);
}

static void test_reboot_that_does_not_happen(void)
{
    fresh();
    ask(1, "reboot", "{}");
    world_pass(&w, TL_REBOOT_AFTER_MS + 5000);
    CHECK(w.reboots == 1 && ended(1, "done", "\"ok\":false,\"error\":\"the device did not restart\""));
}

static void test_not_stored_not_done(void)
{
    fresh();
    w.kv.fails = true;
    ask(1, "reboot", "{}");
    world_pass(&w, 10000);
    CHECK(ended(1, "refused", "not_stored") && w.reboots == 0);
    w.kv.fails = false;
    ask(1, "reboot", "{}");
    world_pass(&w, 10000);
    CHECK(w.reboots == 0); /* it was refused */
}

static const char update_params[] = "{\"url\":\"https://gateway.example/f.bin\",\"size\":1000,\"sha256\":"
                                    "\"abababababababababababababababababababababababababababababababab\","
                                    "\"version\":\"1.3.0\"}";

static void test_update(void)
{
    char last[200];
    fresh();
    ask(1, "update", update_params);
    CHECK(w.updates == 1 && answers(1, "received", last) == 1 && answers(1, "done", last) == 0);
    ask(2, "update", update_params);
    CHECK(ended(2, "refused", "busy"));
    ask(3, "ping", "{}"); /* waits for its turn */
    CHECK(answers(3, "received", last) == 0);
    ask_within(4, "ping", "{}", 100, 1000);
    world_pass(&w, 500);
    tl_messages_event(&w.messages, &(tl_event){.kind = TL_EVENT_NONE});
    tl_commands_update_over(&w.messages.commands, "the signature does not hold");
    world_turn(&w);
    CHECK(ended(1, "done", "\"ok\":false,\"error\":\"the signature does not hold\""));
    CHECK(ended(3, "done", "\"ok\":true") && ended(4, "refused", "expired"));
    restart();
    ask(1, "update", update_params);
    CHECK(ended(1, "done", "\"error\":\"the signature does not hold\"") && w.updates == 1);
    w.update_says = "the address is no https://";
    ask(5, "update", update_params);
    CHECK(ended(5, "done", "\"error\":\"the address is no https://\"") && w.updates == 2);
    w.update_says = NULL;
    ask(6, "update", update_params); /* takes too long */
    world_pass(&w, 10001);
    CHECK(ended(6, "done", "\"error\":\"timed_out\"") && w.updates_stopped == 1);
    tl_commands_update_over(&w.messages.commands, NULL); /* too late */
    world_turn(&w);
    CHECK(answers(6, "done", last) == 1);
}

static void test_update_over_a_restart(void)
{
    static const struct {
        tl_update_outcome outcome;
        const char *says;
    } cases[] = {{TL_UPDATE_UNKNOWN, "\"ok\":false,\"error\":\"interrupted\""},
                 {TL_UPDATE_RUNS, "\"ok\":true"},
                 {TL_UPDATE_ROLLED_BACK, "\"ok\":false,\"error\":\"rolled_back\""}};
    char last[200];
    for (unsigned i = 0; i < 3; i++) {
        fresh();
        ask(1, "update", update_params);
        w.outcome = cases[i].outcome;
        restart();
        CHECK(ended(1, "done", cases[i].says) && w.updates == 1);
    }
    fresh();
    ask(1, "update", update_params);
    w.outcome = TL_UPDATE_ON_TRIAL;
    restart();
    CHECK(answers(1, "done", last) == 0);
    ask(1, "update", update_params);
    CHECK(answers(1, "received", last) == 1 && w.updates == 1);
    tl_commands_update_over(&w.messages.commands, NULL);
    world_turn(&w);
    CHECK(ended(1, "done", "\"ok\":true"));
}

static void test_many(void)
{
    char last[200];
    fresh();
    ask(1, "update", update_params); /* holds up all others */
    for (unsigned i = 2; i < 2 + TL_COMMANDS_WAITING; i++) {
        ask(i, "identify", "{}");
        ask(i, "identify", "{}");
        CHECK(answers(i, "refused", last) == 0);
    }
    ask(99, "identify", "{}");
    CHECK(ended(99, "refused", "busy"));
    tl_commands_update_over(&w.messages.commands, "no");
    world_turn(&w);
    CHECK(w.identified == TL_COMMANDS_WAITING);
    ask(99, "identify", "{}");
    CHECK(w.identified == TL_COMMANDS_WAITING);
    /* More answers than wait for a connection: the newest are kept, and the rest is said when asked again. */
    world_event(&w, TL_EVENT_MQTT_LOST);
    for (unsigned i = 0; i < 3 * TL_ACKS; i++) {
        tl_command command = {.ttl_ms = 1000, .timeout_ms = 1000};
        tl_json name;
        CHECK(tl_json_check(tl_text("\"ping\""), &name) == TL_JSON_FINE);
        command.name = name;
        command.params = (tl_json){TL_JSON_OBJECT, {0}};
        command.id[15] = (uint8_t)i;
        tl_commands_offer(&w.messages.commands, &command, w.now_ms);
        (void)tl_commands_run(&w.messages.commands, w.now_ms);
    }
    CHECK(w.messages.commands.ack_count == TL_ACKS);
}

/* The ledger forgets the oldest that ended, never one that runs. */
static void test_ledger(void)
{
    static memory_kv kv;
    static tl_ledger ledger;
    uint8_t id[TL_UUID] = {0};
    kv_init(&kv);
    tl_ledger_open(&ledger, &kv.port);
    CHECK(tl_ledger_find(&ledger, id) == TL_NO_SLOT);
    const uint8_t first = tl_ledger_take(&ledger, id, 4);
    CHECK(first != TL_NO_SLOT && tl_ledger_find(&ledger, id) == first);
    for (unsigned i = 1; i < 3 * TL_LEDGER_ENTRIES; i++) {
        id[14] = (uint8_t)(i >> 8);
        id[15] = (uint8_t)i;
        const uint8_t slot = tl_ledger_take(&ledger, id, 4);
        CHECK(slot != TL_NO_SLOT && slot != first && tl_ledger_end(&ledger, slot, i % 2 ? "why it failed" : NULL));
    }
    kv_restart(&kv);
    tl_ledger_open(&ledger, &kv.port);
    unsigned known = 0;
    for (unsigned i = 0; i < 3 * TL_LEDGER_ENTRIES; i++) {
        uint8_t text[TL_LEDGER_ERROR_MAX];
        tl_out out = {text, 0, sizeof text, false};
        id[14] = (uint8_t)(i >> 8);
        id[15] = (uint8_t)i;
        const uint8_t slot = tl_ledger_find(&ledger, id);
        if (slot == TL_NO_SLOT) {
            continue;
        }
        known++;
        CHECK(i == 0 || i > 2 * TL_LEDGER_ENTRIES);
        CHECK(ledger.entries[slot].state == (i == 0 ? TL_LEDGER_BEGUN : i % 2 ? TL_LEDGER_FAILED : TL_LEDGER_DONE));
        tl_ledger_put_error(&ledger, slot, &out);
        CHECK(tl_is((tl_span){text, out.n}, i % 2 ? "why it failed" : ""));
    }
    CHECK(known == TL_LEDGER_ENTRIES);
    id[0] = 7;
    kv.fails = true;
    CHECK(tl_ledger_take(&ledger, id, 4) == TL_NO_SLOT && tl_ledger_find(&ledger, id) == TL_NO_SLOT);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_harmless_ones),
        CHECK_TEST(test_what_is_refused),
        CHECK_TEST(test_reboot_once),
        CHECK_TEST(test_reboot_that_does_not_happen),
        CHECK_TEST(test_not_stored_not_done),
        CHECK_TEST(test_update),
        CHECK_TEST(test_update_over_a_restart),
        CHECK_TEST(test_many),
        CHECK_TEST(test_ledger),
    };
    return CHECK_ALL(tests);
}
