/* The cases of tests/device_protocol/test_strict_json.py, and the readers and the writer. */
#include <stdlib.h>

#include "towline/bytes.h"
#include "check.h"
#include "towline/json.h"

/* On the heap and of the exact size, so that the sanitizer sees a byte too many. */
static tl_json_fault fault_of(const char *text, size_t n)
{
    uint8_t *exact = malloc(n);
    tl_json value;
    if (n > 0) {
        memcpy(exact, text, n);
    }
    const tl_json_fault fault = tl_json_check((tl_span){exact, n}, &value);
    free(exact);
    return fault;
}

#define FAULT(text) fault_of(text, sizeof(text) - 1)

static char *many(const char *once, size_t times, const char *end)
{
    const size_t n = strlen(once);
    char *text = malloc(n * times + strlen(end) + 1);
    for (size_t i = 0; i < times; i++) {
        memcpy(text + i * n, once, n);
    }
    strcpy(text + n * times, end);
    return text;
}

static tl_json_fault fault_of_many(const char *once, size_t times, const char *end)
{
    char *text = many(once, times, end);
    const tl_json_fault fault = fault_of(text, strlen(text));
    free(text);
    return fault;
}

static void what_comes_through(void)
{
    static const char *const fine[] = {
        "null", "true", "false", "0", "-0", "1", "-1.5e+3", "1.7976931348623157e308", "-0.0", "1e-999", "0e999",
        "0.000e99999999999999999999", "1e308", "0.0000001e315", "17976931348623157000000000e283", "\"\"",
        "\"\\\\u0000\"", "\"\\ud83c\\udf31\"", "\"\\u007f\\u2028\"", "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\xf0\x9f\x8c\xb1\"", "[]", "{}", " [ ] ", "\n{ \"a\" : [ 1 , { } ] }\t", "[[],[]]", "[{\"a\":1},{\"a\":1}]",
        "{\"a\":{\"a\":1}}", "{\"a\":1,\"b\":{\"a\":[]},\"c\":\"a\"}", "\"[[[[[[[[[[[[[[[[[[[[[[[[\"",
    };
    for (size_t i = 0; i < sizeof fine / sizeof *fine; i++) {
        CHECK_NAMED(fault_of(fine[i], strlen(fine[i])) == TL_JSON_FINE, fine[i]);
    }
    CHECK(fault_of_many("9", 308, "") == TL_JSON_FINE);
    CHECK(fault_of_many("9", 250, "e50") == TL_JSON_FINE);
    CHECK(fault_of_many("[", 16, "]]]]]]]]]]]]]]]]") == TL_JSON_FINE);
}

static void what_does_not(void)
{
    static const char *const bad[] = {
        "NaN", "Infinity", "-Infinity", "1e400", "-1e400", "1E+0400", "1.0e00400", "1.7976931348623159e308",
        "17976931348623159e292", "\"\t\"", "", " ", "01", "-", "-01", "+1", ".5", "1.", "1.e1", "1e", "1e+", "0x1",
        "1_000", "'a'", "[1,]", "[,1]", "[1 2]", "{a:1}", "// x\n1", "1 1", "nul", "tru", "\xef\xbb\xbf" "1",
        "\"\\x41\"", "\"\\u12\"", "\"\\u12g4\"", "\"abc", "\"abc\\", "\"\\", "[", "]", "{", "}", "{\"a\"}", "{1:2}",
        "True", "\"a\" \"b\"", "{\"a\":1,}", "{\"a\":1 \"b\":2}", "{\"a\":}", "{\"a\" 1}", "{\"a\":1", "[1}",
        "{\"a\":1]", "{\"a\":1}}", "[]]", "{\"a\":1,1}", "{\"a\":1,\"a\":2",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        CHECK_NAMED(fault_of(bad[i], strlen(bad[i])) == TL_JSON_NO_JSON, bad[i]);
    }
    CHECK(FAULT("\"\0\"") == TL_JSON_NO_JSON);
    CHECK(FAULT("{\"a\":1}\0") == TL_JSON_NO_JSON);
    CHECK(fault_of_many("9", 309, "") == TL_JSON_NO_JSON);
    CHECK(fault_of_many("9", 250, "e99") == TL_JSON_NO_JSON);
    CHECK(fault_of_many("9", 20000, "") == TL_JSON_NO_JSON);
    CHECK(FAULT("\xff") == TL_JSON_NO_UTF8);
    CHECK(FAULT("\"\xc0\xaf\"") == TL_JSON_NO_UTF8);
    CHECK(FAULT("\"\xed\xa0\x80\"") == TL_JSON_NO_UTF8);
    CHECK(FAULT("\"\xf4\x90\x80\x80\"") == TL_JSON_NO_UTF8);
    CHECK(FAULT("\"\xe2\x82\"") == TL_JSON_NO_UTF8);
}

