/* The device's mux at the end of a pipe, so that another machine can be joined to it: tests/firmware/core_pipe.py.
 *
 * A step: op u8, length u32, payload. Its answer: records of kind u8, length u32, payload; one of kind 0 ends it.
 * All memory is of its exact size, so that the sanitizers see a byte that is read or written beside it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "towline/bytes.h"
#include "towline/mux.h"

enum { STEP_MAX = 1 << 20 };

/* What waits to be sent on one stream. */
typedef struct {
    uint8_t *bytes;
    size_t n;
    bool finish;
} waiting;

static tl_mux mux;
static tl_hello hello;
static tl_stream *streams;
static uint8_t *rings;
static waiting *sending; /* by slot */
static uint32_t slots;
static uint64_t now;

static void stop(const char *why)
{
    fprintf(stderr, "core-pipe: %s\n", why);
    exit(2);
}

static void *memory(size_t n)
{
    void *block = calloc(1, n > 0 ? n : 1);
    if (block == NULL) {
        stop("no memory");
    }
    return block;
}

/* --- records --- */

static void record(char kind, tl_span payload)
{
    uint8_t head[5];
    tl_out out = {head, 0, sizeof head, false};
    tl_put_u8(&out, (uint8_t)kind);
    tl_put_u32(&out, (uint32_t)payload.n);
    const bool head_left = fwrite(head, 1, out.n, stdout) == out.n;
    if (!head_left || (payload.n > 0 && fwrite(payload.at, 1, payload.n, stdout) != payload.n)) {
        stop("nobody reads");
    }
}

static void record_numbers(char kind, uint32_t one, uint32_t other)
{
    uint8_t raw[8];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_u32(&out, one);
    tl_put_u32(&out, other);
    record(kind, (tl_span){raw, out.n});
}

/* --- the mux's events --- */

static uint32_t id_of(tl_stream_ref ref)
{
    return streams[tl_stream_index(ref)].id;
}

static void forget(tl_stream_ref ref)
{
    waiting *out = &sending[tl_stream_index(ref)];
    free(out->bytes);
    *out = (waiting){NULL, 0, false};
}

static void on_challenge(void *owner, const uint8_t *nonce, tl_span server_name)
{
    static const uint8_t instance[TL_INSTANCE_SIZE] = "instance-instan", key_id[TL_KEY_ID_SIZE] = "key-id--key-id-";
    static const uint8_t signature[TL_SIGNATURE_SIZE] = "signature";
    (void)owner;
    (void)nonce;
    record('c', server_name);
    if (!tl_mux_authenticate(&mux, tl_text("device"), instance, key_id, signature)) {
        stop("AUTH was not taken");
    }
}

static void on_ready(void *owner, const tl_hello *peer)
{
    (void)owner;
    record('h', peer->software);
}

static void on_grant(void *owner, const uint8_t *id, tl_span token)
{
    (void)owner;
    (void)id;
    record('g', token);
}

static void on_revoke(void *owner, const uint8_t *id)
{
    (void)owner;
    record('k', (tl_span){id, TL_GRANT_ID_SIZE});
}

static void on_requested(void *owner, tl_stream_ref ref, const tl_open *open)
{
    (void)owner;
    (void)open;
    forget(ref);
    record_numbers('o', id_of(ref), 0);
}

static void take(tl_stream_ref ref, size_t most)
{
    uint8_t id[4];
    tl_out out = {id, 0, sizeof id, false};
    tl_put_u32(&out, id_of(ref));
    tl_span piece;
    while (most > 0 && (piece = tl_stream_peek(&mux, ref)).n > 0) {
        piece.n = piece.n < most ? piece.n : most;
        record('i', (tl_span){id, sizeof id}); /* whose the bytes behind it are */
        record('b', piece);
        tl_stream_consumed(&mux, ref, piece.n);
        most -= piece.n;
    }
}

/* Once both sides have finished, nothing can be taken any more: who has finished takes at once. */
static void on_data(void *owner, tl_stream_ref ref)
{
    (void)owner;
    record_numbers('d', id_of(ref), 0);
    if (sending[tl_stream_index(ref)].finish) {
        take(ref, SIZE_MAX);
    }
}

static void on_finished(void *owner, tl_stream_ref ref)
{
    (void)owner;
    record_numbers('f', id_of(ref), 0);
}

static tl_fill on_fill(void *owner, tl_stream_ref ref, tl_out *out)
{
    waiting *from = &sending[tl_stream_index(ref)];
    const size_t n = from->n < out->cap - out->n ? from->n : out->cap - out->n;
    (void)owner;
    if (n > 0) {
        tl_put(out, from->bytes, n);
        from->n -= n;
        memmove(from->bytes, from->bytes + n, from->n);
    }
    if (from->n > 0) {
        return TL_FILL_MORE;
    }
    return from->finish ? TL_FILL_END : TL_FILL_AGAIN;
}

static void on_over(void *owner, tl_stream_ref ref, tl_over how, tl_reset_code code)
{
    (void)owner;
    record_numbers('v', id_of(ref), how == TL_OVER_RESET ? 100u + (uint32_t)code : (uint32_t)how);
}

