/* frames.json and what bytes.h promises. */
#include <stdlib.h>

#include "towline/bytes.h"
#include "check.h"
#include "towline/frame.h"
#include "vectors.h"

#define SPAN(text) ((tl_span){(const uint8_t *)(text), sizeof(text) - 1})

enum { FRAMES_KNOWN = 20 }; /* a vector more needs a look at what is checked below */

static tl_frame_type type_called(const char *name)
{
    static const char *const names[] = {"",       "CHALLENGE", "AUTH", "HELLO", "GRANT", "REVOKE", "OPEN", "OPENED",
                                        "REFUSED", "DATA",      "FIN",  "RESET", "CREDIT", "PING", "PONG", "GOAWAY"};
    for (unsigned i = 1; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i], name) == 0) {
            return (tl_frame_type)i;
        }
    }
    return (tl_frame_type)0;
}

static bool is(const uint8_t *bytes, tl_span wanted)
{
    return memcmp(bytes, wanted.at, wanted.n) == 0;
}

/* Reads the payload as the vector says. */
static bool reads(const vector_frame *v, tl_span payload)
{
    tl_challenge challenge;
    tl_grant_frame grant;
    tl_open open;
    tl_refused refused;
    tl_goaway goaway;
    switch (type_called(v->type)) {
    case TL_CHALLENGE:
        return tl_challenge_parse(payload, &challenge) == NULL && is(challenge.nonce, v->nonce) &&
               tl_is(challenge.server_name, v->server_name);
    case TL_GRANT:
        return tl_grant_parse(payload, &grant) == NULL && is(grant.grant_id, v->grant_id) &&
               tl_is(grant.token, v->token);
    case TL_OPEN:
        return tl_open_parse(payload, &open) == NULL && is(open.grant_id, v->grant_id) &&
               tl_is(open.device, v->device) && tl_is(open.service, v->service);
    case TL_REFUSED:
        return tl_refused_parse(payload, &refused) == NULL && refused.code == v->code &&
               tl_is(refused.message, v->message);
    case TL_GOAWAY:
        return tl_goaway_parse(payload, &goaway) == NULL && goaway.last_id == v->last_id &&
               goaway.retry_after_ms == v->retry_after_ms && goaway.code == v->code && tl_is(goaway.reason, v->reason);
    case TL_REVOKE:
        return tl_same(payload, v->grant_id);
    case TL_DATA:
        return tl_same(payload, v->data);
    case TL_RESET:
        return tl_u16(payload.at) == v->code;
    case TL_CREDIT:
        return tl_u64(payload.at) == v->offset;
    case TL_PING:
    case TL_PONG:
        return tl_same(payload, v->opaque);
    case TL_OPENED:
    case TL_FIN:
        return payload.n == 0;
    case TL_AUTH:
    case TL_HELLO:
        return true; /* test_fields.c */
    }
    return false;
}

/* Writes the vector's values with the writers that a device has; false: it never sends this type. */
static bool writes(const vector_frame *v, tl_out *out)
{
    tl_frame_type type = type_called(v->type);
    switch (type) {
    case TL_REFUSED:
        tl_refused_put(out, v->stream, (tl_refused_code)v->code, v->message);
        return true;
    case TL_RESET:
        tl_reset_put(out, v->stream, (tl_reset_code)v->code);
        return true;
    case TL_CREDIT:
        tl_number_put(out, type, v->stream, v->offset);
        return true;
    case TL_GOAWAY:
        tl_goaway_put(out, v->last_id, v->retry_after_ms, (tl_close_code)v->code, v->reason);
        return true;
    case TL_PING:
    case TL_PONG:
        tl_number_put(out, type, v->stream, tl_u64(v->opaque.at));
        return true;
    case TL_DATA:
        tl_frame_put(out, type, v->stream, v->data);
        return true;
    case TL_OPENED:
    case TL_FIN:
        tl_header_put(out, type, v->stream, 0);
        return true;
    default:
        return false;
    }
}

static void test_vectors(void)
{
    size_t written = 0;
    CHECK(vector_frames_count == FRAMES_KNOWN);
    for (size_t i = 0; i < vector_frames_count; i++) {
        const vector_frame *v = &vector_frames[i];
        uint8_t buffer[512];
        tl_out out = {buffer, 0, sizeof buffer, false};
        tl_span message = v->raw;
        tl_frame frame;
        CHECK_NAMED(tl_frame_next(&message, 65535, &frame) == TL_FRAME_OK, v->name);
        CHECK_NAMED(frame.type == type_called(v->type) && frame.stream == v->stream, v->name);
        CHECK_NAMED(reads(v, frame.payload), v->name);
        CHECK_NAMED(tl_frame_next(&message, 65535, &frame) == TL_FRAME_END, v->name);
        if (writes(v, &out)) {
            written++;
            CHECK_NAMED(tl_same((tl_span){buffer, out.n}, v->raw) && !out.full, v->name);
            tl_out short_of_one = {buffer, 0, v->raw.n - 1, false};
            (void)writes(v, &short_of_one);
            CHECK_NAMED(short_of_one.full, v->name);
        }
    }
    CHECK(written == 11);
}