static void twice(void)
{
    CHECK(FAULT("{\"a\":1,\"a\":2}") == TL_JSON_TWICE);
    CHECK(FAULT("{\"a\":1,\"b\":[{\"a\":[]}],\"\\u0061\":2}") == TL_JSON_TWICE);
    CHECK(FAULT("{\"\xc3\xa9\":1,\"\\u00e9\":2}") == TL_JSON_TWICE);
    CHECK(FAULT("{\"\\ud83c\\udf31\":1,\"\xf0\x9f\x8c\xb1\":2}") == TL_JSON_TWICE);
    CHECK(FAULT("{\"\":1,\"\":2}") == TL_JSON_TWICE);
    CHECK(FAULT("[{\"x\":{\"a\":\"}\\\"\",\"a\":2}}]") == TL_JSON_TWICE);
    CHECK(FAULT("{\"a\":1,\"ab\":2,\"b\":3}") == TL_JSON_FINE);
}

static void how_deep_and_how_many(void)
{
    CHECK(fault_of_many("[", 17, "]]]]]]]]]]]]]]]]]") == TL_JSON_TOO_DEEP);
    CHECK(fault_of_many("[", 900, "") == TL_JSON_TOO_DEEP);
    CHECK(fault_of_many("{\"a\":", 17, "") == TL_JSON_TOO_DEEP);
    for (int members = TL_JSON_MEMBERS_MAX; members <= TL_JSON_MEMBERS_MAX + 1; members++) {
        char text[2048];
        int n = 0;
        for (int i = 0; i < members; i++) {
            n += sprintf(text + n, "%c\"m%d\":%d", i == 0 ? '{' : ',', i, i);
        }
        text[n++] = '}';
        CHECK(fault_of(text, (size_t)n) == (members > TL_JSON_MEMBERS_MAX ? TL_JSON_TOO_MANY : TL_JSON_FINE));
    }
}

static void odd_text(void)
{
    CHECK(FAULT("\"\\u0000\"") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("\"\\ud800\"") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("\"\\udfff\\ud800\"") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("\"\\ud800\\u0041\"") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("{\"\\u0000\":1}") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("{\"\\ud800\":1,\"\\udc00\":2}") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("[{\"a\":[\"\",\"\\udc00\"]}]") == TL_JSON_ODD_TEXT);
    CHECK(FAULT("[\"\\ud800\",1,]") == TL_JSON_NO_JSON);
}

static tl_json checked(const char *text)
{
    tl_json value = {TL_JSON_NULL, {0}};
    CHECK_NAMED(tl_json_check(tl_text(text), &value) == TL_JSON_FINE, text);
    return value;
}

static void reading(void)
{
    const tl_json body = checked(" {\"no\" : [1, \"]\\\"\" , {\"deep\":[ ]} , true] ,\"n\\u0061me\":\"\\u00e9\\n\xe2\x82\xac\",\"z\":-12}");
    tl_json found, item;
    CHECK(body.kind == TL_JSON_OBJECT);
    CHECK(tl_json_member(&body, "no", &found) && found.kind == TL_JSON_LIST);
    static const tl_json_kind kinds[] = {TL_JSON_NUMBER, TL_JSON_STRING, TL_JSON_OBJECT, TL_JSON_TRUE};
    size_t count = 0;
    for (tl_span rest = found.text; tl_json_next_item(&rest, &item); count++) {
        CHECK(count < 4 && item.kind == kinds[count]);
    }
    CHECK(count == 4);
    CHECK(tl_json_member(&body, "name", &found) && tl_json_length(&found) == 3);
    CHECK(tl_json_says(&found, tl_text("\xc3\xa9\n\xe2\x82\xac")));
    CHECK(!tl_json_says(&found, tl_text("\xc3\xa9\n")) && !tl_json_says(&found, tl_text("\xc3\xa9\n\xe2\x82\xac!")));
    uint8_t room[8];
    tl_out out = {room, 0, 6, false};
    CHECK(tl_json_unescape(&found, &out) && out.n == 6 && memcmp(room, "\xc3\xa9\n\xe2\x82\xac", 6) == 0);
    out = (tl_out){room, 0, 5, false};
    CHECK(!tl_json_unescape(&found, &out) && out.n == 0);
    CHECK(!tl_json_member(&body, "deep", &found) && !tl_json_member(&body, "nam", &found));
    CHECK(tl_json_member(&body, "z", &found) && !tl_json_member(&found, "z", &item));
    const tl_json empty = checked("{}");
    CHECK(!tl_json_member(&empty, "", &found));
}

