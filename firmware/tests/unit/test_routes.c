/* Who reaches which route, from where, with which body; and how an exchange goes. */
#include "towline/bytes.h"
#include "check.h"
#include "towline/routes.h"

typedef struct {
    unsigned begun, pieces, lasts, fills, overs;
    char body[2048];
    size_t body_n;
    uint16_t refuse, refuse_body;
} seen;

static uint16_t begin(tl_exchange *x)
{
    ((seen *)x->owner)->begun++;
    return ((seen *)x->owner)->refuse;
}

static void over(tl_exchange *x)
{
    ((seen *)x->owner)->overs++;
}

static uint16_t on_body(tl_exchange *x, tl_span piece, bool last)
{
    seen *s = x->owner;
    s->pieces++;
    s->lasts += last;
    if (piece.n > 0) {
        memcpy(s->body + s->body_n, piece.at, piece.n);
        s->body_n += piece.n;
    }
    return s->refuse_body;
}

static tl_fill fill(tl_exchange *x, tl_out *out)
{
    seen *s = x->owner;
    if (s->fills++ > 0) {
        return TL_FILL_END;
    }
    const tl_answer answer = {.status = 200, .length = 2, .close = x->close};
    tl_answer_head(out, &answer);
    tl_answer_head_end(out);
    if (!x->head_only) {
        tl_put_text(out, "ok");
    }
    return TL_FILL_MORE;
}

static const tl_route TABLE[] = {
    {"GET", "/", TL_ANYONE, TL_BODY_NONE, begin, NULL, fill, over},
    {"GET", "/status", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill, over},
    {"POST", "/settings", TL_LOGGED_IN, TL_BODY_SMALL, begin, on_body, fill, over},
    {"DELETE", "/settings", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill, over},
    {"POST", "/upload", TL_LOGGED_IN, TL_BODY_STREAMED, begin, on_body, fill, over},
};
static const tl_routes ROUTES = {TABLE, sizeof TABLE / sizeof *TABLE};

typedef struct {
    tl_http_request request;
    tl_span hosts[2];
    tl_grant grant;
    tl_exchange_origin origin;
    tl_exchange x;
    seen s;
    uint8_t small[2000];
} world;

static uint16_t go(world *w, const char *head, bool by_tunnel, bool logged_in)
{
    memset(w, 0, sizeof *w);
    CHECK_NAMED(tl_http_read_head(tl_text(head), &w->request) == 0, head);
    w->hosts[0] = tl_text("192.0.2.7");
    w->hosts[1] = tl_text("d_1.local:8080");
    w->origin = (tl_exchange_origin){.request = &w->request, .by_tunnel = by_tunnel, .logged_in = logged_in,
                                     .grant = by_tunnel && logged_in ? &w->grant : NULL, .hosts = w->hosts, .host_count = 2};
    tl_exchange_begin(&w->x, ROUTES, &w->origin, &w->s, (tl_out){w->small, 0, sizeof w->small, false});
    CHECK_NAMED((w->x.status == 0) == (w->s.begun == 1), head);
    return w->x.status;
}

#define TUNNEL " HTTP/1.1\r\nHost: device.test\r\n"
#define LAN " HTTP/1.1\r\nHost: D_1.LOCAL:8080\r\n"
#define OURS "X-Towline: 1\r\n"

static void by_the_tunnel(void)
{
    static const struct {
        const char *head;
        uint16_t status;
    } cases[] = {
        {"GET /" TUNNEL "\r\n", 0}, {"HEAD /status" TUNNEL "\r\n", 0}, {"GET /status?x" TUNNEL "\r\n", 0},
        {"GET /none" TUNNEL "\r\n", 404}, {"GET /Status" TUNNEL "\r\n", 404}, {"GET /%73tatus" TUNNEL "\r\n", 404},
        {"GET //" TUNNEL "\r\n", 404}, {"OPTIONS *" TUNNEL "\r\n", 404}, {"POST /" TUNNEL OURS "\r\n", 405},
        {"HEAD /settings" TUNNEL "\r\n", 405}, {"get /" TUNNEL "\r\n", 405},
        {"POST /settings" TUNNEL "\r\n", 403}, {"POST /settings" TUNNEL "X-Towline: 2\r\n\r\n", 403},
        {"POST /settings" TUNNEL OURS "\r\n", 0}, {"DELETE /settings" TUNNEL OURS "\r\n", 0},
        {"DELETE /settings" TUNNEL OURS "Content-Length: 1\r\n\r\n", 413}, {"GET /" TUNNEL "Transfer-Encoding: chunked\r\n\r\n", 413},
        {"POST /settings" TUNNEL OURS "Content-Length: 1024\r\n\r\n", 0}, {"POST /settings" TUNNEL OURS "Content-Length: 1025\r\n\r\n", 413},
        {"POST /upload" TUNNEL OURS "Content-Length: 3000000\r\n\r\n", 0},
        {"GET /" TUNNEL "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", 404},
    };
    world w;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_NAMED(go(&w, cases[i].head, true, true) == cases[i].status, cases[i].head);
    }
    CHECK(go(&w, "GET /status" TUNNEL "\r\n", true, false) == 403); /* no grant */
}

