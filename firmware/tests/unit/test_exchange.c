/* Requests on tunnel streams: what a peer gets for what it sends, how long it may take, and what it leaves behind. */
#include "exchange_world.h"

/* --- requests --- */

static bool is_page(const char *answer)
{
    const char *body = strstr(answer, "\r\n\r\n");
    for (size_t i = 0; body != NULL && i < PAGE; i++) {
        if (body[4 + i] != page_byte(i)) {
            return false;
        }
    }
    return body != NULL && strncmp(answer, "HTTP/1.1 200 ", 13) == 0;
}

static size_t count(uint32_t id, const char *text)
{
    size_t n = 0;
    for (const char *at = s.end[id % IDS].bytes; (at = strstr(at, text)) != NULL; at++) {
        n++;
    }
    return n;
}

static void test_a_request_is_answered_and_the_line_lives_on(void)
{
    open_site();
    open_line(1);
    CHECK(s.grant.streams == 1 && tl_exchanges_timer(&s.all) == TL_NEVER);
    for (int i = 0; i < 200; i++) {
        forget(1);
        say(1, "GET /?41=bytes" HOST "\r\n"); /* no divisor of the window: the ring's end lies in a head */
        carry();
        CHECK(is_page(s.end[1].bytes) && !s.end[1].finished && !s.end[1].reset);
        come_credit(&s.w, 1, UINT64_MAX / 2);
        CHECK(s.end[1].credit - s.end[1].sent >= WINDOW / 2);
    }
    CHECK(s.begun == 200 && s.overs == 200 && s.grant.streams == 1);
    CHECK(tl_exchanges_timer(&s.all) == TL_NEVER);
}

static void test_a_request_may_come_byte_by_byte(void)
{
    open_site();
    open_line(1);
    for (const char *at = GET_PAGE; *at != '\0'; at++) {
        CHECK(s.begun == 0);
        say_span(1, (tl_span){(const uint8_t *)at, 1});
    }
    carry();
    CHECK(is_page(s.end[1].bytes));
}

static void test_requests_at_once_are_answered_one_by_one(void)
{
    open_site();
    open_line(1);
    say(1, GET_PAGE "GET /none" HOST "\r\n" GET_PAGE "GET /sa");
    CHECK(s.begun == 1);
    CHECK(carry_one() && s.begun == 1 && s.overs == 0); /* its answer takes three messages */
    carry();
    CHECK(count(1, "HTTP/1.1 200") == 2 && count(1, "HTTP/1.1 404") == 1 && s.begun == 2 && s.overs == 2);
    CHECK(tl_exchanges_timer(&s.all) == s.w.now + TL_HEAD_TIMEOUT_MS);
    say(1, "me" HOST "\r\n");
    carry();
    CHECK(count(1, "HTTP/1.1") == 4 && tl_exchanges_timer(&s.all) == TL_NEVER);
}

/* While an answer is under way nothing is read: the peer has its window, and gets no more. */
static void test_a_peer_that_does_not_wait_has_its_window(void)
{
    open_site_with(600);
    open_line(1);
    say(1, GET_PAGE);
    carry();
    CHECK(begins(1, "HTTP/1.1 200") && s.begun == 1);
    while (s.end[1].sent < WINDOW) {
        static const uint8_t junk[1000];
        const uint64_t left = WINDOW - s.end[1].sent;
        say_span(1, (tl_span){junk, left < sizeof junk ? (size_t)left : sizeof junk});
    }
    carry();
    CHECK(s.end[1].credit == WINDOW && s.begun == 1);
    say(1, "x");
    CHECK(s.w.losses == 1 && s.w.lost.code == TL_CLOSE_FLOW_CONTROL && taken_lines() == 0 && s.overs == 1);
}

static void test_heads_and_answers_without_a_body(void)
{
    open_site();
    open_line(1);
    say(1, "HEAD /" HOST "\r\n");
    carry();
    CHECK(got(1, "Content-Length: 5000\r\n") && strcmp(s.end[1].bytes + s.end[1].n - 4, "\r\n\r\n") == 0);
    forget(1);
    say(1, "GET /same" HOST "If-None-Match: \"v1\"\r\n\r\n");
    carry();
    CHECK(begins(1, "HTTP/1.1 304 ") && strcmp(s.end[1].bytes + s.end[1].n - 4, "\r\n\r\n") == 0);
    forget(1);
    say(1, "HEAD /none" HOST "\r\n");
    carry();
    CHECK(begins(1, "HTTP/1.1 404 ") && strcmp(s.end[1].bytes + s.end[1].n - 4, "\r\n\r\n") == 0);
    CHECK(!s.end[1].finished && s.overs == 2);
}

