/* device-v1.json: what a device reads, writes and decides. */
#include "check.h"
#include "device_model.h"
#include "towline/bodies.h"
#include "towline/bytes.h"
#include "towline/told.h"
#include "vectors.h"

/* A vector more, or fewer, needs a look. */
enum { TOPICS = 34, SENDINGS = 2, TOLD = 32, BODIES = 10, LINES = 11, COUNTERS = 9, FOR_READERS = 173 };

static bool same_number(tl_number one, tl_number other)
{
    return one.boot == other.boot && one.seq == other.seq;
}

static bool says(tl_out *out, tl_span wanted)
{
    return !out->full && tl_same((tl_span){out->at, out->n}, wanted);
}

static void test_topics(void)
{
    CHECK(vector_topics_count == TOPICS && vector_messages_for_readers == FOR_READERS);
    for (size_t i = 0; i < vector_topics_count; i++) {
        const vector_topic *v = &vector_topics[i];
        tl_span prefix = {0};
        const tl_kind kind = tl_topic_kind(v->text, &prefix);
        CHECK_NAMED((kind != TL_KIND_NONE) == (v->tokens != NULL), (const char *)v->text.at);
        if (v->tokens == NULL) {
            continue;
        }
        uint8_t again[TL_TOPIC_MAX];
        tl_out out = {again, 0, sizeof again, false};
        tl_put_topic(&out, prefix, kind);
        CHECK_NAMED(says(&out, v->text), v->tokens);
        CHECK_NAMED(tl_is_prefix(prefix), v->tokens);
        for (size_t k = 0; k < out.n; k++) {
            again[k] = again[k] == '/' ? ',' : again[k];
        }
        CHECK_NAMED(says(&out, tl_text(v->tokens)), v->tokens);
    }
}

/* Where `text` stands. */
static size_t place_of(tl_span in, const char *text)
{
    const tl_span wanted = tl_text(text);
    for (size_t i = 0; i + wanted.n <= in.n; i++) {
        if (memcmp(in.at + i, wanted.at, wanted.n) == 0) {
            return i;
        }
    }
    return in.n;
}

/* An entry is kept without its number: what stands before it and the payload behind it. */
static void test_sending(void)
{
    CHECK(vector_sendings_count == SENDINGS);
    for (size_t i = 0; i < vector_sendings_count; i++) {
        const vector_sending *v = &vector_sendings[i];
        const size_t split = place_of(v->stored, ",\"boot\""), payload = place_of(v->stored, "{\"on\"");
        const tl_number number = {v->tells_prev ? 1 : 7, v->tells_prev ? 1 : 42};
        uint8_t raw[512];
        tl_out out = {raw, 0, sizeof raw, false};
        tl_put(&out, v->stored.at, split);
        tl_envelope_put_number(&out, number);
        tl_put(&out, v->stored.at + payload, v->stored.n - payload - 1);
        tl_envelope_put_line(&out, number, v->floor, v->tells_prev ? v->prev : (tl_number){7, 41});
        CHECK_NAMED(says(&out, v->sent), v->name);
    }
}

/* A boot's first message always tells what is before it. */
static void test_the_first_of_a_boot(void)
{
    uint8_t raw[64];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_envelope_put_line(&out, (tl_number){7, 1}, (tl_number){7, 0}, (tl_number){7, 0});
    CHECK(says(&out, tl_text(",\"floor\":[7,0],\"prev\":[7,0]}")));
}

static void test_the_head(void)
{
    /* The entry of the vectors again, from what it is made of. */
    const tl_envelope envelope = {.type = "state",
                                  .ts_ms = 1763000000000,
                                  .up_ms = 81234,
                                  .random = {0xf0, 0x01, 0xc2, 0x03, 4, 5, 6, 7, 8, 9}};
    const tl_span stored = vector_sendings[0].stored;
    uint8_t raw[128];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_envelope_put_head(&out, &envelope);
    CHECK(says(&out, (tl_span){stored.at, place_of(stored, ",\"boot\"")}));
    CHECK(memcmp(raw + TL_ENVELOPE_ID_AT, "019a7afd-1e00-7001-8203-040506070809", 36) == 0);
    out.n = 0;
    tl_envelope_put_head(&out, &(tl_envelope){.type = "hello", .ts_ms = -1});
    CHECK(says(&out, tl_text("{\"id\":\"00000000-0000-7000-8000-000000000000\",\"v\":1,\"type\":\"hello\","
                             "\"ts\":null,\"up\":0")));
}

static void check_id(const uint8_t *id, const vector_told *v)
{
    uint8_t text[36];
    tl_out out = {text, 0, sizeof text, false};
    tl_put_uuid(&out, id);
    CHECK_NAMED(says(&out, tl_text(v->id)), v->name);
}