static bool whole(const char *text, int64_t least, int64_t most, int64_t expected)
{
    const tl_json value = checked(text);
    int64_t found = 0;
    return tl_json_whole(&value, least, most, &found) && found == expected;
}

static void whole_numbers(void)
{
    CHECK(whole("0", 0, 0, 0) && whole("-0", 0, 9, 0) && whole("42", 0, 42, 42));
    CHECK(!whole("43", 0, 42, 43) && !whole("-1", 0, 42, -1));
    CHECK(whole("9223372036854775807", 0, INT64_MAX, INT64_MAX));
    CHECK(whole("-9223372036854775808", INT64_MIN, 0, INT64_MIN));
    int64_t value;
    static const char *const none[] = {"9223372036854775808", "-9223372036854775809", "99999999999999999999", "1.0",
                                       "1e1", "true", "\"1\"", "[1]", "null"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        const tl_json number = checked(none[i]);
        CHECK_NAMED(!tl_json_whole(&number, INT64_MIN, INT64_MAX, &value), none[i]);
    }
}

static void write_all(tl_json_writer *w)
{
    tl_json_open(w, '{');
    tl_json_put_name(w, "a\"");
    tl_json_open(w, '[');
    tl_json_put_fixed(w, 2150, 2);
    tl_json_put_fixed(w, -5, 3);
    tl_json_put_fixed(w, 0, 1);
    tl_json_put_whole(w, INT64_MIN);
    tl_json_put_bool(w, true);
    tl_json_put_null(w);
    tl_json_open(w, '{');
    tl_json_close(w, '}');
    tl_json_close(w, ']');
    tl_json_put_name(w, "t");
    tl_json_put_text(w, (tl_span){(const uint8_t *)"\\\n\x01\x0b\x1f\0\xff\xe2\x82 \xc3\xa9", 12});
    tl_json_put_name(w, "raw");
    tl_json_put_raw(w, tl_text("[1]"));
    tl_json_close(w, '}');
}

static void writing(void)
{
    static const char expected[] =
        "{\"a\\\"\":[21.50,-0.005,0.0,-9223372036854775808,true,null,{}],"
        "\"t\":\"\\\\\\n\\u0001\\u000b\\u001f\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd \xc3\xa9\",\"raw\":[1]}";
    uint8_t room[256];
    for (size_t cap = 0; cap < sizeof room; cap++) {
        tl_out out = {room, 0, cap, false};
        tl_json_writer w = tl_json_to(&out);
        write_all(&w);
        CHECK(tl_json_complete(&w) == (cap >= sizeof expected - 1));
        CHECK(out.n <= cap);
        if (!out.full) {
            CHECK(tl_is((tl_span){room, out.n}, expected));
            CHECK(fault_of((const char *)room, out.n) == TL_JSON_FINE);
        }
    }
}

/* Every cut and every changed byte of a rich text: no verdict matters, only that nothing beyond it is read. */
static void damage(void)
{
    static const char rich[] = "{\"a\":[1.5e3,\"\\ud83c\\udf31\\n\",{\"b\":null}],\"c\":true,\"\xe2\x82\xac\":-0}";
    char text[sizeof rich];
    for (size_t cut = 0; cut < sizeof rich - 1; cut++) {
        CHECK(fault_of(rich, cut) != TL_JSON_FINE);
    }
    for (size_t i = 0; i < sizeof rich - 1; i++) {
        for (int byte = 0; byte < 256; byte++) {
            memcpy(text, rich, sizeof rich);
            text[i] = (char)byte;
            (void)fault_of(text, sizeof rich - 1);
        }
    }
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(what_comes_through),
        CHECK_TEST(what_does_not),
        CHECK_TEST(twice),
        CHECK_TEST(how_deep_and_how_many),
        CHECK_TEST(odd_text),
        CHECK_TEST(reading),
        CHECK_TEST(whole_numbers),
        CHECK_TEST(writing),
        CHECK_TEST(damage),
    };
    return CHECK_ALL(tests);
}
