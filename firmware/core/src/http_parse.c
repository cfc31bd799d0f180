#include "towline/http_parse.h"

#include <string.h>

#include "towline/bytes.h"

typedef enum {
    IN_HEAD,
    IN_BODY,       /* `left` bytes of it, or of a chunk */
    AT_END,        /* the body is over, and END is to be told */
    IN_CHUNK_SIZE,
    AT_SIZE_LF,    /* behind the CR of a chunk's size */
    AT_CHUNK_CR,
    AT_CHUNK_LF,
    AT_LAST_CR,    /* behind the chunk of no bytes */
    AT_LAST_LF,
    BROKEN
} state;

enum { BAD = 400, HEAD_TOO_LARGE = 431 };

void tl_http_init(tl_http_parser *p)
{
    memset(p, 0, sizeof *p);
}

bool tl_http_busy(const tl_http_parser *p)
{
    return p->state != IN_HEAD || p->head_n > 0;
}

static tl_http_result broken(tl_http_parser *p, uint16_t status)
{
    p->state = BROKEN;
    p->status = status;
    return TL_HTTP_BAD;
}

/* Whether this byte may follow the one before it in a head: CR and LF come in pairs, other controls never. */
static bool may_follow(const tl_http_parser *p, uint8_t c)
{
    const bool behind_cr = p->head_n > 0 && p->head[p->head_n - 1] == '\r';
    if (behind_cr || c == '\n') {
        return behind_cr && c == '\n';
    }
    return c >= ' ' ? c != 0x7F : c == '\r' || c == '\t';
}

static bool head_is_whole(const tl_http_parser *p)
{
    return p->head_n >= 4 && memcmp(p->head + p->head_n - 4, "\r\n\r\n", 4) == 0;
}

static tl_http_result head_came(tl_http_parser *p)
{
    const uint16_t status = tl_http_read_head((tl_span){p->head, p->head_n}, &p->request);
    if (status != 0) {
        return broken(p, status);
    }
    p->left = p->request.content_length;
    p->digits = 0;
    p->state = p->request.chunked ? IN_CHUNK_SIZE : p->left > 0 ? IN_BODY : AT_END;
    return TL_HTTP_HEAD;
}

static tl_http_result read_head(tl_http_parser *p, tl_span *in)
{
    while (in->n > 0) {
        const uint8_t c = *tl_take(in, 1).at;
        if (p->head_n == sizeof p->head) {
            return broken(p, HEAD_TOO_LARGE);
        }
        if (!may_follow(p, c)) {
            return broken(p, BAD);
        }
        p->head[p->head_n++] = c;
        if (c == '\n' && p->head_n == 2) {
            return broken(p, BAD); /* an empty line where a request should begin */
        }
        if (c == '\n' && head_is_whole(p)) {
            return head_came(p);
        }
    }
    return TL_HTTP_MORE;
}

static tl_http_result read_body(tl_http_parser *p, tl_span *in)
{
    p->body = tl_take(in, p->left < in->n ? (size_t)p->left : in->n);
    p->left -= p->body.n;
    if (p->left == 0) {
        p->state = p->request.chunked ? AT_CHUNK_CR : AT_END;
    }
    return TL_HTTP_BODY;
}

static int hex_digit(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool read_size(tl_http_parser *p, uint8_t c)
{
    const int digit = hex_digit(c);
    if (digit >= 0 && p->digits < TL_HTTP_CHUNK_DIGITS) {
        p->left = p->left << 4 | (unsigned)digit;
        p->digits++;
        return true;
    }
    p->state = AT_SIZE_LF;
    return c == '\r' && p->digits > 0;
}

/* One byte of what stands around chunks; false when it may not stand there. */
static bool read_between(tl_http_parser *p, uint8_t c)
{
    switch (p->state) {
    case IN_CHUNK_SIZE:
        return read_size(p, c);
    case AT_SIZE_LF:
        p->state = p->left > 0 ? IN_BODY : AT_LAST_CR;
        p->digits = 0;
        return c == '\n';
    case AT_CHUNK_CR:
        p->state = AT_CHUNK_LF;
        return c == '\r';
    case AT_CHUNK_LF:
        p->state = IN_CHUNK_SIZE;
        return c == '\n';
    case AT_LAST_CR:
        p->state = AT_LAST_LF;
        return c == '\r';
    default:
        p->state = AT_END;
        return c == '\n';
    }
}

static tl_http_result read_on(tl_http_parser *p, tl_span *in)
{
    while (p->state != AT_END) {
        if (p->state == BROKEN) {
            return TL_HTTP_BAD;
        }
        if (in->n == 0) {
            return TL_HTTP_MORE;
        }
        if (p->state == IN_HEAD) {
            return read_head(p, in);
        }
        if (p->state == IN_BODY) {
            return read_body(p, in);
        }
        if (!read_between(p, *tl_take(in, 1).at)) {
            return broken(p, BAD);
        }
    }
    p->state = IN_HEAD;
    p->head_n = 0;
    return TL_HTTP_END;
}

tl_http_result tl_http_feed(tl_http_parser *p, tl_span in, size_t *taken)
{
    const size_t given = in.n;
    const tl_http_result result = read_on(p, &in);
    *taken = given - in.n;
    return result;
}
