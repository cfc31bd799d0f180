/* Requests in every cut, heads that may not pass, and answers. */
#include <stdlib.h>

#include "towline/bytes.h"
#include "check.h"
#include "towline/http_answer.h"
#include "towline/http_parse.h"

/* What the parser told, as text: H(method path) B(bytes) E, or !status. */
static void tell(tl_http_parser *p, const char *text, size_t n, size_t step, char *told)
{
    size_t at = 0;
    while (at < n) {
        const size_t piece = step < n - at ? step : n - at;
        uint8_t *exact = malloc(piece);
        memcpy(exact, text + at, piece);
        tl_span rest = {exact, piece};
        tl_http_result result;
        do {
            size_t taken;
            result = tl_http_feed(p, rest, &taken);
            (void)tl_take(&rest, taken);
            if (result == TL_HTTP_HEAD) {
                told += sprintf(told, "H(%.*s %.*s)", (int)p->request.method.n, (const char *)p->request.method.at,
                                (int)p->request.path.n, (const char *)p->request.path.at);
            } else if (result == TL_HTTP_BODY) {
                for (size_t i = 0; i < p->body.n; i++) {
                    *told++ = (char)(p->body.at[i] != 0 ? p->body.at[i] : '~');
                }
            } else if (result == TL_HTTP_END) {
                told += sprintf(told, "E");
            } else if (result == TL_HTTP_BAD) {
                told += sprintf(told, "!%u", p->status);
            }
        } while (result != TL_HTTP_MORE && result != TL_HTTP_BAD);
        free(exact);
        if (result == TL_HTTP_BAD) {
            return;
        }
        at += piece;
    }
}

static void expect(const char *text, size_t n, const char *expected)
{
    static tl_http_parser p;
    static char told[8192];
    static const size_t steps[] = {1, 2, 3, 7, 64, 100000};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        memset(told, 0, sizeof told);
        tl_http_init(&p);
        tell(&p, text, n, steps[i], told);
        CHECK_NAMED(strcmp(told, expected) == 0, text);
    }
}

#define EXPECT(text, expected) expect(text, sizeof(text) - 1, expected)
#define H "Host: d\r\n"
#define CHUNKED "POST /u HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n"

static void what_passes(void)
{
    EXPECT("GET / HTTP/1.1\r\n" H "\r\n", "H(GET /)E");
    EXPECT("GET /a/b?c=d?e HTTP/1.1\r\n" H "Accept: */*\r\nX-Empty:\r\n\r\n", "H(GET /a/b)E");
    EXPECT("OPTIONS * HTTP/1.1\r\n" H "\r\n", "H(OPTIONS *)E");
    EXPECT("GET / HTTP/1.1\r\n" H "\r\nHEAD /x HTTP/1.1\r\n" H "\r\n", "H(GET /)EH(HEAD /x)E");
    EXPECT("POST /u HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\n" H "\r\n", "H(POST /u)helloEH(GET /)E");
    EXPECT("POST /u HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\n", "H(POST /u)E");
    EXPECT(CHUNKED "5\r\nhello\r\n00A\r\n, whole wo\r\n3\r\nrld\r\n0\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n",
           "H(POST /u)hello, whole worldEH(GET /)E");
    EXPECT(CHUNKED "0\r\n\r\n", "H(POST /u)E");
    EXPECT("GET / HTTP/1.1\r\nhOsT:\td \t\r\nX: \xc3\xbc\r\n\r\n", "H(GET /)E");
    EXPECT("GET / HTTP/1.1\r\n" H, "");
    EXPECT(CHUNKED "5\r\nhel", "H(POST /u)hel");
}