static void on_the_lan(void)
{
    static const struct {
        const char *head;
        uint16_t status;
    } cases[] = {
        {"GET /status" LAN "\r\n", 0}, {"GET /status HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n", 0},
        {"GET /status HTTP/1.1\r\nHost: d_1.local\r\n\r\n", 421}, {"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n", 421},
        {"POST /settings" LAN "\r\n", 403}, {"POST /settings" LAN OURS "\r\n", 0},
        {"POST /settings" LAN OURS "Origin: http://d_1.local:8080\r\n\r\n", 0},
        {"POST /settings" LAN OURS "Origin: https://d_1.local:8080\r\n\r\n", 403},
        {"POST /settings" LAN OURS "Origin: http://d_1.local\r\n\r\n", 403}, {"POST /settings" LAN OURS "Origin: null\r\n\r\n", 403},
        {"POST /settings" LAN OURS "Origin:\r\n\r\n", 403}, {"POST /settings" LAN OURS "Origin: http://192.0.2.7\r\n\r\n", 403},
        {"GET /" LAN "Origin: http://evil.test\r\n\r\n", 0},
    };
    world w;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        CHECK_NAMED(go(&w, cases[i].head, false, true) == cases[i].status, cases[i].head);
    }
    CHECK(go(&w, "GET /status" LAN "\r\n", false, false) == 401 && go(&w, "GET /" LAN "\r\n", false, false) == 0);
    w.origin.grant = &w.grant; /* a grant says nothing on the LAN */
    CHECK(tl_route_admit(&TABLE[1], &w.origin) == 401);
}

static tl_fill fill_into(world *w, char *text, size_t room)
{
    tl_out out = {(uint8_t *)text, 0, room, false};
    const tl_fill filled = tl_exchange_fill(&w->x, &out);
    text[out.n] = 0;
    return filled;
}

static void how_an_exchange_goes(void)
{
    world w;
    char text[1024];
    CHECK(go(&w, "POST /settings" TUNNEL OURS "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", true, true) == 0);
    CHECK(tl_exchange_may_fill(&w.x));
    CHECK(fill_into(&w, text, 1000) == TL_FILL_AGAIN && strcmp(text, "HTTP/1.1 100 Continue\r\n\r\n") == 0);
    CHECK(!tl_exchange_may_fill(&w.x) && fill_into(&w, text, 1000) == TL_FILL_AGAIN && text[0] == 0);
    tl_exchange_body(&w.x, tl_text("he"));
    tl_exchange_body(&w.x, tl_text("llo"));
    CHECK(w.s.pieces == 0);
    tl_exchange_body_over(&w.x);
    CHECK(w.s.pieces == 1 && w.s.lasts == 1 && w.s.body_n == 5 && memcmp(w.s.body, "hello", 5) == 0);
    CHECK(tl_exchange_may_fill(&w.x) && fill_into(&w, text, TL_FILL_ROOM_MIN - 1) == TL_FILL_MORE && text[0] == 0);
    CHECK(fill_into(&w, text, 1000) == TL_FILL_MORE && strstr(text, "\r\n\r\nok") != NULL);
    CHECK(fill_into(&w, text, 1000) == TL_FILL_END);

    CHECK(go(&w, "POST /settings" TUNNEL OURS "\r\n", true, true) == 0); /* an empty body is one */
    tl_exchange_body_over(&w.x);
    CHECK(w.s.lasts == 1 && w.s.body_n == 0);

    CHECK(go(&w, "POST /upload" TUNNEL OURS "Transfer-Encoding: chunked\r\n\r\n", true, true) == 0);
    tl_exchange_body(&w.x, tl_text("ab"));
    tl_exchange_body(&w.x, tl_text("c"));
    tl_exchange_body_over(&w.x);
    CHECK(w.s.pieces == 3 && w.s.lasts == 1 && memcmp(w.s.body, "abc", 3) == 0 && w.x.body_n == 3);

    CHECK(go(&w, "HEAD /" TUNNEL "\r\n", true, true) == 0);
    tl_exchange_body_over(&w.x);
    CHECK(fill_into(&w, text, 1000) == TL_FILL_MORE && strcmp(text + strlen(text) - 4, "\r\n\r\n") == 0);
}

