#include "towline/bytes.h"
#include "towline/json.h"

static void put_separator(tl_json_writer *w)
{
    if (w->comma) {
        tl_put_u8(w->out, ',');
    }
    w->comma = true;
}

void tl_json_open(tl_json_writer *w, char bracket)
{
    put_separator(w);
    tl_put_u8(w->out, (uint8_t)bracket);
    w->comma = false;
    w->depth++;
}

void tl_json_close(tl_json_writer *w, char bracket)
{
    tl_put_u8(w->out, (uint8_t)bracket);
    w->comma = true;
    w->depth--;
}

void tl_json_put_name(tl_json_writer *w, const char *name)
{
    tl_json_put_text(w, tl_text(name));
    tl_put_u8(w->out, ':');
    w->comma = false;
}

static void put_escaped(tl_out *out, uint8_t c)
{
    static const char digits[] = "0123456789abcdef", names[] = "btn?fr"; /* 8, 9, 10, 12, 13 */
    tl_put_u8(out, '\\');
    if (c >= 0x20) {
        tl_put_u8(out, c);
    } else if (c >= 8 && c <= 13 && c != 11) {
        tl_put_u8(out, (uint8_t)names[c - 8]);
    } else {
        tl_put_text(out, "u00");
        tl_put_u8(out, (uint8_t)digits[c >> 4]);
        tl_put_u8(out, (uint8_t)digits[c & 15]);
    }
}

/* Bytes of the character at the begin of the text; 0 when it is none that JSON may hold. */
static size_t character_length(tl_span text)
{
    const uint8_t lead = text.at[0];
    const size_t length = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    return lead != 0 && length <= text.n && tl_is_utf8((tl_span){text.at, length}) ? length : 0;
}

void tl_json_put_text(tl_json_writer *w, tl_span text)
{
    put_separator(w);
    tl_put_u8(w->out, '"');
    for (size_t i = 0; i < text.n;) {
        const uint8_t c = text.at[i];
        const size_t length = character_length((tl_span){text.at + i, text.n - i});
        if (length == 0) {
            tl_put_text(w->out, "\xEF\xBF\xBD");
        } else if (c < 0x20 || c == '"' || c == '\\') {
            put_escaped(w->out, c);
        } else {
            tl_put(w->out, text.at + i, length);
        }
        i += length == 0 ? 1 : length;
    }
    tl_put_u8(w->out, '"');
}

#define DECIMALS_MAX 9

void tl_json_put_fixed(tl_json_writer *w, int64_t value, unsigned decimals)
{
    uint8_t text[24]; /* 20 digits, sign, point */
    size_t at = sizeof text;
    uint64_t left = value < 0 ? 0 - (uint64_t)value : (uint64_t)value;
    unsigned written = 0;
    if (decimals > DECIMALS_MAX) {
        decimals = DECIMALS_MAX;
    }
    do {
        if (decimals > 0 && written == decimals) {
            text[--at] = '.';
        }
        text[--at] = (uint8_t)('0' + left % 10);
        left /= 10;
        written++;
    } while (left > 0 || written <= decimals);
    if (value < 0) {
        text[--at] = '-';
    }
    tl_json_put_raw(w, (tl_span){text + at, sizeof text - at});
}

void tl_json_put_whole(tl_json_writer *w, int64_t value)
{
    tl_json_put_fixed(w, value, 0);
}

void tl_json_put_bool(tl_json_writer *w, bool value)
{
    tl_json_put_raw(w, tl_text(value ? "true" : "false"));
}

void tl_json_put_null(tl_json_writer *w)
{
    tl_json_put_raw(w, tl_text("null"));
}

void tl_json_put_raw(tl_json_writer *w, tl_span json)
{
    put_separator(w);
    tl_put_span(w->out, json);
}

bool tl_json_complete(const tl_json_writer *w)
{
    return !w->out->full && w->depth == 0;
}
