#include "towline/exchange.h"

#include <string.h>

enum { REQUEST_TIMEOUT = 408 };

void tl_exchanges_init(tl_exchanges *all, tl_mux *mux, tl_routes routes, void *owner, tl_line *lines, uint8_t *small)
{
    *all = (tl_exchanges){.mux = mux, .routes = routes, .owner = owner, .lines = lines, .small = small};
    memset(lines, 0, tl_mux_max_streams(mux) * sizeof *lines);
}

static tl_line *line_of(tl_exchanges *all, tl_stream_ref stream)
{
    if (tl_stream_index(stream) >= tl_mux_max_streams(all->mux)) {
        return NULL;
    }
    tl_line *line = &all->lines[tl_stream_index(stream)];
    return line->phase != TL_LINE_FREE && line->stream == stream ? line : NULL;
}

static void enter(const tl_exchanges *all, tl_line *line, tl_line_phase phase)
{
    static const uint16_t allowed_ms[] = {
        [TL_LINE_HEAD] = TL_HEAD_TIMEOUT_MS,
        [TL_LINE_BODY] = TL_BODY_TIMEOUT_MS,
        [TL_LINE_ANSWER] = TL_ANSWER_TIMEOUT_MS,
        [TL_LINE_LINGER] = TL_LINGER_TIMEOUT_MS,
    };
    const uint64_t by_mux = tl_mux_now(all->mux);
    const uint64_t now_ms = by_mux > all->now_ms ? by_mux : all->now_ms;
    line->phase = (uint8_t)phase;
    line->deadline_ms = allowed_ms[phase] == 0 ? TL_NEVER : now_ms + allowed_ms[phase];
}

/* --- ends --- */

static void give_back_small(tl_exchanges *all, const tl_line *line)
{
    if (all->small_lent_to == line->stream) {
        all->small_lent_to = 0;
    }
}

static void end_exchange(tl_exchanges *all, tl_line *line)
{
    give_back_small(all, line);
    tl_exchange_over(&line->exchange);
}

/* The stream is over. */
static void release(tl_exchanges *all, tl_line *line)
{
    line->phase = TL_LINE_FREE; /* first: a route may look who else is there */
    end_exchange(all, line);
    /* A grant that ended left its place empty, or to another. */
    if (memcmp(line->grant->id, line->grant_id, TL_GRANT_ID) == 0 && line->grant->streams > 0) {
        line->grant->streams--;
    }
}

static void cut(tl_exchanges *all, tl_line *line, tl_reset_code code)
{
    release(all, line);
    tl_stream_reset(all->mux, line->stream, code);
}

static void finish(tl_exchanges *all, tl_line *line)
{
    enter(all, line, TL_LINE_LINGER);
    tl_stream_finish(all->mux, line->stream);
}

/* --- requests --- */

static void start_answer(tl_exchanges *all, tl_line *line)
{
    give_back_small(all, line); /* a route has read its body when it was told that it is over */
    enter(all, line, TL_LINE_ANSWER);
    tl_stream_wake(all->mux, line->stream);
}

/* What comes can no longer be read: the refusal is this line's last answer. */
static void refuse(tl_exchanges *all, tl_line *line, uint16_t status)
{
    line->exchange.origin.request = &line->parser.request;
    line->exchange.close = true;
    tl_exchange_refuse(&line->exchange, status);
    start_answer(all, line);
}

static bool collects(const tl_exchange *x)
{
    return x->status == 0 && x->route->body == TL_BODY_SMALL && !x->body_over;
}

static void head_came(tl_exchanges *all, tl_line *line)
{
    const tl_exchange_origin origin = {.request = &line->parser.request, .by_tunnel = true, .grant = line->grant};
    const tl_out small = {all->small, 0, all->small_lent_to == 0 ? TL_SMALL_BODY_MAX : 0, false};
    tl_exchange *x = &line->exchange;
    tl_exchange_begin(x, all->routes, &origin, all->owner, small);
    x->close = x->close || all->draining;
    if (collects(x) && small.cap > 0) {
        all->small_lent_to = line->stream;
    }
    enter(all, line, TL_LINE_BODY);
    if (x->owes_continue) {
        tl_stream_wake(all->mux, line->stream);
    }
}

static void body_came(tl_exchanges *all, tl_line *line)
{
    tl_exchange_body(&line->exchange, line->parser.body);
    if (!collects(&line->exchange)) {
        enter(all, line, TL_LINE_BODY);
    }
}

static void take(tl_exchanges *all, tl_line *line, tl_http_result result)
{
    switch (result) {
    case TL_HTTP_MORE:
        if (line->phase == TL_LINE_IDLE && tl_http_busy(&line->parser)) {
            enter(all, line, TL_LINE_HEAD);
        }
        return;
    case TL_HTTP_HEAD:
        head_came(all, line);
        break;
    case TL_HTTP_BODY:
        body_came(all, line);
        break;
    case TL_HTTP_END:
        tl_exchange_body_over(&line->exchange);
        start_answer(all, line);
        return;
    case TL_HTTP_BAD:
        refuse(all, line, line->parser.status);
        return;
    }
    if (line->exchange.status != 0 && line->exchange.close) {
        start_answer(all, line); /* whatever else comes of this request is read by nobody */
    }
}