/* The list of reasons that say nothing of the message itself. */
static bool is_by_itself(const char *reason)
{
    return strcmp(reason, "bad_schema") == 0 || strcmp(reason, "bad_utf8") == 0;
}

static void check_accepted(const vector_told *v)
{
    tl_told told;
    const bool believed = tl_told_accepted(v->raw, &told);
    CHECK_NAMED(believed == (v->what != NULL), v->name);
    if (v->what == NULL) {
        return;
    }
    if (strcmp(v->what, "refused") == 0) {
        CHECK_NAMED(told.what == TL_TOLD_REFUSED && told.has_id == (v->id != NULL), v->name);
        CHECK_NAMED(told.by_itself == is_by_itself(v->reason), v->name);
        if (v->id != NULL) {
            check_id(told.id, v);
        }
        return;
    }
    CHECK_NAMED(same_number(told.number, v->number), v->name);
    const bool answer = strcmp(v->what, "answer") == 0;
    CHECK_NAMED(told.what == (answer ? TL_TOLD_ANSWER : TL_TOLD_KEPT), v->name);
    if (answer) {
        CHECK_NAMED(told.hello_boot == v->hello && told.time_ms == (int64_t)v->time, v->name);
        CHECK_NAMED(tl_is((tl_span){told.prefix, told.prefix_n}, v->prefix), v->name);
    }
}

/* An object's text stands between its braces. */
static bool is_object(const tl_json *object, const char *text)
{
    const size_t n = strlen(text);
    return tl_same(object->text, (tl_span){(const uint8_t *)text + 1, n - 2});
}

static void check_command(const vector_told *v)
{
    tl_command command;
    CHECK_NAMED(tl_told_command(v->raw, &command) == (v->what != NULL), v->name);
    if (v->what != NULL) {
        CHECK_NAMED(tl_json_says(&command.name, tl_text(v->command)), v->name);
        CHECK_NAMED(is_object(&command.params, v->params) && command.ttl_ms == v->ttl_ms, v->name);
        CHECK_NAMED(command.expires_ms == v->expires && command.timeout_ms == v->timeout_ms, v->name);
        check_id(command.id, v);
    }
}

static void check_desired(const vector_told *v)
{
    tl_desired desired;
    uint8_t hex[64];
    tl_out out = {hex, 0, sizeof hex, false};
    CHECK_NAMED(tl_told_desired(v->raw, &desired) == (v->what != NULL), v->name);
    if (v->what != NULL) {
        tl_put_hex(&out, (tl_span){desired.sha256, sizeof desired.sha256});
        CHECK_NAMED(says(&out, tl_text(v->sha256)), v->name);
        CHECK_NAMED(desired.version == v->version && is_object(&desired.body, v->body), v->name);
    }
}

static void test_told(void)
{
    CHECK(vector_tolds_count == TOLD);
    for (size_t i = 0; i < vector_tolds_count; i++) {
        const vector_told *v = &vector_tolds[i];
        if (strcmp(v->kind, "accepted") == 0) {
            check_accepted(v);
        } else if (strcmp(v->kind, "cmd") == 0) {
            check_command(v);
        } else {
            CHECK_NAMED(strcmp(v->kind, "config") == 0, v->name);
            check_desired(v);
        }
    }
}

static void put_hello(tl_out *out, const vector_body *v)
{
    const tl_outbox_report outbox = {v->outbox[0], v->outbox[1], v->outbox[2], v->outbox[3]};
    char names[128], *rest = names;
    const char *commands[8];
    tl_hello_body body = {.boot = v->boot, .instance = v->instance, .software = v->software, .type = v->type,
                          .commands = commands, .config = v->config, .outbox = v->has_outbox ? &outbox : NULL};
    strcpy(names, v->commands);
    for (char *end = rest; *rest != 0 && end != NULL; rest = end + 1) {
        end = strchr(rest, ',');
        if (end != NULL) {
            *end = 0;
        }
        commands[body.command_count++] = rest;
        if (end == NULL) {
            break;
        }
    }
    tl_put_hello_body(out, &body);
}

static void put_ack(tl_out *out, const vector_body *v)
{
    static const char *const stages[] = {"received", "done", "refused"};
    uint8_t quoted[38] = {'"'}, id[TL_UUID];
    memcpy(quoted + 1, v->command, 36);
    const tl_json text = {TL_JSON_STRING, {quoted + 1, 36}};
    CHECK_NAMED(tl_uuid7_read(&text, id), v->name);
    tl_ack_body body = {.command = id, .at_ms = v->has_at ? (int64_t)v->at : -1, .ok = v->ok,
                        .result = tl_text(v->result), .error = tl_text(v->error)};
    while (strcmp(stages[body.stage], v->stage) != 0) {
        body.stage++;
    }
    tl_put_ack_body(out, &body);
}

