#include "towline/bytes.h"
#include "towline/http_parse.h"

#define METHOD_MAX 16u
#define LENGTH_DIGITS 15u /* a body of more than 10^15 bytes is none */

enum { BAD = 400, NO_EXPECTATION = 417, NO_CODING = 501, NO_VERSION = 505 };

/* tchar of RFC 9110 section 5.6.2 */
static bool is_token_character(uint8_t c)
{
    static const char others[] = "!#$%&'*+-.^_`|~";
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z')) {
        return true;
    }
    for (size_t i = 0; i < sizeof others - 1; i++) {
        if (c == (uint8_t)others[i]) {
            return true;
        }
    }
    return false;
}

static bool is_token(tl_span text)
{
    for (size_t i = 0; i < text.n; i++) {
        if (!is_token_character(text.at[i])) {
            return false;
        }
    }
    return text.n > 0;
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

static tl_span trimmed(tl_span text)
{
    while (text.n > 0 && is_blank(text.at[0])) {
        (void)tl_take(&text, 1);
    }
    while (text.n > 0 && is_blank(text.at[text.n - 1])) {
        text.n--;
    }
    return text;
}

/* Header names and their tokens have no case, as host names have none. */
static bool says(tl_span text, const char *lower_case)
{
    return tl_same_host(text, tl_text(lower_case));
}

bool tl_http_names(tl_span list, const char *token)
{
    while (list.n > 0) {
        if (says(trimmed(tl_split(&list, ',')), token)) {
            return true;
        }
    }
    return false;
}

/* The line without its CRLF; false where there is none, or a bare CR or LF stands in it. */
static bool take_line(tl_span *rest, tl_span *line)
{
    for (size_t i = 0; i + 1 < rest->n; i++) {
        if (rest->at[i] == '\n') {
            return false;
        }
        if (rest->at[i] == '\r') {
            *line = tl_take(rest, i);
            const tl_span end = tl_take(rest, 2);
            return end.at[1] == '\n';
        }
    }
    return false;
}

/* --- the request line --- */

static bool is_target(tl_span target, tl_span method)
{
    for (size_t i = 0; i < target.n; i++) {
        if (target.at[i] <= ' ' || target.at[i] >= 0x7F || target.at[i] == '#') {
            return false;
        }
    }
    return target.n > 0 && (target.at[0] == '/' || (tl_is(target, "*") && tl_is(method, "OPTIONS")));
}

static uint16_t read_request_line(tl_span line, tl_http_request *request)
{
    request->method = tl_split(&line, ' ');
    request->target = tl_split(&line, ' ');
    if (!is_token(request->method) || request->method.n > METHOD_MAX || !is_target(request->target, request->method)) {
        return BAD;
    }
    if (!tl_is(line, "HTTP/1.1")) {
        return line.n == 8 && tl_is((tl_span){line.at, 5}, "HTTP/") ? NO_VERSION : BAD;
    }
    request->query = request->target;
    request->path = tl_split(&request->query, '?');
    return 0;
}

/* --- headers --- */

typedef struct {
    tl_http_request *request;
    bool has_length, has_upgrade;
    bool connection_upgrade; /* Connection names it */
} reading;

typedef uint16_t (*rule)(reading *, tl_span value);

/* One that has its say twice says nothing: whoever stands before us may have read the other. */
static uint16_t once(tl_span *place, tl_span value)
{
    if (place->at != NULL) {
        return BAD;
    }
    *place = value;
    return 0;
}

static uint16_t take_length(reading *r, tl_span value)
{
    if (r->has_length || value.n == 0 || value.n > LENGTH_DIGITS) {
        return BAD;
    }
    r->has_length = true;
    for (size_t i = 0; i < value.n; i++) {
        if (value.at[i] < '0' || value.at[i] > '9') {
            return BAD;
        }
        r->request->content_length = r->request->content_length * 10 + (uint64_t)(value.at[i] - '0');
    }
    return 0;
}

static uint16_t take_coding(reading *r, tl_span value)
{
    if (r->request->chunked) {
        return BAD;
    }
    r->request->chunked = says(value, "chunked");
    return r->request->chunked ? 0 : NO_CODING;
}

static uint16_t take_expect(reading *r, tl_span value)
{
    r->request->expect_continue = says(value, "100-continue");
    return r->request->expect_continue ? 0 : NO_EXPECTATION;
}

static uint16_t take_connection(reading *r, tl_span value)
{
    r->request->close = r->request->close || tl_http_names(value, "close");
    r->connection_upgrade = r->connection_upgrade || tl_http_names(value, "upgrade");
    return 0;
}

static uint16_t take_upgrade(reading *r, tl_span value)
{
    r->has_upgrade = value.n > 0;
    return 0;
}

static uint16_t take_kept(reading *r, tl_span name, tl_span value)
{
    static const char names[TL_H_COUNT][16] = {
        [TL_H_HOST] = "host",
        [TL_H_ORIGIN] = "origin",
        [TL_H_COOKIE] = "cookie",
        [TL_H_CONTENT_TYPE] = "content-type",
        [TL_H_IF_NONE_MATCH] = "if-none-match",
        [TL_H_ACCEPT_ENCODING] = "accept-encoding",
        [TL_H_X_TOWLINE] = "x-towline",
    };
    for (size_t i = 0; i < TL_H_COUNT; i++) {
        if (says(name, names[i])) {
            tl_span *place = &r->request->header[i];
            /* Lists that may come in several lines, and may be believed by half: the answer is only longer. */
            const bool list = i == TL_H_IF_NONE_MATCH || i == TL_H_ACCEPT_ENCODING;
            return list && place->at != NULL ? 0 : once(place, value);
        }
    }
    return 0; /* of no use here */
}

static uint16_t take_header(reading *r, tl_span name, tl_span value)
{
    static const struct {
        char name[20];
        rule take;
    } framing[] = {
        {"content-length", take_length}, {"transfer-encoding", take_coding}, {"expect", take_expect},
        {"connection", take_connection}, {"upgrade", take_upgrade},
    };
    for (size_t i = 0; i < sizeof framing / sizeof *framing; i++) {
        if (says(name, framing[i].name)) {
            return framing[i].take(r, value);
        }
    }
    return take_kept(r, name, value);
}

static bool is_value(tl_span value)
{
    for (size_t i = 0; i < value.n; i++) {
        if ((value.at[i] < ' ' && value.at[i] != '\t') || value.at[i] == 0x7F) {
            return false;
        }
    }
    return true;
}

static uint16_t read_line(reading *r, tl_span line)
{
    const size_t whole = line.n;
    const tl_span name = tl_split(&line, ':');
    if (name.n == whole || !is_token(name) || !is_value(line)) {
        return BAD; /* also a continued line, and white space before the colon */
    }
    return take_header(r, name, trimmed(line));
}

static uint16_t judge(reading *r)
{
    tl_http_request *request = r->request;
    if (request->header[TL_H_HOST].n == 0) {
        return BAD;
    }
    if (request->chunked && r->has_length) {
        return BAD; /* RFC 9112 section 6.3: a sign of smuggling */
    }
    if (!request->chunked && request->content_length == 0) {
        request->expect_continue = false; /* RFC 9110 section 10.1.1: nothing would come */
    }
    request->upgrade = r->has_upgrade && r->connection_upgrade;
    return 0;
}

uint16_t tl_http_read_head(tl_span head, tl_http_request *request)
{
    reading r = {.request = request};
    tl_span line;
    *request = (tl_http_request){.close = false};
    if (!take_line(&head, &line)) {
        return BAD;
    }
    uint16_t status = read_request_line(line, request);
    while (status == 0) {
        if (!take_line(&head, &line)) {
            return BAD;
        }
        if (line.n == 0) {
            return head.n == 0 ? judge(&r) : BAD;
        }
        status = read_line(&r, line);
    }
    return status;
}