static void on_goaway(void *owner, uint32_t retry_after_ms, tl_close_code code, tl_span reason)
{
    (void)owner;
    (void)reason;
    record_numbers('y', retry_after_ms, code);
}

static void on_lost(void *owner, const tl_close *why)
{
    (void)owner;
    record_numbers('l', why->fault, why->has_code ? why->code : UINT32_MAX);
}

static const tl_mux_events events = {
    on_challenge, on_ready, on_grant, on_revoke, on_requested, on_data,
    on_finished,  on_fill,  on_over,  on_goaway, on_lost,
};

/* --- steps --- */

static void end(void)
{
    for (uint32_t i = 0; i < slots; i++) {
        free(sending[i].bytes);
    }
    free(streams);
    free(rings);
    free(sending);
    slots = 0;
}

static void begin(const uint8_t *at)
{
    end();
    hello = (tl_hello){.limits = {tl_u32(at), tl_u32(at + 4), tl_u32(at + 8), tl_u32(at + 12), tl_u32(at + 16),
                                  tl_u32(at + 20)},
                       .software = tl_text("core-pipe")};
    const tl_limits *limits = &hello.limits;
    if (limits->max_streams > TL_MAX_STREAMS) {
        stop("too many streams");
    }
    streams = memory(limits->max_streams * sizeof *streams);
    rings = memory((size_t)limits->max_streams * limits->stream_window);
    sending = memory(limits->max_streams * sizeof *sending);
    slots = limits->max_streams;
    now = 0;
    const tl_mux_config config = {&hello, &events, NULL, streams, rings, 0};
    tl_mux_init(&mux, &config, now);
}

static tl_stream_ref with_id(uint32_t id)
{
    for (uint32_t i = 0; i < tl_mux_max_streams(&mux); i++) {
        if (streams[i].state != TL_STREAM_FREE && streams[i].id == id) {
            return streams[i].ref;
        }
    }
    return 0;
}

static void send_on(tl_stream_ref ref, tl_span bytes)
{
    waiting *out = &sending[tl_stream_index(ref)];
    uint8_t *grown = realloc(out->bytes, out->n + bytes.n);
    if (grown == NULL) {
        stop("no memory");
    }
    out->bytes = grown;
    memcpy(out->bytes + out->n, bytes.at, bytes.n);
    out->n += bytes.n;
    tl_stream_wake(&mux, ref);
}

static void finish(tl_stream_ref ref)
{
    waiting *out = &sending[tl_stream_index(ref)];
    out->finish = true;
    take(ref, SIZE_MAX);
    if (out->n == 0) {
        tl_stream_finish(&mux, ref);
    }
}

static void leave(uint32_t cap, uint32_t number)
{
    while (number-- > 0) {
        uint8_t *message = memory(cap);
        const size_t n = tl_mux_next_message(&mux, message, cap, now);
        if (n > 0) {
            record('m', (tl_span){message, n});
        }
        free(message);
        if (n == 0) {
            return;
        }
    }
}

static void step_on_stream(char op, tl_span payload)
{
    const tl_stream_ref ref = with_id(tl_u32(tl_take(&payload, 4).at));
    if (ref == 0) {
        return; /* it ended without the other side knowing that yet */
    }
    switch (op) {
    case 'A':
        tl_stream_accept(&mux, ref);
        /* What came before is told to nobody again. */
        if (tl_stream_peer_finished(&mux, ref)) {
            record_numbers('f', id_of(ref), 0);
        }
        break;
    case 'X':
        tl_stream_refuse(&mux, ref, TL_REFUSED_UNREACHABLE, "no");
        break;
    case 'S':
        send_on(ref, payload);
        break;
    case 'F':
        finish(ref);
        break;
    case 'Z':
        tl_stream_reset(&mux, ref, TL_RESET_CANCELLED);
        break;
    case 'T':
        take(ref, tl_u32(payload.at));
        break;
    default:
        stop("what step is that?");
    }
}

static void step(char op, tl_span payload)
{
    switch (op) {
    case 'I':
        begin(payload.at);
        break;
    case 'R':
        tl_mux_receive(&mux, payload, now);
        break;
    case 'L':
        leave(tl_u32(payload.at), tl_u32(payload.at + 4));
        break;
    case 'N':
        now = tl_u64(payload.at);
        tl_mux_on_timer(&mux, now);
        break;
    case 'D':
        tl_mux_drain(&mux, "drain");
        break;
    case 'C':
        tl_mux_link_closed(&mux, (uint16_t)tl_u32(payload.at));
        break;
    default:
        step_on_stream(op, payload);
    }
}

/* False at the input's end. */
static bool next_step(void)
{
    uint8_t head[5];
    if (fread(head, 1, sizeof head, stdin) != sizeof head) {
        return false;
    }
    const size_t n = tl_u32(head + 1);
    if (n > STEP_MAX) {
        stop("a step is too long");
    }
    uint8_t *payload = memory(n);
    if (fread(payload, 1, n, stdin) != n) {
        stop("a step is cut short");
    }
    step((char)head[0], (tl_span){payload, n});
    free(payload);
    record(0, (tl_span){NULL, 0});
    if (fflush(stdout) != 0) {
        stop("nobody reads");
    }
    return true;
}

int main(void)
{
    while (next_step()) {
    }
    end();
    return 0;
}
