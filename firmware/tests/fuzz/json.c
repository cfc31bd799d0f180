/* Any bytes as JSON: what is found fine can be walked to its end, said and written again. */
#include "exact.h"

#include "towline/bytes.h"
#include "towline/json.h"

enum { TEXT_MAX = 1 << 17 };

static void say(const tl_json *string, tl_json_writer *writer)
{
    static uint8_t text[TEXT_MAX];
    tl_out out = {text, 0, sizeof text, false};
    must(tl_json_unescape(string, &out));
    const tl_span said = {out.at, out.n};
    must(tl_is_utf8(said) && tl_json_says(string, said) && tl_json_alike(string, string));
    must(tl_json_length(string) <= said.n);
    tl_json_put_text(writer, said);
}

static void walk(const tl_json *value, tl_json_writer *writer, unsigned depth)
{
    tl_span rest = value->text;
    tl_json one, name;
    int64_t whole;
    must(depth <= TL_JSON_DEPTH_MAX);
    switch (value->kind) {
    case TL_JSON_LIST:
        tl_json_open(writer, '[');
        while (tl_json_next_item(&rest, &one)) {
            walk(&one, writer, depth + 1);
        }
        tl_json_close(writer, ']');
        break;
    case TL_JSON_OBJECT:
        tl_json_open(writer, '[');
        while (tl_json_next_member(&rest, &name, &one)) {
            say(&name, writer);
            walk(&one, writer, depth + 1);
        }
        tl_json_close(writer, ']');
        break;
    case TL_JSON_STRING:
        say(value, writer);
        break;
    case TL_JSON_NUMBER:
        if (tl_json_whole(value, INT64_MIN, INT64_MAX, &whole)) {
            tl_json_put_whole(writer, whole);
        } else {
            tl_json_put_raw(writer, value->text);
        }
        break;
    default:
        tl_json_put_bool(writer, value->kind == TL_JSON_TRUE);
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t text[TEXT_MAX];
    uint8_t *copy = exact(data, size);
    tl_json value, again;
    if (tl_json_check((tl_span){copy, size}, &value) == TL_JSON_FINE) {
        tl_out out = {text, 0, sizeof text, false};
        tl_json_writer writer = tl_json_to(&out);
        walk(&value, &writer, 0);
        must(tl_json_complete(&writer));
        must(tl_json_check((tl_span){out.at, out.n}, &again) == TL_JSON_FINE);
    }
    free(copy);
    return 0;
}
