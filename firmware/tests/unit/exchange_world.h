/* A device whose streams carry requests, and the server's end of each. */
#ifndef TOWLINE_EXCHANGE_WORLD_H
#define TOWLINE_EXCHANGE_WORLD_H

#include "test_mux_world.h"

#include "towline/exchange.h"

enum { IDS = 16, CAME = 1 << 16, PAGE = 5000 };

/* What came to the server's end of one stream. */
typedef struct {
    char bytes[CAME];
    size_t n;
    bool opened, finished, reset;
    tl_reset_code code;
    uint64_t credit; /* what it may send, counted from the stream's first byte */
    uint64_t sent;
} line_end;

typedef struct {
    world w; /* first: the mux's events come with it */
    tl_exchanges all;
    tl_line lines[STREAMS];
    uint8_t small[TL_SMALL_BODY_MAX];
    tl_grant grant;
    line_end end[IDS]; /* by stream id */

    /* the routes' own */
    unsigned begun, overs;
    char body[1 << 15];
    size_t body_n;
    unsigned news;
    uint16_t refuse_body;
} site;

static site s;

/* --- routes --- */

static uint16_t begin(tl_exchange *x)
{
    (void)x;
    s.begun++;
    return 0;
}

static void over(tl_exchange *x)
{
    (void)x;
    s.overs++;
}

static uint16_t on_body(tl_exchange *x, tl_span piece, bool last)
{
    (void)x;
    (void)last;
    if (piece.n > 0) {
        memcpy(s.body + s.body_n, piece.at, piece.n);
        s.body_n += piece.n;
    }
    return s.refuse_body;
}

static void put_head(tl_exchange *x, tl_out *out, uint64_t length)
{
    const tl_answer answer = {.status = 200, .length = length, .close = x->close};
    tl_answer_head(out, &answer);
    tl_answer_head_end(out);
}

static char page_byte(uint64_t at)
{
    return (char)('a' + at % 26);
}

static tl_fill fill_page(tl_exchange *x, tl_out *out)
{
    if (!x->started) {
        put_head(x, out, PAGE);
    }
    for (; !x->head_only && x->progress < PAGE && out->n < out->cap; x->progress++) {
        tl_put_u8(out, (uint8_t)page_byte(x->progress));
    }
    return x->head_only || x->progress == PAGE ? TL_FILL_END : TL_FILL_MORE;
}

static tl_fill fill_unchanged(tl_exchange *x, tl_out *out)
{
    const bool same = tl_etag_matches(x->origin.request->header[TL_H_IF_NONE_MATCH], "\"v1\"");
    const tl_answer answer = {.status = same ? 304 : 200, .etag = "\"v1\"", .length = 2, .close = x->close};
    tl_answer_head(out, &answer);
    tl_answer_head_end(out);
    tl_put_text(out, same ? "" : "v1");
    return TL_FILL_END;
}

static tl_fill fill_ok(tl_exchange *x, tl_out *out)
{
    put_head(x, out, 2);
    tl_put_text(out, "ok");
    return TL_FILL_END;
}

static tl_fill fill_live(tl_exchange *x, tl_out *out)
{
    size_t room;
    if (!x->started) {
        put_head(x, out, TL_LENGTH_UNKNOWN);
    }
    const size_t chunk = tl_chunk_begin(out, &room);
    if (s.news > 0) {
        s.news--;
        tl_put_text(out, "data: 1\n\n");
    }
    tl_chunk_end(out, chunk);
    return TL_FILL_AGAIN;
}

static tl_fill fill_broken(tl_exchange *x, tl_out *out)
{
    put_head(x, out, 100);
    return TL_FILL_BROKEN;
}

static const tl_route TABLE[] = {
    {"GET", "/", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_page, over},
    {"GET", "/same", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_unchanged, over},
    {"GET", "/live", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_live, over},
    {"GET", "/broken", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_broken, over},
    {"POST", "/small", TL_LOGGED_IN, TL_BODY_SMALL, begin, on_body, fill_ok, over},
    {"POST", "/upload", TL_LOGGED_IN, TL_BODY_STREAMED, begin, on_body, fill_ok, over},
};
static const tl_routes ROUTES = {TABLE, sizeof TABLE / sizeof *TABLE};

/* --- the tunnel's owner --- */

static void site_requested(void *owner, tl_stream_ref stream, const tl_open *open)
{
    heard_requested(owner, stream, open); /* accepts nothing: w.accept is false */
    if (s.w.last_asked == stream) {
        tl_exchanges_open(&s.all, stream, &s.grant);
    }
}

static void site_data(void *owner, tl_stream_ref stream)
{
    (void)owner;
    tl_exchanges_came(&s.all, stream);
}

static tl_fill site_fill(void *owner, tl_stream_ref stream, tl_out *out)
{
    (void)owner;
    return tl_exchanges_fill(&s.all, stream, out);
}