static void put_reported(tl_out *out, const vector_body *v)
{
    uint8_t sha256[32];
    for (size_t i = 0; v->sha256 != NULL && i < sizeof sha256; i++) {
        CHECK_NAMED(tl_hex((const uint8_t *)v->sha256 + 2 * i, &sha256[i]), v->name);
    }
    tl_put_reported_body(out, &(tl_reported_body){v->version, v->sha256 == NULL ? NULL : sha256, v->told,
                                                  tl_text(v->error)});
}

static void test_bodies(void)
{
    CHECK(vector_bodies_count == BODIES);
    for (size_t i = 0; i < vector_bodies_count; i++) {
        const vector_body *v = &vector_bodies[i];
        uint8_t raw[512];
        tl_out out = {raw, 0, sizeof raw, false};
        if (v->gone) {
            tl_put_gone_body(&out, v->instance);
        } else if (strcmp(v->kind, "hello") == 0) {
            put_hello(&out, v);
        } else if (strcmp(v->kind, "ack") == 0) {
            put_ack(&out, v);
        } else {
            CHECK_NAMED(strcmp(v->kind, "state") == 0, v->name);
            put_reported(&out, v);
        }
        CHECK_NAMED(says(&out, v->raw), v->name);
    }
}

/* The model that the other tests hold the outbox to. */
static void test_lines(void)
{
    static const char *const places[] = {"take", "seen", "gap"};
    CHECK(vector_lines_count == LINES);
    for (size_t i = 0; i < vector_lines_count; i++) {
        const vector_line *v = &vector_lines[i];
        line l = {.have = v->have};
        for (size_t k = 0; k < v->step_count; k++) {
            const vector_line_step *step = &v->steps[k];
            const place found = line_offer(&l, step->number, step->before, step->floor);
            CHECK_NAMED(strcmp(places[found], step->place) == 0 && l.passed == step->passed, v->name);
            CHECK_NAMED(same_number(l.have, step->have), v->name);
        }
    }
}

static void test_counters(void)
{
    CHECK(vector_counters_count == COUNTERS);
    for (size_t i = 0; i < vector_counters_count; i++) {
        const vector_counter *v = &vector_counters[i];
        CHECK_NAMED(tl_went_back(v->highest, v->told) == v->went_back, v->name);
        CHECK_NAMED(!v->went_back || v->told.boot + 1 == v->next_boot, v->name);
    }
}

/* Beside the vectors' own. */
static void test_what_is_not_believed(void)
{
    static const char *const bad[] = {
        "{\"v\":1,\"refused\":\"bad_schema\",\"id\":\"x\"}",
        "{\"v\":1,\"refused\":\"bad_schema\",\"id\":7}",
        "{\"v\":1,\"refused\":null,\"boot\":7,\"seq\":42}",
        "{\"v\":1,\"hello\":null,\"boot\":7,\"seq\":42}",
        "{\"v\":1,\"boot\":\"7\",\"seq\":42}",
        "{\"v\":1.0,\"boot\":7,\"seq\":42}",
    };
    tl_told told;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_NAMED(!tl_told_accepted(tl_text(bad[i]), &told), bad[i]);
    }
}

/* Ids that a careless reader would take. */
static void test_ids(void)
{
    static const char *const bad[] = {
        "\"019a7afd-1e00-6001-8203-040506070809\"", "\"019a7afd-1e00-7001-c203-040506070809\"",
        "\"019a7afd-1e00-7001-8203-04050607080\"",  "\"019a7afd-1e00-7001-8203-0405060708090\"",
        "\"019A7AFD-1e00-7001-8203-040506070809\"", "\"019a7afd+1e00-7001-8203-040506070809\"",
        "\"019a7afd-1e00-7001-8203-04050607080g\"", "\"\"", "7", "null",
    };
    uint8_t id[TL_UUID];
    tl_json json;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_NAMED(tl_json_check(tl_text(bad[i]), &json) == TL_JSON_FINE && !tl_uuid7_read(&json, id), bad[i]);
    }
    CHECK(tl_json_check(tl_text("\"\\u0030" "19a7afd-1e00-7001-8203-040506070809\""), &json) == TL_JSON_FINE &&
          tl_uuid7_read(&json, id) && id[0] == 1 && id[15] == 9);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_topics), CHECK_TEST(test_sending), CHECK_TEST(test_the_head), CHECK_TEST(test_told),
        CHECK_TEST(test_the_first_of_a_boot), CHECK_TEST(test_what_is_not_believed),
        CHECK_TEST(test_bodies), CHECK_TEST(test_lines),   CHECK_TEST(test_counters), CHECK_TEST(test_ids),
    };
    return CHECK_ALL(tests);
}