static void what_does_not(void)
{
    static const char *const bad[] = {
        "\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET / HTTP/1.1\n" H "\r\n", "GET / HTTP/1.1\r\n" H "\n", "GET / HTTP/1.1\rX",
        "GET / HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1\r\n" H H "\r\n",
        "GET  / HTTP/1.1\r\n" H "\r\n", "GET / HTTP/1.1 \r\n" H "\r\n", "GET / HTTP/1.1 x\r\n" H "\r\n",
        " GET / HTTP/1.1\r\n" H "\r\n", "G@T / HTTP/1.1\r\n" H "\r\n", "ABCDEFGHIJKLMNOPQ / HTTP/1.1\r\n" H "\r\n",
        "GET\t/ HTTP/1.1\r\n" H "\r\n", "GET /\x7f HTTP/1.1\r\n", "GET /\x80 HTTP/1.1\r\n" H "\r\n",
        "GET /#a HTTP/1.1\r\n" H "\r\n", "GET http://d/ HTTP/1.1\r\n" H "\r\n", "GET * HTTP/1.1\r\n" H "\r\n",
        "GET  HTTP/1.1\r\n" H "\r\n", "GET /\r\n" H "\r\n", "GET / HTTP\r\n" H "\r\n", "GET / RTSP/1.0\r\n" H "\r\n",
        "GET / HTTP/1.1\r\n" H " folded\r\n\r\n", "GET / HTTP/1.1\r\n" H "X : y\r\n\r\n", "GET / HTTP/1.1\r\n" H ": y\r\n\r\n",
        "GET / HTTP/1.1\r\n" H "X\r\n\r\n", "GET / HTTP/1.1\r\n" H "X: a\x01\r\n\r\n", "GET / HTTP/1.1\r\n" H "X\xc3: a\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length: 5, 5\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: +5\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length: -5\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: 0x5\r\n\r\n", "POST / HTTP/1.1\r\n" H "Content-Length:\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: 1000000000000000\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: 18446744073709551617\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\n" H "Content-Length : 5\r\n\r\n", "GET / HTTP/1.1\r\n" H "Origin: a\r\nOrigin: a\r\n\r\n",
        "GET / HTTP/1.1\r\n" H "Cookie: a\r\nCookie: b\r\n\r\n", "GET / HTTP/1.1\r\n" H "X-Towline: 1\r\nX-Towline: 1\r\n\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        expect(bad[i], strlen(bad[i]), "!400");
    }
    EXPECT("GET / HTTP/1.1\r\n" H "X: \0\r\n\r\n", "!400");
    EXPECT("GET / HTTP/1.0\r\n" H "\r\n", "!505");
    EXPECT("GET / HTTP/2.0\r\n" H "\r\n", "!505");
    EXPECT("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip\r\n\r\n", "!501");
    EXPECT("POST / HTTP/1.1\r\n" H "Transfer-Encoding: gzip, chunked\r\n\r\n", "!501");
    EXPECT("POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked;q=1\r\n\r\n", "!501");
    EXPECT("POST / HTTP/1.1\r\n" H "Transfer-Encoding:\r\n\r\n", "!501");
    EXPECT("POST / HTTP/1.1\r\n" H "Expect: x\r\nContent-Length: 1\r\n\r\n", "!417");
}

static void chunks_that_do_not_pass(void)
{
    static const char *const bad[] = {
        "\r\n", "g\r\n", " 5\r\n", "5 \r\n", "5;a=b\r\n", "5\n", "5\rx", "00000005\r\n", "-1\r\n", "0x5\r\n", "\r\n0\r\n",
        "0\r\nX: y\r\n\r\n", "0\r\n\n", "0\r\nx", "0\r\n\rx",
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        char text[256];
        sprintf(text, "%s%s", CHUNKED, bad[i]);
        expect(text, strlen(text), "H(POST /u)!400");
    }
    EXPECT(CHUNKED "5\r\nhello!", "H(POST /u)hello!400");
    EXPECT(CHUNKED "5\r\nhello\n", "H(POST /u)hello!400");
    EXPECT(CHUNKED "5\r\nhello\r\r", "H(POST /u)hello!400");
}

static void how_long(void)
{
    static char text[4096];
    for (size_t n = TL_HTTP_HEAD_MAX - 1; n <= TL_HTTP_HEAD_MAX + 1; n++) {
        const size_t begin = (size_t)sprintf(text, "GET / HTTP/1.1\r\n" H "X: ");
        memset(text + begin, 'a', n - begin - 4);
        memcpy(text + n - 4, "\r\n\r\n", 4);
        expect(text, n, n <= TL_HTTP_HEAD_MAX ? "H(GET /)E" : "!431");
    }
    memset(text, 'a', sizeof text);
    expect(text, sizeof text, "!431");
}

static tl_http_request head(const char *text)
{
    tl_http_request request;
    CHECK_NAMED(tl_http_read_head(tl_text(text), &request) == 0, text);
    return request;
}

