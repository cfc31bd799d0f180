#include "towline/http_answer.h"

#include <string.h>

#include "towline/bytes.h"

/* Status and meaning one behind the other, each ended by NUL: a table would be twice as large. */
static const char MEANINGS[] =
    "200OK\0" "202Accepted\0" "204No Content\0" "303See Other\0" "304Not Modified\0" "400Bad Request\0"
    "401Unauthorized\0" "403Forbidden\0" "404Not Found\0" "405Method Not Allowed\0" "408Request Timeout\0"
    "409Conflict\0" "413Content Too Large\0" "417Expectation Failed\0" "421Misdirected Request\0"
    "422Unprocessable Content\0" "429Too Many Requests\0" "431Request Header Fields Too Large\0"
    "500Internal Server Error\0" "501Not Implemented\0" "503Service Unavailable\0"
    "505HTTP Version Not Supported\0";

static const char *meaning(uint16_t status)
{
    for (const char *at = MEANINGS; *at != '\0'; at += strlen(at) + 1) {
        if ((at[0] - '0') * 100 + (at[1] - '0') * 10 + (at[2] - '0') == status) {
            return at + 3;
        }
    }
    return "Status"; /* the phrase means nothing to a client (RFC 9110 section 15.1) */
}

static void put_decimal(tl_out *out, uint64_t value)
{
    uint8_t text[20];
    size_t at = sizeof text;
    do {
        text[--at] = (uint8_t)('0' + value % 10);
        value /= 10;
    } while (value > 0);
    tl_put(out, text + at, sizeof text - at);
}

static void put_line(tl_out *out, const char *name, const char *value)
{
    tl_put_text(out, name);
    tl_put_text(out, value);
    tl_put_text(out, "\r\n");
}

static void put_status(tl_out *out, uint16_t status)
{
    put_decimal(out, status);
    tl_put_u8(out, ' ');
    tl_put_text(out, meaning(status));
}

static void put_length(tl_out *out, const tl_answer *answer)
{
    if (answer->length == TL_LENGTH_UNKNOWN) {
        tl_put_text(out, "Transfer-Encoding: chunked\r\n");
        return;
    }
    tl_put_text(out, "Content-Length: ");
    put_decimal(out, answer->length);
    tl_put_text(out, "\r\n");
}

static bool has_body(uint16_t status)
{
    return status >= 200 && status != 204 && status != 304;
}

void tl_answer_head(tl_out *out, const tl_answer *answer)
{
    tl_put_text(out, "HTTP/1.1 ");
    put_status(out, answer->status);
    tl_put_text(out, "\r\n");
    if (has_body(answer->status)) {
        put_length(out, answer);
        if (answer->content_type != NULL) {
            put_line(out, "Content-Type: ", answer->content_type);
        }
        if (answer->gzip) {
            tl_put_text(out, "Content-Encoding: gzip\r\n");
        }
    }
    if (answer->etag != NULL) {
        put_line(out, "ETag: ", answer->etag);
        tl_put_text(out, "Cache-Control: no-cache\r\nVary: Accept-Encoding\r\n");
    } else {
        tl_put_text(out, "Cache-Control: no-store\r\n");
    }
    if (answer->close) {
        tl_put_text(out, "Connection: close\r\n");
    }
    tl_put_text(out, "X-Content-Type-Options: nosniff\r\n");
    if (answer->policy != NULL) {
        put_line(out, "Content-Security-Policy: ", answer->policy);
    }
}

void tl_answer_header(tl_out *out, const char *name, tl_span value)
{
    out->full = out->full || name[0] == '\0';
    for (size_t i = 0; i < value.n; i++) {
        out->full = out->full || value.at[i] < ' ' || value.at[i] == 0x7F;
    }
    tl_put_text(out, name);
    tl_put_text(out, ": ");
    tl_put_span(out, value);
    tl_put_text(out, "\r\n");
}

void tl_answer_head_end(tl_out *out)
{
    tl_put_text(out, "\r\n");
}

void tl_answer_refusal(tl_out *out, uint16_t status, const char *why, bool head_only, bool close)
{
    uint8_t room[TL_WHY_MAX + 1];
    tl_out body = {room, 0, sizeof room, false};
    if (why != NULL) {
        tl_put_text(&body, why);
    } else {
        put_status(&body, status);
    }
    tl_put_u8(&body, '\n');
    const tl_answer answer = {.status = status, .close = close, .length = body.n, .content_type = "text/plain"};
    tl_answer_head(out, &answer);
    tl_answer_head_end(out);
    if (!head_only && has_body(status)) {
        tl_put(out, room, body.n);
    }
}

void tl_answer_plain(tl_out *out, uint16_t status, bool head_only, bool close)
{
    tl_answer_refusal(out, status, NULL, head_only, close);
}

void tl_answer_continue(tl_out *out)
{
    tl_put_text(out, "HTTP/1.1 100 Continue\r\n\r\n");
}

/* --- chunks --- */

#define SIZE_LINE 6u /* four digits and the line's end: leading zeros are allowed (RFC 9112 section 7.1) */

size_t tl_chunk_begin(tl_out *out, size_t *room)
{
    const size_t begin = out->n, free = out->cap - out->n;
    *room = 0;
    if (!out->full && free > TL_CHUNK_FRAME) {
        *room = free - TL_CHUNK_FRAME < TL_CHUNK_MAX ? free - TL_CHUNK_FRAME : TL_CHUNK_MAX;
    }
    tl_put_text(out, "0000\r\n");
    return begin;
}

void tl_chunk_end(tl_out *out, size_t begin)
{
    static const char digits[] = "0123456789abcdef";
    if (out->full) {
        return;
    }
    const size_t n = out->n - begin - SIZE_LINE;
    if (n == 0) {
        out->n = begin;
        return;
    }
    if (n > TL_CHUNK_MAX) {
        out->full = true;
        return;
    }
    for (unsigned i = 0; i < 4; i++) {
        out->at[begin + i] = (uint8_t)digits[n >> (12 - 4 * i) & 15];
    }
    tl_put_text(out, "\r\n");
}

void tl_chunk_last(tl_out *out)
{
    tl_put_text(out, "0\r\n\r\n");
}

/* --- entity tags --- */

bool tl_etag_matches(tl_span if_none_match, const char *etag)
{
    const tl_span wanted = tl_text(etag);
    while (if_none_match.n > 0) {
        tl_span one = tl_split(&if_none_match, ','); /* no tag of ours holds a comma */
        while (one.n > 0 && (one.at[0] == ' ' || one.at[0] == '\t')) {
            (void)tl_take(&one, 1);
        }
        while (one.n > 0 && (one.at[one.n - 1] == ' ' || one.at[one.n - 1] == '\t')) {
            one.n--;
        }
        if (one.n > 2 && one.at[0] == 'W' && one.at[1] == '/') {
            (void)tl_take(&one, 2);
        }
        if (tl_is(one, "*") || tl_same(one, wanted)) {
            return true;
        }
    }
    return false;
}
