/* A tunnel's server that does whatever the input says, at the other end of the mux and of its exchanges: nothing is
 * read or written beside what it should be, and when a stream or the tunnel ends, all it took is given back.
 *
 * A step is an op, a number, and for some a length with as many bytes. */
#include "exact.h"

#include "towline/bytes.h"
#include "towline/exchange.h"

enum { STREAMS = 3, WINDOW = 600, ALL_WINDOW = 1200, MESSAGE = 2048, PAGE = 3000 };

static tl_mux mux;
static tl_exchanges all;
static tl_grant grant;
static tl_stream *streams;
static uint8_t *rings, *small;
static tl_line *lines;
static tl_hello hello;
static uint64_t now;
static uint32_t next_id;
static unsigned begun, overs; /* of routes */
static bool lost;

/* --- routes --- */

static uint16_t begin(tl_exchange *x)
{
    const bool wanted = !tl_is(x->origin.request->query, "no");
    begun += wanted;
    return wanted ? 0 : 409;
}

static void over(tl_exchange *x)
{
    must(x->route != NULL);
    overs++;
}

static uint16_t on_body(tl_exchange *x, tl_span piece, bool last)
{
    must(piece.n <= (x->route->body == TL_BODY_SMALL ? TL_SMALL_BODY_MAX : WINDOW));
    return !last && piece.n > 0 && piece.at[0] == '!' ? 422 : 0;
}

static tl_fill fill_page(tl_exchange *x, tl_out *out)
{
    if (!x->started) {
        const tl_answer answer = {.status = 200, .length = PAGE, .close = x->close};
        tl_answer_head(out, &answer);
        tl_answer_head_end(out);
    }
    for (; !x->head_only && x->progress < PAGE && out->n < out->cap; x->progress++) {
        tl_put_u8(out, 'p');
    }
    return x->head_only || x->progress == PAGE ? TL_FILL_END : TL_FILL_MORE;
}

static tl_fill fill_live(tl_exchange *x, tl_out *out)
{
    size_t room;
    if (!x->started) {
        const tl_answer answer = {.status = 200, .length = TL_LENGTH_UNKNOWN, .close = x->close};
        tl_answer_head(out, &answer);
        tl_answer_head_end(out);
    }
    const size_t chunk = tl_chunk_begin(out, &room);
    tl_put_text(out, "data: 1\n\n");
    tl_chunk_end(out, chunk);
    return x->progress++ > 5 ? TL_FILL_BROKEN : TL_FILL_AGAIN;
}

static const tl_route TABLE[] = {
    {"GET", "/", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_page, over},
    {"GET", "/l", TL_LOGGED_IN, TL_BODY_NONE, begin, NULL, fill_live, over},
    {"POST", "/s", TL_LOGGED_IN, TL_BODY_SMALL, begin, on_body, fill_page, over},
    {"POST", "/u", TL_LOGGED_IN, TL_BODY_STREAMED, begin, on_body, fill_page, over},
};

/* --- the tunnel's owner --- */

static void on_challenge(void *owner, const uint8_t *nonce, tl_span server_name)
{
    static const uint8_t zeros[TL_SIGNATURE_SIZE];
    (void)owner;
    (void)nonce;
    must(server_name.n <= TL_MAX_SERVER_NAME);
    must(tl_mux_authenticate(&mux, tl_text("device"), zeros, zeros, zeros));
}

static void on_ready(void *owner, const tl_hello *peer)
{
    (void)owner;
    (void)peer;
}

static void on_grant(void *owner, const uint8_t *id, tl_span token)
{
    (void)owner;
    (void)id;
    must(token.n <= TL_MAX_TOKEN);
}

static void on_revoke(void *owner, const uint8_t *id)
{
    (void)owner;
    tl_exchanges_end_grant(&all, id);
}

static void on_requested(void *owner, tl_stream_ref stream, const tl_open *open)
{
    (void)owner;
    if (open->grant_id[0] == 1) {
        tl_stream_refuse(&mux, stream, TL_REFUSED_NO_GRANT, "no");
    } else {
        tl_exchanges_open(&all, stream, &grant);
    }
}

static void on_data(void *owner, tl_stream_ref stream)
{
    (void)owner;
    tl_exchanges_came(&all, stream);
}

static tl_fill on_fill(void *owner, tl_stream_ref stream, tl_out *out)
{
    (void)owner;
    return tl_exchanges_fill(&all, stream, out);
}

static void on_over(void *owner, tl_stream_ref stream, tl_over how, tl_reset_code code)
{
    (void)owner;
    (void)how;
    (void)code;
    tl_exchanges_stream_over(&all, stream);
}

static void on_goaway(void *owner, uint32_t retry_after_ms, tl_close_code code, tl_span reason)
{
    (void)owner;
    (void)retry_after_ms;
    must(reason.n <= TL_MAX_REASON);
    if (code == TL_CLOSE_NORMAL) {
        tl_exchanges_drain(&all, now);
    }
}

static void on_lost(void *owner, const tl_close *why)
{
    (void)owner;
    must(!lost && why->reason != NULL);
    lost = true;
}

static const tl_mux_events EVENTS = {
    on_challenge, on_ready, on_grant, on_revoke, on_requested, on_data,
    on_data,      on_fill,  on_over,  on_goaway, on_lost,
};

/* --- what holds at any time --- */

static void look(void)
{
    unsigned taken = 0;
    for (uint32_t i = 0; i < STREAMS; i++) {
        const bool there = lines[i].phase != TL_LINE_FREE;
        must(!there || streams[i].state != TL_STREAM_FREE); /* no line outlives its stream */
        taken += there;
    }
    must(taken == grant.streams && begun - overs <= taken);
    must(taken > 0 || (begun == overs && all.small_lent_to == 0 && tl_exchanges_timer(&all) == TL_NEVER));
    must(!lost || (taken == 0 && tl_mux_timer(&mux) == TL_NEVER));
}