static void what_a_head_tells(void)
{
    tl_http_request r = head("POST /a?b=c HTTP/1.1\r\nHost: dev.local:80\r\nCookie: s=1\r\nOrigin: http://dev.local\r\n"
                             "X-Towline: 1\r\nContent-Type: application/json\r\nIf-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n"
                             "ACCEPT-encoding: br, GZIP\r\nConnection: keep-alive, Close\r\nContent-Length: 017\r\n"
                             "Expect: 100-Continue\r\n\r\n");
    static const char *const values[TL_H_COUNT] = {"dev.local:80", "http://dev.local", "s=1", "application/json", "\"a\"", "br, GZIP", "1"};
    for (size_t i = 0; i < TL_H_COUNT; i++) {
        CHECK_NAMED(tl_is(r.header[i], values[i]), values[i]);
    }
    CHECK(tl_is(r.method, "POST") && tl_is(r.target, "/a?b=c") && tl_is(r.path, "/a") && tl_is(r.query, "b=c"));
    CHECK(r.content_length == 17 && !r.chunked && r.close && r.expect_continue && !r.upgrade);
    CHECK(tl_http_names(r.header[TL_H_ACCEPT_ENCODING], "gzip") && !tl_http_names(r.header[TL_H_ACCEPT_ENCODING], "gz"));
    CHECK(!tl_http_names(tl_text("gzip;q=0, deflate"), "gzip") && tl_http_names(tl_text(" ,,\tgzip\t,"), "gzip"));
    r = head("GET / HTTP/1.1\r\n" H "Expect: 100-continue\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
    CHECK(r.upgrade && !r.expect_continue && !r.close && r.header[TL_H_COOKIE].at == NULL && r.query.n == 0);
    r = head("GET / HTTP/1.1\r\n" H "Upgrade: h2c\r\n\r\n");
    CHECK(!r.upgrade);
    tl_http_request cut;
    static const char whole[] = "GET / HTTP/1.1\r\n" H "X: y\r\n\r\n";
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        uint8_t *exact = malloc(n);
        if (n > 0) {
            memcpy(exact, whole, n);
        }
        CHECK(tl_http_read_head((tl_span){exact, n}, &cut) == 400);
        free(exact);
    }
    CHECK(tl_http_read_head(tl_text("GET / HTTP/1.1\r\n" H "\r\nmore"), &cut) == 400);
}

static void busy(void)
{
    static tl_http_parser p;
    size_t taken;
    tl_http_init(&p);
    CHECK(!tl_http_busy(&p) && tl_http_feed(&p, (tl_span){NULL, 0}, &taken) == TL_HTTP_MORE && taken == 0);
    CHECK(tl_http_feed(&p, tl_text("G"), &taken) == TL_HTTP_MORE && tl_http_busy(&p));
    CHECK(tl_http_feed(&p, tl_text("ET / HTTP/1.1\r\n" H "\r\n"), &taken) == TL_HTTP_HEAD && tl_http_busy(&p));
    CHECK(tl_http_feed(&p, (tl_span){NULL, 0}, &taken) == TL_HTTP_END && !tl_http_busy(&p));
}

static void answers(void)
{
    uint8_t room[1024];
    tl_out out = {room, 0, sizeof room, false};
    const tl_answer page = {.status = 200, .gzip = true, .policy = "default-src 'none'", .length = 4711, .content_type = "text/html", .etag = "\"e\""};
    tl_answer_head(&out, &page);
    tl_answer_header(&out, "X-A", tl_text("b c"));
    tl_answer_head_end(&out);
    static const char begins[] = "HTTP/1.1 200 OK\r\nContent-Length: 4711\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\n"
                                 "ETag: \"e\"\r\nCache-Control: no-cache\r\nVary: Accept-Encoding\r\nX-Content-Type-Options: nosniff\r\nContent-Security-Policy: ";
    static const char ends[] = "default-src 'none'\r\nX-A: b c\r\n\r\n";
    CHECK(!out.full && memcmp(room, begins, sizeof begins - 1) == 0);
    CHECK(memcmp(room + out.n - (sizeof ends - 1), ends, sizeof ends - 1) == 0);
    for (size_t cap = 0; cap < out.n; cap++) {
        tl_out small = {room, 0, cap, false};
        tl_answer_head(&small, &page);
        tl_answer_header(&small, "X-A", tl_text("b c"));
        tl_answer_head_end(&small);
        CHECK(small.full && small.n <= cap);
    }
    out = (tl_out){room, 0, sizeof room, false};
    tl_answer_header(&out, "Set-Cookie", tl_text("a\r\nX: y"));
    CHECK(out.full && out.n == 0);
    out = (tl_out){room, 0, sizeof room, false};
    tl_answer_plain(&out, 404, false, true);
    static const char body[] = "\r\n\r\n404 Not Found\n";
    CHECK(memcmp(room + out.n - (sizeof body - 1), body, sizeof body - 1) == 0);
    room[out.n] = 0;
    CHECK(strstr((char *)room, "Content-Length: 14\r\n") && strstr((char *)room, "Connection: close\r\n") && strstr((char *)room, "no-store"));
    static const uint16_t bare[] = {204, 304};
    for (size_t i = 0; i < 2; i++) {
        out = (tl_out){room, 0, sizeof room, false};
        tl_answer_plain(&out, bare[i], false, false);
        room[out.n] = 0;
        CHECK(!strstr((char *)room, "Content-Length") && memcmp(room + out.n - 4, "\r\n\r\n", 4) == 0);
    }
    out = (tl_out){room, 0, sizeof room, false};
    tl_answer_plain(&out, 431, true, false);
    CHECK(!out.full && memcmp(room + out.n - 4, "\r\n\r\n", 4) == 0);
}

