/* Any bytes as requests on one line: read whole or in pieces they say the same, and nothing beside them is read.
 * The first byte chooses the pieces. */
#include "exact.h"

#include "towline/http_answer.h"
#include "towline/http_parse.h"

enum { TOLD_MAX = 1 << 16 };

/* What one reading told, to be compared. */
typedef struct {
    uint8_t at[TOLD_MAX];
    size_t n;
} told;

static void tell(told *t, const void *bytes, size_t n)
{
    must(t->n + n <= sizeof t->at);
    if (n > 0) {
        memcpy(t->at + t->n, bytes, n);
    }
    t->n += n;
}

static void tell_request(told *t, const tl_http_request *request)
{
    const uint8_t flags = (uint8_t)(request->chunked | request->expect_continue << 1 | request->close << 2 |
                                    request->upgrade << 3);
    tell(t, "H", 1);
    tell(t, request->method.at, request->method.n);
    tell(t, request->path.at, request->path.n);
    tell(t, request->query.at, request->query.n);
    for (size_t i = 0; i < TL_H_COUNT; i++) {
        tell(t, request->header[i].at, request->header[i].n);
    }
    tell(t, &flags, 1);
    tell(t, &request->content_length, sizeof request->content_length);
    must(request->method.n > 0 && request->header[TL_H_HOST].n > 0);
    (void)tl_etag_matches(request->header[TL_H_IF_NONE_MATCH], "\"v1\"");
    (void)tl_http_names(request->header[TL_H_ACCEPT_ENCODING], "gzip");
}

/* Reads one piece; false when nothing more can be read. */
static bool feed(tl_http_parser *parser, told *t, const uint8_t *piece, size_t n)
{
    uint8_t *copy = exact(piece, n);
    tl_span in = {copy, n};
    tl_http_result result;
    do {
        size_t taken = SIZE_MAX;
        result = tl_http_feed(parser, in, &taken);
        must(taken <= in.n);
        if (result == TL_HTTP_HEAD) {
            tell_request(t, &parser->request);
        } else if (result == TL_HTTP_BODY) {
            must(parser->body.n > 0 && parser->body.at >= in.at && parser->body.at + parser->body.n <= in.at + in.n);
            tell(t, parser->body.at, parser->body.n);
        } else if (result == TL_HTTP_END) {
            tell(t, "E", 1);
        } else if (result == TL_HTTP_BAD) {
            must(parser->status >= 400 && parser->status < 600);
            tell(t, &parser->status, sizeof parser->status);
        }
        in = (tl_span){in.at + taken, in.n - taken};
    } while (result != TL_HTTP_MORE && result != TL_HTTP_BAD);
    must(result == TL_HTTP_BAD || in.n == 0);
    free(copy);
    return result != TL_HTTP_BAD;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static told whole, pieces;
    static tl_http_parser parser;
    if (size == 0) {
        return 0;
    }
    whole.n = pieces.n = 0;
    tl_http_init(&parser);
    (void)feed(&parser, &whole, data + 1, size - 1);
    tl_http_init(&parser);
    uint32_t draw = data[0];
    for (size_t at = 1; at < size;) {
        draw = draw * 1664525u + 1013904223u;
        size_t n = 1 + (draw >> 24) % (1 + (size_t)data[0]);
        n = n < size - at ? n : size - at;
        if (!feed(&parser, &pieces, data + at, n)) {
            break;
        }
        at += n;
    }
    must(whole.n == pieces.n && memcmp(whole.at, pieces.at, whole.n) == 0);
    return 0;
}