static bool reads(const tl_line *line)
{
    return line->phase == TL_LINE_IDLE || line->phase == TL_LINE_HEAD || line->phase == TL_LINE_BODY;
}

/* Reads what lies in the ring, until it is empty or an answer is due. */
static void read_on(tl_exchanges *all, tl_line *line)
{
    const tl_stream_ref stream = line->stream;
    while (reads(line)) {
        const tl_span in = tl_stream_peek(all->mux, stream);
        size_t taken;
        const tl_http_result result = tl_http_feed(&line->parser, in, &taken);
        take(all, line, result);
        tl_stream_consumed(all->mux, stream, taken);
        if (result == TL_HTTP_MORE && in.n == 0) {
            break;
        }
    }
    if (reads(line) && tl_stream_peer_finished(all->mux, stream)) {
        finish(all, line); /* half a request too: who wanted its answer is gone */
    }
}

/* --- what the tunnel's owner is told --- */

void tl_exchanges_open(tl_exchanges *all, tl_stream_ref stream, tl_grant *grant)
{
    if (!tl_stream_accept(all->mux, stream)) {
        return;
    }
    tl_line *line = &all->lines[tl_stream_index(stream)];
    *line = (tl_line){.stream = stream, .grant = grant};
    memcpy(line->grant_id, grant->id, TL_GRANT_ID);
    grant->streams++;
    tl_http_init(&line->parser);
    enter(all, line, TL_LINE_IDLE);
    read_on(all, line); /* what came before it was accepted is not told again */
}

void tl_exchanges_came(tl_exchanges *all, tl_stream_ref stream)
{
    tl_line *line = line_of(all, stream);
    if (line != NULL) {
        read_on(all, line);
    }
}

/* The answer is whole. */
static tl_fill next_request(tl_exchanges *all, tl_line *line)
{
    const bool close = line->exchange.close || all->draining;
    end_exchange(all, line);
    if (close) {
        enter(all, line, TL_LINE_LINGER);
        return TL_FILL_END;
    }
    enter(all, line, TL_LINE_IDLE);
    read_on(all, line);
    if (line->phase == TL_LINE_LINGER) {
        return TL_FILL_END;
    }
    return tl_exchange_may_fill(&line->exchange) ? TL_FILL_MORE : TL_FILL_AGAIN;
}

tl_fill tl_exchanges_fill(tl_exchanges *all, tl_stream_ref stream, tl_out *out)
{
    tl_line *line = line_of(all, stream);
    if (line == NULL) {
        return TL_FILL_AGAIN;
    }
    const size_t before = out->n;
    const tl_fill fill = tl_exchange_fill(&line->exchange, out);
    switch (fill) {
    case TL_FILL_BROKEN:
        release(all, line); /* the mux cuts it, and tells nobody */
        return fill;
    case TL_FILL_END:
        return next_request(all, line);
    case TL_FILL_MORE:
    case TL_FILL_AGAIN:
        if (line->phase == TL_LINE_ANSWER && out->n > before) {
            enter(all, line, TL_LINE_ANSWER);
        }
        break;
    }
    return fill;
}

void tl_exchanges_stream_over(tl_exchanges *all, tl_stream_ref stream)
{
    tl_line *line = line_of(all, stream);
    if (line != NULL) {
        release(all, line);
    }
}

/* --- all of them --- */

void tl_exchanges_end_grant(tl_exchanges *all, const uint8_t id[TL_GRANT_ID])
{
    for (uint32_t i = 0; i < tl_mux_max_streams(all->mux); i++) {
        tl_line *line = &all->lines[i];
        if (line->phase != TL_LINE_FREE && memcmp(line->grant_id, id, TL_GRANT_ID) == 0) {
            cut(all, line, TL_RESET_GRANT_ENDED);
        }
    }
}

void tl_exchanges_drain(tl_exchanges *all, uint64_t now_ms)
{
    all->now_ms = now_ms;
    all->draining = true;
    for (uint32_t i = 0; i < tl_mux_max_streams(all->mux); i++) {
        if (all->lines[i].phase == TL_LINE_IDLE) {
            finish(all, &all->lines[i]);
        }
    }
}

void tl_exchanges_wake(tl_exchanges *all)
{
    for (uint32_t i = 0; i < tl_mux_max_streams(all->mux); i++) {
        tl_stream_wake(all->mux, all->lines[i].stream); /* a stream that is over does not wake */
    }
}

uint64_t tl_exchanges_timer(const tl_exchanges *all)
{
    uint64_t first = TL_NEVER;
    for (uint32_t i = 0; i < tl_mux_max_streams(all->mux); i++) {
        const tl_line *line = &all->lines[i];
        if (line->phase != TL_LINE_FREE && line->deadline_ms < first) {
            first = line->deadline_ms;
        }
    }
    return first;
}

void tl_exchanges_on_timer(tl_exchanges *all, uint64_t now_ms)
{
    all->now_ms = now_ms;
    for (uint32_t i = 0; i < tl_mux_max_streams(all->mux); i++) {
        tl_line *line = &all->lines[i];
        if (line->phase == TL_LINE_FREE || now_ms < line->deadline_ms) {
            continue;
        }
        if (reads(line)) {
            refuse(all, line, REQUEST_TIMEOUT);
        } else {
            cut(all, line, TL_RESET_TIMEOUT);
        }
    }
}
