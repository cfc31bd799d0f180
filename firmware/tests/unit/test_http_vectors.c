/* docs/protocol/vectors/http_requests.json: what the tunnel's server writes is read as it meant it, and heads that it
 * never writes are refused. */
#include <stdlib.h>

#include "check.h"
#include "towline/bytes.h"
#include "towline/http_parse.h"
#include "vectors.h"

/* The parser's word for a head that comes in steps of this many bytes. */
static uint16_t fed(tl_http_parser *p, tl_span head, size_t step, bool *whole)
{
    tl_http_init(p);
    *whole = false;
    while (head.n > 0) {
        const tl_span piece = tl_take(&head, step);
        uint8_t *exact = malloc(piece.n);
        memcpy(exact, piece.at, piece.n);
        size_t taken;
        const tl_http_result result = tl_http_feed(p, (tl_span){exact, piece.n}, &taken);
        free(exact);
        if (result == TL_HTTP_BAD) {
            return p->status;
        }
        if (result == TL_HTTP_HEAD) {
            *whole = true;
            return 0;
        }
    }
    return 0;
}

static const size_t STEPS[] = {1, 7, 100000};

static bool is_text(tl_span text, const char *expected)
{
    return expected == NULL ? text.at == NULL : tl_is(text, expected);
}

static void what_the_server_writes(void)
{
    static tl_http_parser p;
    for (size_t i = 0; i < vector_http_requests_count; i++) {
        const vector_http_request *v = &vector_http_requests[i];
        for (size_t k = 0; k < sizeof STEPS / sizeof *STEPS; k++) {
            bool whole;
            CHECK_NAMED(fed(&p, v->head, STEPS[k], &whole) == 0 && whole, v->name);
            const tl_http_request *r = &p.request;
            CHECK_NAMED(tl_is(r->method, v->method) && tl_is(r->path, v->path) && tl_is(r->query, v->query), v->name);
            for (size_t h = 0; h < TL_H_COUNT; h++) {
                CHECK_NAMED(is_text(r->header[h], v->header[h]), v->name);
            }
            CHECK_NAMED(r->content_length == v->content_length && r->chunked == v->chunked, v->name);
            CHECK_NAMED(r->expect_continue == v->expect_continue && r->upgrade == v->upgrade && !r->close, v->name);
        }
    }
    CHECK(vector_http_requests_count == 26);
}

static void what_it_does_not(void)
{
    static tl_http_parser p;
    size_t refused = 0;
    for (size_t i = 0; i < vector_http_heads_count; i++) {
        const vector_http_head *v = &vector_http_heads[i];
        for (size_t k = 0; k < sizeof STEPS / sizeof *STEPS; k++) {
            bool whole;
            CHECK_NAMED(fed(&p, v->head, STEPS[k], &whole) == v->status && whole == (v->status == 0), v->name);
        }
        refused += v->status != 0;
        if (v->head.n <= TL_HTTP_HEAD_MAX) { /* a web server that reads heads itself is held to the same */
            tl_http_request request;
            CHECK_NAMED((tl_http_read_head(v->head, &request) == 0) == (v->status == 0), v->name);
        }
    }
    CHECK(refused >= 92);
}

int main(void)
{
    static const check_test tests[] = {CHECK_TEST(what_the_server_writes), CHECK_TEST(what_it_does_not)};
    return CHECK_ALL(tests);
}