static void site_over(void *owner, tl_stream_ref stream, tl_over how, tl_reset_code code)
{
    heard_over(owner, stream, how, code);
    tl_exchanges_stream_over(&s.all, stream);
}

static const tl_mux_events site_events = {
    heard_challenge, heard_ready, heard_grant, heard_revoke, site_requested, site_data,
    site_data,       site_fill,   site_over,   heard_goaway, heard_lost,
};

static void start_site(tl_span server_hello)
{
    memset(&s, 0, sizeof s);
    start_with(&s.w, &site_events);
    s.w.accept = false;
    s.w.now = 1000000;
    tl_exchanges_init(&s.all, &s.w.mux, ROUTES, &s, s.lines, s.small);
    memset(s.grant.id, 7, sizeof s.grant.id);
    shake_hands(&s.w, server_hello);
}

static void open_site(void)
{
    start_site(frame_called("hello of a server")->raw);
}

/* A server that gives this much credit on a stream. */
static void open_site_with(uint32_t window)
{
    static uint8_t raw[1024];
    tl_out out = {raw, TL_HEADER_SIZE, sizeof raw, false};
    const tl_hello hello = {.limits = {65535, 65536, window, 1 << 20, 64, 4000}};
    tl_hello_put(&out, &hello);
    const size_t n = out.n;
    out.n = 0;
    tl_header_put(&out, TL_HELLO, 0, n - TL_HEADER_SIZE);
    start_site((tl_span){raw, n});
}

/* --- the server's end --- */

static void read_frame(const tl_frame *frame)
{
    line_end *end = &s.end[frame->stream % IDS];
    switch (frame->type) {
    case TL_DATA:
        CHECK(!end->finished && !end->reset && end->n + frame->payload.n < CAME);
        memcpy(end->bytes + end->n, frame->payload.at, frame->payload.n);
        end->n += frame->payload.n;
        end->bytes[end->n] = '\0';
        break;
    case TL_OPENED:
        end->opened = true;
        break;
    case TL_FIN:
        end->finished = true;
        break;
    case TL_RESET:
        end->reset = true;
        end->code = tl_reset_code_of(tl_u16(frame->payload.at));
        break;
    case TL_CREDIT:
        end->credit = tl_u64(frame->payload.at);
        break;
    default:
        break;
    }
}

/* One message of the device. */
static bool carry_one(void)
{
    uint8_t *raw = malloc(MESSAGE);
    tl_span message = {raw, tl_mux_next_message(&s.w.mux, raw, MESSAGE, s.w.now)};
    const bool some = message.n > 0;
    tl_frame frame;
    while (tl_frame_next(&message, MESSAGE, &frame) == TL_FRAME_OK) {
        read_frame(&frame);
    }
    free(raw);
    return some;
}

static void carry(void)
{
    while (carry_one()) {
    }
}

static tl_stream_ref open_line(uint32_t id)
{
    memset(&s.end[id % IDS], 0, sizeof s.end[0]);
    s.end[id % IDS].credit = WINDOW;
    return come_open(&s.w, id);
}

static void say_span(uint32_t id, tl_span bytes)
{
    s.end[id % IDS].sent += bytes.n;
    come(&s.w, TL_DATA, id, bytes);
}

static void say(uint32_t id, const char *text)
{
    say_span(id, tl_text(text));
}

static bool got(uint32_t id, const char *text)
{
    return strstr(s.end[id % IDS].bytes, text) != NULL;
}

static bool begins(uint32_t id, const char *text)
{
    return strncmp(s.end[id % IDS].bytes, text, strlen(text)) == 0;
}

static void forget(uint32_t id)
{
    s.end[id % IDS].n = 0;
    s.end[id % IDS].bytes[0] = '\0';
}

static unsigned taken_lines(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < STREAMS; i++) {
        n += s.lines[i].phase != TL_LINE_FREE;
    }
    return n;
}

/* The clock moves; the server keeps talking and reading, so that the tunnel itself lives. */
static void pass(uint64_t ms)
{
    for (const uint64_t to = s.w.now + ms; s.w.now < to;) {
        s.w.now += to - s.w.now < 3000 ? to - s.w.now : 3000;
        tl_mux_heard(&s.w.mux, s.w.now);
        tl_mux_on_timer(&s.w.mux, s.w.now);
        if (s.w.now >= tl_exchanges_timer(&s.all)) {
            tl_exchanges_on_timer(&s.all, s.w.now);
        }
        carry();
    }
}

#define HOST " HTTP/1.1\r\nHost: d.test\r\n"
#define OURS "X-Towline: 1\r\n"
#define GET_PAGE "GET /" HOST "\r\n"
#define CLOSES "Connection: close\r\n"

#endif