static void chunks(void)
{
    uint8_t room[64];
    size_t space;
    tl_out out = {room, 0, sizeof room, false};
    size_t begin = tl_chunk_begin(&out, &space);
    CHECK(space == sizeof room - TL_CHUNK_FRAME);
    tl_put_text(&out, "data: 1\n\n");
    tl_chunk_end(&out, begin);
    begin = tl_chunk_begin(&out, &space);
    tl_chunk_end(&out, begin); /* nothing to say: no chunk, which would be the last */
    tl_chunk_last(&out);
    CHECK(tl_is((tl_span){room, out.n}, "0009\r\ndata: 1\n\n\r\n0\r\n\r\n"));
    out = (tl_out){room, 0, 9, false};
    begin = tl_chunk_begin(&out, &space);
    CHECK(space == 1);
    tl_put_u8(&out, 'x');
    tl_chunk_end(&out, begin);
    CHECK(!out.full && out.n == 9);
    out = (tl_out){room, 0, 8, false};
    (void)tl_chunk_begin(&out, &space);
    CHECK(space == 0);
    static uint8_t large[0x3000 + 8];
    out = (tl_out){large, 0, sizeof large, false};
    begin = tl_chunk_begin(&out, &space);
    memset(large + out.n, 'a', 0x2abc);
    out.n += 0x2abc;
    tl_chunk_end(&out, begin);
    CHECK(memcmp(large, "2abc\r\n", 6) == 0);
}

static void etags(void)
{
    CHECK(tl_etag_matches(tl_text("\"a\""), "\"a\"") && tl_etag_matches(tl_text("*"), "\"a\""));
    CHECK(tl_etag_matches(tl_text("\"x\" , W/\"a\"\t"), "\"a\"") && !tl_etag_matches(tl_text("\"ab\",a,W/"), "\"a\""));
    CHECK(!tl_etag_matches((tl_span){NULL, 0}, "\"a\""));
}

/* Damaged requests: however they are cut, the same is told. */
static void damage(void)
{
    static const char *const sound[] = {
        "GET /a?b HTTP/1.1\r\n" H "Cookie: a=b\r\nConnection: close\r\n\r\n",
        "POST /u HTTP/1.1\r\n" H "Content-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n" H "\r\n",
        CHUNKED "3\r\nabc\r\n1\r\nd\r\n0\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n",
    };
    static const char favourites[] = "\r\n \t:,;0159aAfF/?#%\x00\x7f\x80-";
    static tl_http_parser p;
    static char text[512], whole[2048], cut[2048];
    uint32_t random = 1;
    for (unsigned round = 0; round < 6000; round++) {
        const char *from = sound[round % 3];
        const size_t n = strlen(from);
        memcpy(text, from, n);
        for (unsigned changes = 0; changes <= round % 2; changes++) {
            random = random * 1664525u + 1013904223u;
            text[(random >> 8) % n] = favourites[(random >> 24) % (sizeof favourites - 1)];
        }
        memset(whole, 0, sizeof whole);
        tl_http_init(&p);
        tell(&p, text, n, n, whole);
        memset(cut, 0, sizeof cut);
        tl_http_init(&p);
        tell(&p, text, n, 1 + round % 5, cut);
        CHECK(strcmp(whole, cut) == 0);
    }
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(damage),
        CHECK_TEST(what_passes),
        CHECK_TEST(what_does_not),
        CHECK_TEST(chunks_that_do_not_pass),
        CHECK_TEST(how_long),
        CHECK_TEST(what_a_head_tells),
        CHECK_TEST(busy),
        CHECK_TEST(answers),
        CHECK_TEST(chunks),
        CHECK_TEST(etags),
    };
    return CHECK_ALL(tests);
}