static void receive(tl_span message)
{
    uint8_t *copy = exact(message.at, message.n);
    tl_mux_receive(&mux, (tl_span){copy, message.n}, now);
    free(copy);
}

static void frame_comes(tl_frame_type type, uint32_t stream, tl_span payload)
{
    static uint8_t raw[MESSAGE];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_frame_put(&out, type, stream, payload);
    if (!out.full) {
        receive((tl_span){raw, out.n});
    }
}

/* What leaves are whole frames. */
static bool leave(void)
{
    uint8_t *raw = malloc(MESSAGE);
    must(raw != NULL);
    tl_span message = {raw, tl_mux_next_message(&mux, raw, MESSAGE, now)};
    const bool some = message.n > 0;
    tl_frame frame;
    tl_frame_result result;
    while ((result = tl_frame_next(&message, MESSAGE, &frame)) == TL_FRAME_OK) {
    }
    must(result == TL_FRAME_END);
    free(raw);
    return some;
}

/* --- steps --- */

static void opens(uint8_t number, tl_span bytes)
{
    uint8_t raw[64] = {number};
    tl_out out = {raw, TL_GRANT_ID_SIZE, sizeof raw, false};
    tl_put_u8(&out, 6);
    tl_put_text(&out, "device");
    tl_put_u8(&out, 3);
    tl_put_text(&out, "web");
    frame_comes(TL_OPEN, next_id, (tl_span){raw, out.n});
    if (bytes.n > 0) {
        frame_comes(TL_DATA, next_id, bytes);
    }
    next_id += 2;
}

static void credit_comes(uint32_t stream, uint64_t offset)
{
    uint8_t raw[8];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_u64(&out, offset);
    frame_comes(TL_CREDIT, stream, (tl_span){raw, out.n});
}

static void time_passes(uint64_t ms)
{
    now += ms;
    tl_mux_on_timer(&mux, now);
    tl_exchanges_on_timer(&all, now);
}

static void step(uint8_t op, uint8_t number, tl_span bytes)
{
    const uint32_t stream = next_id - 2 * (1 + number % STREAMS); /* one of the last; before the first: none */
    switch (op % 12) {
    case 0:
        receive(bytes);
        break;
    case 1:
    case 2:
        frame_comes(TL_DATA, stream, bytes);
        break;
    case 3:
        opens(number, bytes);
        break;
    case 4:
        frame_comes(number % 2 == 0 ? TL_FIN : TL_RESET, stream, number % 2 == 0 ? (tl_span){NULL, 0} : bytes);
        break;
    case 5:
        credit_comes(number % 8 == 0 ? 0 : stream, (uint64_t)number * 400);
        break;
    case 6:
        for (unsigned i = 0; i <= number && leave(); i++) {
        }
        break;
    case 7:
        time_passes((uint64_t)number * 300);
        break;
    case 8:
        tl_exchanges_wake(&all);
        break;
    case 9:
        frame_comes((tl_frame_type)number, stream, bytes);
        break;
    case 10:
        tl_exchanges_end_grant(&all, number % 4 == 0 ? grant.id : (const uint8_t[TL_GRANT_ID]){9});
        break;
    default:
        number == 0 ? tl_mux_link_closed(&mux, 0) : number == 1 ? tl_mux_drain(&mux, "d") : (void)0;
        break;
    }
}

static void start(void)
{
    hello = (tl_hello){.limits = {MESSAGE - TL_HEADER_SIZE, MESSAGE, WINDOW, ALL_WINDOW, STREAMS, 4000}};
    streams = malloc(STREAMS * sizeof *streams);
    rings = malloc(STREAMS * WINDOW);
    lines = malloc(STREAMS * sizeof *lines);
    small = malloc(TL_SMALL_BODY_MAX);
    must(streams != NULL && rings != NULL && lines != NULL && small != NULL);
    memset(&grant, 0, sizeof grant);
    now = 1000;
    next_id = 1;
    begun = overs = 0;
    lost = false;
    const tl_mux_config config = {&hello, &EVENTS, NULL, streams, rings, 0};
    tl_mux_init(&mux, &config, now);
    tl_exchanges_init(&all, &mux, (tl_routes){TABLE, sizeof TABLE / sizeof *TABLE}, NULL, lines, small);
}

/* Most conversations begin as they should. */
static void shake_hands(uint8_t how)
{
    static const uint8_t challenge[TL_NONCE_SIZE + 2] = {[TL_NONCE_SIZE] = 1, 's'};
    static const uint8_t small_windows[] = {0, 3, 0, 4, 0, 0, 2, 88, 0, 4, 0, 4, 0, 0, 16, 0};
    if (how % 8 == 7) {
        return;
    }
    frame_comes(TL_CHALLENGE, 0, (tl_span){challenge, sizeof challenge});
    frame_comes(TL_HELLO, 0, how % 2 == 0 ? (tl_span){NULL, 0} : (tl_span){small_windows, sizeof small_windows});
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    tl_span rest = {data, size};
    start();
    if (rest.n > 0) {
        shake_hands(tl_take(&rest, 1).at[0]);
    }
    while (rest.n >= 3) {
        const tl_span head = tl_take(&rest, 3);
        step(head.at[0], head.at[1], tl_take(&rest, head.at[2]));
        look();
    }
    tl_mux_link_closed(&mux, 0);
    must(lost);
    look();
    free(streams);
    free(rings);
    free(lines);
    free(small);
    return 0;
}