static void refusals(void)
{
    world w;
    char text[1024];
    /* A chunked body that is too long for its route: what came is kept apart, and the line ends. */
    CHECK(go(&w, "POST /settings" TUNNEL OURS "Transfer-Encoding: chunked\r\n\r\n", true, true) == 0);
    for (int i = 0; i < 103; i++) {
        tl_exchange_body(&w.x, tl_text("0123456789"));
    }
    tl_exchange_body_over(&w.x);
    CHECK(w.x.status == 413 && w.x.close && w.s.pieces == 0);
    CHECK(fill_into(&w, text, TL_FILL_ROOM_MIN) == TL_FILL_END && strstr(text, "HTTP/1.1 413 ") == text && strstr(text, "Connection: close\r\n"));
    CHECK(fill_into(&w, text, 1000) == TL_FILL_BROKEN);
    /* Refused by its head: no 100, and the body that comes all the same is read by nobody. */
    CHECK(go(&w, "POST /upload" TUNNEL "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", true, true) == 403);
    CHECK(w.x.close && !w.x.owes_continue);
    tl_exchange_body(&w.x, tl_text("hello"));
    CHECK(w.s.pieces == 0 && fill_into(&w, text, 1000) == TL_FILL_END && strstr(text, "HTTP/1.1 403 ") == text);
    /* Without a body the line lives on. */
    CHECK(go(&w, "GET /none" TUNNEL "\r\n", true, true) == 404 && !w.x.close);
    CHECK(fill_into(&w, text, 1000) == TL_FILL_END && strstr(text, "close") == NULL);
    /* The route refuses what it reads. */
    CHECK(go(&w, "POST /upload" TUNNEL OURS "Content-Length: 5\r\n\r\n", true, true) == 0);
    w.s.refuse_body = 422;
    tl_exchange_body(&w.x, tl_text("h"));
    tl_exchange_body(&w.x, tl_text("e"));
    CHECK(w.x.status == 422 && w.s.pieces == 1 && w.x.close);
    /* It breaks while it is answered: never taken for whole. */
    CHECK(go(&w, "GET /" TUNNEL "\r\n", true, true) == 0);
    tl_exchange_body_over(&w.x);
    (void)fill_into(&w, text, 1000);
    tl_exchange_refuse(&w.x, 500);
    CHECK(fill_into(&w, text, 1000) == TL_FILL_BROKEN);
    /* No room is lent for a small body. */
    CHECK(go(&w, "POST /settings" TUNNEL OURS "Content-Length: 5\r\n\r\n", true, true) == 0);
    tl_exchange_begin(&w.x, ROUTES, &w.origin, &w.s, (tl_out){NULL, 0, 0, false});
    CHECK(w.x.status == 503);
    /* What a route began it ends once, and not what it refused to begin, nor what never reached it. */
    CHECK(go(&w, "GET /" TUNNEL "\r\n", true, true) == 0);
    tl_exchange_over(&w.x);
    tl_exchange_over(&w.x);
    CHECK(w.s.overs == 1 && !tl_exchange_may_fill(&w.x));
    w.s.refuse = 503;
    tl_exchange_begin(&w.x, ROUTES, &w.origin, &w.s, (tl_out){NULL, 0, 0, false});
    CHECK(w.x.status == 503);
    tl_exchange_over(&w.x);
    CHECK(w.s.overs == 1);
    CHECK(go(&w, "GET /none" TUNNEL "\r\n", true, true) == 404);
    tl_exchange_over(&w.x);
    CHECK(w.s.overs == 0);
    /* Every refusal fits into the least room. */
    for (uint16_t status = 400; status < 600; status++) {
        uint8_t room[TL_FILL_ROOM_MIN];
        tl_out out = {room, 0, sizeof room, false};
        tl_answer_plain(&out, status, false, true);
        CHECK(!out.full);
    }
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(by_the_tunnel),
        CHECK_TEST(on_the_lan),
        CHECK_TEST(how_an_exchange_goes),
        CHECK_TEST(refusals),
    };
    return CHECK_ALL(tests);
}