static void test_a_client_that_asks_to_close(void)
{
    open_site();
    open_line(1);
    say(1, "GET /" HOST CLOSES "\r\n" GET_PAGE);
    carry();
    CHECK(got(1, CLOSES) && count(1, "HTTP/1.1") == 1 && s.end[1].finished && taken_lines() == 1);
    come(&s.w, TL_FIN, 1, (tl_span){NULL, 0});
    CHECK(taken_lines() == 0 && s.grant.streams == 0 && s.w.how == TL_OVER_FINISHED);
}

/* --- bodies --- */

static void test_expect_continue(void)
{
    open_site();
    open_line(1);
    say(1, "POST /small" HOST OURS "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    carry();
    CHECK(strcmp(s.end[1].bytes, "HTTP/1.1 100 Continue\r\n\r\n") == 0);
    say(1, "hello");
    carry();
    CHECK(got(1, "HTTP/1.1 200 ") && s.body_n == 5 && memcmp(s.body, "hello", 5) == 0);
    forget(1);
    say(1, "POST /none" HOST OURS "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"); /* the final status at once */
    carry();
    CHECK(begins(1, "HTTP/1.1 404 ") && got(1, CLOSES) && s.end[1].finished && s.body_n == 5);
    open_line(3);
    say(3, "POST /small" HOST OURS "Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello"); /* it does not wait */
    carry();
    CHECK(begins(3, "HTTP/1.1 200 "));
}

static void test_an_upload_moves_with_credit(void)
{
    open_site();
    open_line(1);
    const size_t all = 20000;
    say(1, "POST /upload" HOST OURS "Content-Length: 20000\r\n\r\n");
    for (size_t at = 0; at < all;) {
        uint8_t piece[997];
        size_t n = all - at < sizeof piece ? all - at : sizeof piece;
        carry();
        if (n > s.end[1].credit - s.end[1].sent) {
            n = (size_t)(s.end[1].credit - s.end[1].sent);
        }
        CHECK(n > 0);
        for (size_t i = 0; i < n; i++) {
            piece[i] = (uint8_t)page_byte(at + i);
        }
        say_span(1, (tl_span){piece, n});
        at += n;
    }
    carry();
    CHECK(begins(1, "HTTP/1.1 200 ") && s.body_n == all && s.overs == 1);
    for (size_t i = 0; i < all; i++) {
        CHECK(s.body[i] == page_byte(i));
    }
    forget(1);
    s.body_n = 0;
    say(1, "POST /upload" HOST OURS "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n" GET_PAGE);
    carry();
    CHECK(s.body_n == 5 && memcmp(s.body, "abcde", 5) == 0 && count(1, "HTTP/1.1 200") == 2);
}

static void test_a_small_body_is_lent_to_one(void)
{
    open_site();
    open_line(1);
    open_line(3);
    open_line(5);
    say(1, "POST /small" HOST OURS "Content-Length: 5\r\n\r\nhe");
    CHECK(s.all.small_lent_to == s.lines[0].stream);
    say(3, "POST /small" HOST OURS "Content-Length: 1\r\n\r\n");
    carry();
    CHECK(begins(3, "HTTP/1.1 503 ") && s.end[3].finished);
    say(5, "POST /upload" HOST OURS "Content-Length: 1\r\n\r\nx" "POST /small" HOST OURS "\r\n" GET_PAGE);
    carry();
    CHECK(count(5, "HTTP/1.1 200 ") == 3 && s.all.small_lent_to == s.lines[0].stream);
    s.body_n = 0;
    say(1, "llo");
    CHECK(s.all.small_lent_to == 0); /* not only when the answer has left */
    carry();
    CHECK(begins(1, "HTTP/1.1 200 ") && s.body_n == 5 && memcmp(s.body, "hello", 5) == 0);
    say(5, "POST /small" HOST OURS "Content-Length: 5\r\n\r\nhe");
    come(&s.w, TL_RESET, 5, (tl_span){(const uint8_t *)"\0\1", 2});
    CHECK(s.all.small_lent_to == 0);
}

static void test_bodies_that_are_refused(void)
{
    static const struct {
        const char *request, *status;
    } cases[] = {
        {"POST /small" HOST OURS "Content-Length: 1025\r\n\r\nxxxxxxxx", "HTTP/1.1 413 "},
        {"GET /" HOST "Content-Length: 5\r\n\r\nhello", "HTTP/1.1 413 "},
        {"POST /small" HOST "Content-Length: 5\r\n\r\nhello", "HTTP/1.1 403 "},
        {"POST /none" HOST OURS "Content-Length: 5\r\n\r\nhello", "HTTP/1.1 404 "},
        {"POST /upload" HOST OURS "Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n", "HTTP/1.1 400 "},
        {"POST /upload" HOST OURS "Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", "HTTP/1.1 400 "},
        {"POST /upload" HOST OURS "Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nabcd\r\n0\r\n\r\n", "HTTP/1.1 400 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_site();
        open_line(1);
        say(1, cases[i].request);
        say(1, GET_PAGE);
        carry();
        CHECK_NAMED(begins(1, cases[i].status) && got(1, CLOSES), cases[i].request);
        CHECK_NAMED(count(1, "HTTP/1.1") == 1 && s.end[1].finished && s.begun == s.overs, cases[i].request);
    }
    open_site();
    open_line(1);
    s.refuse_body = 422; /* the route has read enough */
    say(1, "POST /upload" HOST OURS "Content-Length: 100000\r\n\r\nx");
    carry();
    CHECK(begins(1, "HTTP/1.1 422 ") && s.end[1].finished && s.overs == 1);
    const uint64_t credit = s.end[1].credit;
    static const uint8_t rest[2000];
    say_span(1, (tl_span){rest, sizeof rest});
    carry();
    CHECK(s.end[1].credit == credit && s.body_n == 1 && !s.end[1].reset); /* nobody reads on */
    pass(TL_LINGER_TIMEOUT_MS);
    carry();
    CHECK(s.end[1].reset && s.end[1].code == TL_RESET_TIMEOUT && taken_lines() == 0);
}

static void test_heads_that_are_no_http(void)
{
    static const struct {
        const char *head, *status;
    } cases[] = {
        {"\r\n", "HTTP/1.1 400 "}, {"GET / HTTP/1.1\n", "HTTP/1.1 400 "}, {"GET / HTTP/1.0\r\n\r\n", "HTTP/1.1 505 "},
        {"GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 400 "}, {"\x16\x03\x01", "HTTP/1.1 400 "},
        {"POST /small" HOST OURS "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "HTTP/1.1 400 "},
        {"POST /small" HOST OURS "Transfer-Encoding: gzip\r\n\r\n", "HTTP/1.1 501 "},
        {"POST /small" HOST OURS "Content-Length: 1\r\nExpect: tea\r\n\r\n", "HTTP/1.1 417 "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_site();
        open_line(1);
        say(1, cases[i].head);
        say(1, GET_PAGE);
        carry();
        CHECK_NAMED(begins(1, cases[i].status) && got(1, CLOSES), cases[i].head);
        CHECK_NAMED(count(1, "HTTP/1.1") == 1 && s.end[1].finished && s.begun == 0, cases[i].head);
    }
    open_site();
    open_line(1);
    say(1, "GET /" HOST "Cookie: ");
    static uint8_t cookie[TL_HTTP_HEAD_MAX];
    memset(cookie, 'c', sizeof cookie);
    say_span(1, (tl_span){cookie, sizeof cookie});
    carry();
    CHECK(begins(1, "HTTP/1.1 431 ") && got(1, CLOSES) && s.end[1].finished);
}

/* --- answers --- */

static void test_live_answers(void)
{
    open_site();
    open_line(1);
    say(1, "GET /live" HOST "\r\n");
    carry();
    CHECK(got(1, "Transfer-Encoding: chunked\r\n") && count(1, "data:") == 0);
    for (unsigned i = 1; i <= 5; i++) {
        s.news = 1;
        carry();
        CHECK(count(1, "data:") == i - 1); /* nobody was woken */
        tl_exchanges_wake(&s.all);
        carry();
        CHECK(count(1, "0009\r\ndata: 1\n\n\r\n") == i);
        pass(TL_ANSWER_TIMEOUT_MS - 1);
    }
    CHECK(!s.end[1].reset && s.overs == 0);
    come(&s.w, TL_RESET, 1, (tl_span){(const uint8_t *)"\0\1", 2});
    CHECK(s.overs == 1 && taken_lines() == 0 && s.grant.streams == 0);
    carry();
    tl_exchanges_wake(&s.all);
    CHECK(!carry_one());
}

static void test_an_answer_that_breaks(void)
{
    open_site();
    open_line(1);
    say(1, "GET /broken" HOST "\r\n");
    carry();
    CHECK(s.end[1].n == 0 && s.end[1].reset && s.end[1].code == TL_RESET_UPSTREAM_RESET);
    CHECK(s.overs == 1 && taken_lines() == 0 && s.grant.streams == 0);
}

static void test_four_lines_share(void)
{
    open_site();
    for (uint32_t id = 1; id < 9; id += 2) {
        open_line(id);
        say(id, GET_PAGE);
    }
    CHECK(taken_lines() == 4 && s.grant.streams == 4);
    for (int i = 0; i < 4; i++) {
        CHECK(carry_one());
    }
    for (uint32_t id = 1; id < 9; id += 2) {
        CHECK(s.end[id].n > 500); /* none waits for another's end */
    }
    carry();
    for (uint32_t id = 1; id < 9; id += 2) {
        CHECK(is_page(s.end[id].bytes));
    }
    come_open(&s.w, 9);
    CHECK(taken_lines() == 4 && s.grant.streams == 4);
}

/* --- ends --- */

static void test_the_peer_finishes(void)
{
    const tl_span none = {NULL, 0};
    open_site();
    open_line(1);
    come(&s.w, TL_FIN, 1, none); /* nothing is under way */
    carry();
    CHECK(s.end[1].finished && !s.end[1].reset && taken_lines() == 0 && s.grant.streams == 0);
    open_line(3);
    say(3, GET_PAGE GET_PAGE);
    come(&s.w, TL_FIN, 3, none); /* it has asked all it wants */
    carry();
    CHECK(count(3, "HTTP/1.1 200") == 2 && s.end[3].finished && taken_lines() == 0);
    open_line(5);
    say(5, "GET /");
    come(&s.w, TL_FIN, 5, none);
    carry();
    CHECK(s.end[5].n == 0 && s.end[5].finished && taken_lines() == 0); /* half a request gets no answer */
    open_line(7);
    say(7, "POST /upload" HOST OURS "Content-Length: 5\r\n\r\nhe");
    come(&s.w, TL_FIN, 7, none);
    carry();
    CHECK(s.end[7].n == 0 && s.end[7].finished);
    CHECK(taken_lines() == 0 && s.overs == s.begun && s.grant.streams == 0);
    open_line(9);
    say(9, GET_PAGE "GET /");
    come(&s.w, TL_FIN, 9, none); /* seen only when the first is answered */
    carry();
    CHECK(is_page(s.end[9].bytes) && s.end[9].finished && taken_lines() == 0 && s.overs == s.begun);
}

static void test_what_came_before_it_was_accepted(void)
{
    open_site();
    s.w.last_asked = 0;
    static const tl_mux_events later = {
        heard_challenge, heard_ready, heard_grant, heard_revoke, heard_requested, site_data,
        site_data,       site_fill,   site_over,   heard_goaway, heard_lost,
    };
    s.w.mux.config.events = &later;
    open_line(1);
    say(1, GET_PAGE);
    come(&s.w, TL_FIN, 1, (tl_span){NULL, 0});
    carry();
    CHECK(!s.end[1].opened && taken_lines() == 0);
    tl_exchanges_open(&s.all, s.w.last_asked, &s.grant);
    carry();
    CHECK(s.end[1].opened && is_page(s.end[1].bytes) && s.end[1].finished && taken_lines() == 0);
    tl_exchanges_open(&s.all, s.w.last_asked, &s.grant); /* it is over */
    CHECK(taken_lines() == 0 && s.grant.streams == 0);
}

static void test_late_callers_do_nothing(void)
{
    open_site();
    const tl_stream_ref old = open_line(1);
    say(1, "GET /live" HOST "\r\n");
    come(&s.w, TL_RESET, 1, (tl_span){(const uint8_t *)"\0\1", 2});
    const tl_stream_ref new = open_line(3);
    CHECK(old != new && tl_stream_index(old) == tl_stream_index(new));
    say(3, GET_PAGE);
    uint8_t raw[MESSAGE];
    tl_out out = {raw, 0, sizeof raw, false};
    CHECK(tl_exchanges_fill(&s.all, old, &out) == TL_FILL_AGAIN && out.n == 0);
    tl_exchanges_came(&s.all, old);
    tl_exchanges_stream_over(&s.all, old);
    tl_exchanges_stream_over(&s.all, (tl_stream_ref){0xFF});
    CHECK(taken_lines() == 1 && s.overs == 1);
    carry();
    CHECK(is_page(s.end[3].bytes));
}

static void test_a_grant_ends(void)
{
    static tl_grant other;
    open_site();
    memset(other.id, 9, sizeof other.id);
    open_line(1);
    say(1, "GET /live" HOST "\r\n");
    open_line(3);
    s.lines[1].grant = &other;
    memcpy(s.lines[1].grant_id, other.id, sizeof other.id);
    other.streams = 1;
    uint8_t id[TL_GRANT_ID];
    memcpy(id, s.grant.id, sizeof id);
    memset(&s.grant, 0, sizeof s.grant); /* as the book of grants does */
    tl_exchanges_end_grant(&s.all, id);
    carry();
    CHECK(s.end[1].reset && s.end[1].code == TL_RESET_GRANT_ENDED && s.overs == 1 && s.grant.streams == 0);
    CHECK(taken_lines() == 1 && !s.end[3].reset && other.streams == 1);
    open_line(5);
    memset(&s.grant, 5, sizeof s.grant); /* its place was given to another */
    tl_exchanges_end_grant(&s.all, (const uint8_t[TL_GRANT_ID]){0});
    CHECK(s.grant.streams == 5 && taken_lines() == 1);
}

static void test_a_drain(void)
{
    open_site();
    open_line(1);
    open_line(3);
    say(3, GET_PAGE);
    open_line(5);
    say(5, "GE");
    tl_exchanges_drain(&s.all, s.w.now + 1000); /* of the mux's last call a while ago */
    CHECK(tl_exchanges_timer(&s.all) == s.w.now + 1000 + TL_LINGER_TIMEOUT_MS);
    say(5, "T /" HOST "\r\n");
    carry();
    CHECK(s.end[1].finished && is_page(s.end[3].bytes) && s.end[3].finished && !got(3, CLOSES));
    CHECK(is_page(s.end[5].bytes) && got(5, CLOSES) && s.end[5].finished);
}

static void test_the_tunnel_is_lost(void)
{
    open_site();
    for (uint32_t id = 1; id < 9; id += 2) {
        open_line(id);
    }
    say(1, "GET /live" HOST "\r\n");
    say(3, "POST /small" HOST OURS "Content-Length: 5\r\n\r\nhe");
    say(5, GET_PAGE);
    s.grant.streams = 3; /* one was counted away by somebody else */
    tl_mux_link_closed(&s.w.mux, 0);
    CHECK(taken_lines() == 0 && s.overs == 3 && s.grant.streams == 0 && s.all.small_lent_to == 0);
    CHECK(tl_exchanges_timer(&s.all) == TL_NEVER);
}

/* --- deadlines --- */

static void test_a_head_has_its_time(void)
{
    open_site();
    open_line(1);
    pass(10 * TL_ANSWER_TIMEOUT_MS); /* between requests the peer may think */
    CHECK(taken_lines() == 1);
    for (uint32_t i = 0; i < 9; i++) { /* bytes win no time */
        say(1, i == 0 ? "G" : "x");
        pass(TL_HEAD_TIMEOUT_MS / 10);
    }
    carry();
    CHECK(s.end[1].n == 0);
    pass(TL_HEAD_TIMEOUT_MS / 10);
    carry();
    CHECK(begins(1, "HTTP/1.1 408 ") && got(1, CLOSES) && s.end[1].finished);
    pass(TL_LINGER_TIMEOUT_MS - 1);
    carry();
    CHECK(!s.end[1].reset);
    pass(1);
    carry();
    CHECK(s.end[1].reset && s.end[1].code == TL_RESET_TIMEOUT && taken_lines() == 0 && s.grant.streams == 0);
}

static void test_times_are_those_that_are_told(void)
{
    open_site();
    open_line(1);
    say(1, "G");
    const uint64_t late = s.w.now + TL_HEAD_TIMEOUT_MS + 1000;
    tl_exchanges_on_timer(&s.all, late); /* the mux has heard nothing since */
    CHECK(tl_exchanges_timer(&s.all) == late + TL_ANSWER_TIMEOUT_MS);
}

static void test_a_body_has_its_time(void)
{
    open_site();
    open_line(1);
    open_line(3);
    say(1, "POST /upload" HOST OURS "Content-Length: 100\r\n\r\n");
    say(3, "POST /small" HOST OURS "Content-Length: 100\r\n\r\n");
    for (int i = 0; i < 3; i++) { /* an upload that moves goes on, a form that trickles does not */
        pass(TL_BODY_TIMEOUT_MS / 2);
        say(1, "x");
        say(3, "x");
    }
    carry();
    CHECK(s.end[1].n == 0 && s.body_n == 3 && begins(3, "HTTP/1.1 408 ") && s.all.small_lent_to == 0);
    pass(TL_BODY_TIMEOUT_MS);
    carry();
    CHECK(begins(1, "HTTP/1.1 408 ") && got(1, CLOSES) && s.end[1].finished && s.overs == 2);
}

static void test_an_answer_that_nobody_takes(void)
{
    open_site_with(1200);
    open_line(1);
    say(1, GET_PAGE);
    carry();
    CHECK(begins(1, "HTTP/1.1 200 ") && s.end[1].n == 1200);
    for (uint64_t i = 1; i < 4; i++) {
        pass(TL_ANSWER_TIMEOUT_MS - 1);
        come_credit(&s.w, 1, 1200 + i * TL_FILL_ROOM_MIN);
        carry();
        CHECK(s.end[1].n == 1200 + i * TL_FILL_ROOM_MIN && !s.end[1].reset);
    }
    pass(TL_ANSWER_TIMEOUT_MS);
    carry();
    CHECK(s.end[1].reset && s.end[1].code == TL_RESET_TIMEOUT && taken_lines() == 0 && s.overs == 1);
    open_site_with(1); /* a server that never gives enough for anything */
    open_line(1);
    say(1, GET_PAGE);
    pass(TL_ANSWER_TIMEOUT_MS);
    carry();
    CHECK(s.end[1].reset && s.end[1].n == 0 && taken_lines() == 0);
}

static void test_a_live_answer_without_news_hangs(void)
{
    open_site();
    open_line(1);
    say(1, "GET /live" HOST "\r\n");
    carry();
    pass(TL_ANSWER_TIMEOUT_MS);
    carry();
    CHECK(s.end[1].reset && s.end[1].code == TL_RESET_TIMEOUT && s.overs == 1);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_a_request_is_answered_and_the_line_lives_on),
        CHECK_TEST(test_a_request_may_come_byte_by_byte),
        CHECK_TEST(test_requests_at_once_are_answered_one_by_one),
        CHECK_TEST(test_a_peer_that_does_not_wait_has_its_window),
        CHECK_TEST(test_heads_and_answers_without_a_body),
        CHECK_TEST(test_a_client_that_asks_to_close),
        CHECK_TEST(test_expect_continue),
        CHECK_TEST(test_an_upload_moves_with_credit),
        CHECK_TEST(test_a_small_body_is_lent_to_one),
        CHECK_TEST(test_bodies_that_are_refused),
        CHECK_TEST(test_heads_that_are_no_http),
        CHECK_TEST(test_live_answers),
        CHECK_TEST(test_an_answer_that_breaks),
        CHECK_TEST(test_four_lines_share),
        CHECK_TEST(test_the_peer_finishes),
        CHECK_TEST(test_what_came_before_it_was_accepted),
        CHECK_TEST(test_late_callers_do_nothing),
        CHECK_TEST(test_a_grant_ends),
        CHECK_TEST(test_a_drain),
        CHECK_TEST(test_the_tunnel_is_lost),
        CHECK_TEST(test_a_head_has_its_time),
        CHECK_TEST(test_times_are_those_that_are_told),
        CHECK_TEST(test_a_body_has_its_time),
        CHECK_TEST(test_an_answer_that_nobody_takes),
        CHECK_TEST(test_a_live_answer_without_news_hangs),
    };
    return CHECK_ALL(tests);
}