static void test_several_in_one_message(void)
{
    uint8_t raw[64];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_frame_put(&out, TL_PING, 0, SPAN("12345678"));
    tl_header_put(&out, TL_FIN, 7, 0);
    tl_put_text(&out, "rest");
    tl_span message = {raw, out.n};
    tl_frame frame;
    CHECK(tl_frame_next(&message, 2032, &frame) == TL_FRAME_OK && frame.type == TL_PING);
    CHECK(tl_frame_next(&message, 2032, &frame) == TL_FRAME_OK && frame.type == TL_FIN && frame.stream == 7);
    CHECK(tl_frame_next(&message, 2032, &frame) == TL_FRAME_BAD && frame.wrong != NULL);
}

/* In memory of exactly its size: the NUL of a literal would end a cut character just as well. */
static bool utf8(const char *text)
{
    size_t n = strlen(text);
    uint8_t *exact = malloc(n + 1);
    memcpy(exact + 1, text, n);
    bool valid = tl_is_utf8((tl_span){exact + 1, n});
    free(exact);
    return valid;
}

static void test_utf8(void)
{
    static const char *const good[] = {"", "a", "\xc2\x80", "\xdf\xbf", "\xe0\xa0\x80", "\xed\x9f\xbf", "\xee\x80\x80",
                                       "\xef\xbf\xbf", "\xf0\x90\x80\x80", "\xf4\x8f\xbf\xbf", "w\xc3\xa9" "b"};
    static const char *const bad[] = {"\x80", "\xbf", "\xc0\x80", "\xc1\xbf", "\xc2", "\xc2" "a", "\xe0\x9f\xbf",
                                      "\xed\xa0\x80", "\xe1\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80",
                                      "\xf5\x80\x80\x80",
                                      "\xff", "a\xe2\x82", "\xe2\x82" "a"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK_NAMED(utf8(good[i]), good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK_NAMED(!utf8(bad[i]), bad[i]);
    }
}

static void test_names_and_hosts(void)
{
    char longest[66];
    memset(longest, 'x', sizeof longest);
    CHECK(tl_is_name((tl_span){(uint8_t *)longest, 64}) && !tl_is_name((tl_span){(uint8_t *)longest, 65}));
    CHECK(tl_is_name(SPAN("a-z_0")) && !tl_is_name(SPAN("")) && !tl_is_name(SPAN("A")) && !tl_is_name(SPAN("a.b")));
    CHECK(tl_same_host(SPAN("Tunnel.EXAMPLE"), SPAN("tunnel.example")));
    CHECK(!tl_same_host(SPAN("tunnel.example"), SPAN("tunnel.example.")));
    CHECK(!tl_same_host(SPAN("[ab]"), SPAN("{ab}")));
}

static void test_base64url(void)
{
    static const struct {
        const char *text, *raw;
    } good[] = {{"", ""}, {"Zg", "f"}, {"Zm8", "fo"}, {"Zm9v", "foo"}, {"Zm9vYg", "foob"}, {"-_-_", "\xfb\xff\xbf"}};
    /* One character too many, set bits that say nothing, padding, the other alphabet. */
    static const char *const bad[] = {"Z", "Zm9vY", "Zh", "Zm9", "Zg==", "Zm8=", "Zm9v\n", "+/+/", "Zm 9v"};
    uint8_t raw[16];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        tl_out out = {raw, 0, sizeof raw, false};
        CHECK_NAMED(tl_base64url_decode(tl_text(good[i].text), &out), good[i].text);
        CHECK_NAMED(tl_is((tl_span){raw, out.n}, good[i].raw), good[i].text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        tl_out out = {raw, 0, sizeof raw, false};
        CHECK_NAMED(!tl_base64url_decode(tl_text(bad[i]), &out), bad[i]);
    }
    tl_out little = {raw, 0, 2, false};
    CHECK(!tl_base64url_decode(SPAN("Zm9v"), &little));
}

static void test_unknown_codes_read_as_internal(void)
{
    CHECK(tl_reset_code_of(3) == TL_RESET_GRANT_ENDED && tl_reset_code_of(0) == TL_RESET_INTERNAL);
    CHECK(tl_reset_code_of(6) == TL_RESET_INTERNAL && tl_reset_code_of(65535) == TL_RESET_INTERNAL);
    CHECK(tl_close_code_of(11) == TL_CLOSE_TRY_LATER && tl_close_code_of(13) == TL_CLOSE_INTERNAL);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_vectors),
        CHECK_TEST(test_several_in_one_message),
        CHECK_TEST(test_utf8),
        CHECK_TEST(test_names_and_hosts),
        CHECK_TEST(test_base64url),
        CHECK_TEST(test_unknown_codes_read_as_internal),
    };
    return CHECK_ALL(tests);
}
