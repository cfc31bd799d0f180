/* AUTH and HELLO: frames.json, auth.json's transcripts. */
#include "test_mux_world.h"

static tl_span payload_of(const vector_frame *v)
{
    return (tl_span){v->raw.at + TL_HEADER_SIZE, v->raw.n - TL_HEADER_SIZE};
}

static tl_span transcript_of(tl_out *out, tl_span nonce, const char *name, const char *device, tl_span instance)
{
    tl_auth_transcript(out, nonce.at, tl_text(name), tl_text(device), instance.at);
    return (tl_span){out->at, out->n};
}

static void test_transcript(void)
{
    const vector_auth *a = &vector_auth_case;
    uint8_t raw[TL_MAX_TRANSCRIPT];
    tl_out out = {raw, 0, sizeof raw, false};
    CHECK(tl_same(transcript_of(&out, a->nonce, a->server_name, a->device, a->instance), a->transcript));
    CHECK(a->must_not_verify_count == 4);
    for (size_t i = 0; i < a->must_not_verify_count; i++) {
        CHECK_NAMED(!tl_same((tl_span){raw, out.n}, a->must_not_verify[i].transcript), a->must_not_verify[i].name);
    }
}

static void test_auth(void)
{
    const vector_frame *v = frame_called("auth");
    uint8_t raw[256];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_auth auth = {.device_n = (uint8_t)strlen(v->device)};
    memcpy(auth.device, v->device, auth.device_n);
    memcpy(auth.instance, v->instance.at, sizeof auth.instance);
    memcpy(auth.key_id, v->key_id.at, sizeof auth.key_id);
    memcpy(auth.signature, v->signature.at, sizeof auth.signature);
    tl_auth_put(&out, &auth);
    CHECK(tl_auth_size(&auth) == out.n);
    CHECK(tl_same((tl_span){raw, out.n}, payload_of(v)));
}

static bool same_numbers(const tl_limits *limits, const vector_frame *v)
{
    return limits->max_frame == v->max_frame && limits->max_message == v->max_message &&
           limits->stream_window == v->stream_window && limits->connection_window == v->connection_window &&
           limits->max_streams == v->max_streams && limits->keepalive_ms == v->keepalive_ms;
}

static void test_hellos_are_read(void)
{
    size_t count = 0;
    for (size_t i = 0; i < vector_frames_count; i++) {
        const vector_frame *v = &vector_frames[i];
        tl_hello hello;
        if (strcmp(v->type, "HELLO") != 0) {
            continue;
        }
        count++;
        CHECK_NAMED(tl_hello_parse(payload_of(v), &hello) == NULL, v->name);
        CHECK_NAMED(same_numbers(&hello.limits, v), v->name);
        CHECK_NAMED(tl_is(hello.features, v->features) && tl_is(hello.software, v->software), v->name);
        CHECK_NAMED(hello.has_key_list == (v->key_list != NULL) && tl_is(hello.key_list, v->key_list), v->name);
    }
    CHECK(count == 4);
}

/* A device's own: in the order of the vector, so byte for byte. */
static void test_our_hello_is_written(void)
{
    const vector_frame *v = frame_called("hello of a small device");
    tl_service services[2];
    tl_hello hello;
    uint8_t raw[512];
    hello_of(v, &hello, services);
    tl_out out = {raw, 0, sizeof raw, false};
    tl_hello_put(&out, &hello);
    CHECK(tl_same((tl_span){raw, out.n}, payload_of(v)));
    for (size_t cap = 0; cap < v->raw.n - TL_HEADER_SIZE; cap++) {
        uint8_t *exact = malloc(cap + 1);
        tl_out little = {exact, 0, cap, false};
        tl_hello_put(&little, &hello);
        CHECK(little.full && little.n <= cap);
        free(exact);
    }
}

static tl_wrong read_field(uint8_t tag, size_t n, uint8_t byte, unsigned times)
{
    static uint8_t raw[4096];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_hello hello;
    while (times-- > 0) {
        tl_put_u8(&out, tag);
        tl_put_u16(&out, (uint16_t)n);
        for (size_t i = 0; i < n; i++) {
            tl_put_u8(&out, byte);
        }
    }
    return tl_hello_parse((tl_span){raw, out.n}, &hello);
}

static void test_hello_rules(void)
{
    CHECK(read_field(7, 1024, 'x', 1) == NULL && read_field(7, 1025, 'x', 1) != NULL);
    CHECK(read_field(8, 128, 'x', 1) == NULL && read_field(8, 129, 'x', 1) != NULL);
    CHECK(read_field(8, 1, 0xFF, 1) != NULL && read_field(10, 3, 0x80, 1) != NULL);
    CHECK(read_field(10, 0, 0, 1) == NULL); /* there, but empty */
    for (uint8_t tag = 1; tag <= 6; tag++) {
        CHECK(read_field(tag, 3, 0, 1) != NULL && read_field(tag, 5, 0, 1) != NULL);
    }
    for (uint8_t tag = 7; tag <= 10; tag++) {
        CHECK((read_field(tag, 1, 'x', 2) == NULL) == (tag == 9)); /* services: a device has no use for them */
    }
    CHECK(read_field(5, 4, 0, 1) == NULL); /* a server takes no streams */
    CHECK(read_field(3, 4, 0, 1) != NULL && read_field(4, 4, 0, 1) != NULL);
    CHECK(read_field(200, 7, 0xFF, 3) == NULL && read_field(0, 7, 0xFF, 3) == NULL);
}

static void test_a_field_is_never_read_beyond_its_end(void)
{
    tl_span whole = payload_of(frame_called("hello of a server"));
    size_t whole_fields = 0;
    for (size_t n = 0; n <= whole.n; n++) {
        uint8_t *exact = malloc(n + 1);
        tl_hello hello;
        memcpy(exact + 1, whole.at, n);
        whole_fields += tl_hello_parse((tl_span){exact + 1, n}, &hello) == NULL;
        free(exact);
    }
    CHECK(whole_fields == 9); /* nothing, and behind each of its eight fields */
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_transcript),
        CHECK_TEST(test_auth),
        CHECK_TEST(test_hellos_are_read),
        CHECK_TEST(test_our_hello_is_written),
        CHECK_TEST(test_hello_rules),
        CHECK_TEST(test_a_field_is_never_read_beyond_its_end),
    };
    return CHECK_ALL(tests);
}
