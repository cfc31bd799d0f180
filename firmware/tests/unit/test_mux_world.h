/* A device's mux with an owner who writes down what he is told. Time stands still until a test moves it. */
#ifndef TOWLINE_TEST_MUX_WORLD_H
#define TOWLINE_TEST_MUX_WORLD_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "towline/bytes.h"
#include "check.h"
#include "towline/mux.h"
#include "vectors.h"

enum { STREAMS = 4, WINDOW = 4096, MESSAGE = 2048 };

typedef struct {
    tl_mux mux;
    tl_stream streams[STREAMS];
    uint8_t rings[STREAMS * WINDOW];
    tl_service services[2];
    tl_hello hello;
    uint64_t now;

    char told[4096];            /* names of the events, each behind a comma; "over" is not among them */
    tl_stream_ref refs[1024];   /* by stream id */
    tl_stream_ref last_asked;
    char service[TL_MAX_NAME + 1];
    bool accept;                /* inside `requested` */
    tl_span to_send[STREAMS];   /* by slot */
    bool finish[STREAMS];       /* FIN behind it */
    bool broken;                /* the next fill is */
    size_t fills;               /* asked so far */
    size_t overs;
    tl_over how;                /* the last one ended */
    tl_reset_code reset_code;
    tl_close lost;
    size_t losses;
    uint32_t retry_after_ms;
    uint8_t nonce[TL_NONCE_SIZE];
    char server_name[TL_MAX_SERVER_NAME + 1];
    uint32_t peer_max_streams;
} world;

static inline void tell(world *w, const char *name)
{
    if (strlen(w->told) + strlen(name) + 2 < sizeof w->told) {
        strcat(w->told, ",");
        strcat(w->told, name);
    }
}

static inline void heard_challenge(void *owner, const uint8_t *nonce, tl_span server_name)
{
    world *w = owner;
    memcpy(w->nonce, nonce, sizeof w->nonce);
    memcpy(w->server_name, server_name.at, server_name.n);
    tell(w, "challenge");
}

static inline void heard_ready(void *owner, const tl_hello *peer)
{
    world *w = owner;
    w->peer_max_streams = peer->limits.max_streams;
    tell(w, "ready");
}

static inline void heard_grant(void *owner, const uint8_t *grant_id, tl_span token)
{
    (void)grant_id;
    (void)token;
    tell(owner, "grant");
}

static inline void heard_revoke(void *owner, const uint8_t *grant_id)
{
    (void)grant_id;
    tell(owner, "revoked");
}

static inline void heard_requested(void *owner, tl_stream_ref stream, const tl_open *open)
{
    world *w = owner;
    w->last_asked = stream;
    memcpy(w->service, open->service.at, open->service.n);
    w->refs[w->mux.peer_top_id % 1024] = stream;
    w->to_send[tl_stream_index(stream)] = (tl_span){NULL, 0};
    w->finish[tl_stream_index(stream)] = false;
    tell(w, "open");
    if (w->accept) {
        tl_stream_accept(&w->mux, stream);
    }
}

static inline void heard_data(void *owner, tl_stream_ref stream)
{
    (void)stream;
    tell(owner, "data");
}

static inline void heard_finished(void *owner, tl_stream_ref stream)
{
    (void)stream;
    tell(owner, "finished");
}

static inline tl_fill asked_to_fill(void *owner, tl_stream_ref stream, tl_out *out)
{
    world *w = owner;
    tl_span *left = &w->to_send[tl_stream_index(stream)];
    w->fills++;
    if (w->broken) {
        w->broken = false;
        tl_put_text(out, "half");
        return TL_FILL_BROKEN;
    }
    tl_put_span(out, tl_take(left, out->cap));
    if (left->n > 0) {
        return TL_FILL_MORE;
    }
    return w->finish[tl_stream_index(stream)] ? TL_FILL_END : TL_FILL_AGAIN;
}

static inline void heard_over(void *owner, tl_stream_ref stream, tl_over how, tl_reset_code code)
{
    world *w = owner;
    (void)stream;
    w->overs++;
    w->how = how;
    w->reset_code = code;
}

static inline void heard_goaway(void *owner, uint32_t retry_after_ms, tl_close_code code, tl_span reason)
{
    world *w = owner;
    (void)code;
    (void)reason;
    w->retry_after_ms = retry_after_ms;
    tell(w, "goaway");
}

static inline void heard_lost(void *owner, const tl_close *why)
{
    world *w = owner;
    w->lost = *why;
    w->losses++;
    tell(w, "lost");
}

static const tl_mux_events world_events = {
    heard_challenge, heard_ready,    heard_grant,   heard_revoke, heard_requested, heard_data,
    heard_finished,  asked_to_fill, heard_over, heard_goaway,    heard_lost,
};

static inline const vector_frame *frame_called(const char *name)
{
    for (size_t i = 0; i < vector_frames_count; i++) {
        if (strcmp(vector_frames[i].name, name) == 0) {
            return &vector_frames[i];
        }
    }
    fprintf(stderr, "no vector is called %s\n", name);
    exit(2);
}

/* The HELLO that a vector describes, as ours. */
static inline void hello_of(const vector_frame *vector, tl_hello *hello, tl_service services[2])
{
    *hello = (tl_hello){
        .limits = {vector->max_frame, vector->max_message, vector->stream_window, vector->connection_window,
                   vector->max_streams, vector->keepalive_ms},
        .features = tl_text(vector->features),
        .software = tl_text(vector->software),
        .services = services,
        .service_count = vector->service_count,
    };
    for (size_t i = 0; i < vector->service_count && i < 2; i++) {
        const vector_service *one = &vector->services[i];
        services[i] = (tl_service){tl_text(one->name), tl_text(one->kind), one->preserve, one->forwarded,
                                   tl_text(one->upstream)};
    }
}

/* From memory of exactly its size, so that a byte read beyond it is seen. */
static inline void receive(world *w, tl_span message)
{
    uint8_t *exact = malloc(message.n > 0 ? message.n : 1);
    if (message.n > 0) {
        memcpy(exact, message.at, message.n);
    }
    tl_mux_receive(&w->mux, (tl_span){exact, message.n}, w->now);
    free(exact);
}

/* All messages that may leave now, one behind the other; the size of the last in *last. */
static inline size_t leave(world *w, uint8_t *into, size_t cap, size_t *last)
{
    size_t all = 0;
    for (;;) {
        uint8_t *exact = malloc(MESSAGE);
        size_t n = tl_mux_next_message(&w->mux, exact, MESSAGE, w->now);
        if (n > 0 && all + n <= cap) {
            memcpy(into + all, exact, n);
        }
        free(exact);
        if (n == 0) {
            return all;
        }
        *last = n;
        all += n;
    }
}

static inline size_t leave_unseen(world *w)
{
    static uint8_t sink[1 << 18];
    size_t last = 0;
    return leave(w, sink, sizeof sink, &last);
}

/* With an owner of the test's own, who begins with a world. */
static inline void start_with(world *w, const tl_mux_events *events)
{
    memset(w, 0, sizeof *w);
    w->accept = true;
    hello_of(frame_called("hello of a small device"), &w->hello, w->services);
    const tl_mux_config config = {&w->hello, events, w, w->streams, w->rings, 0};
    tl_mux_init(&w->mux, &config, w->now);
}

static inline void start(world *w)
{
    start_with(w, &world_events);
}

static inline bool authenticate(world *w)
{
    const vector_auth *a = &vector_auth_case;
    return tl_mux_authenticate(&w->mux, tl_text(a->device), a->instance.at, a->key_id.at, a->signature.at);
}

static inline void shake_hands(world *w, tl_span server_hello)
{
    receive(w, frame_called("challenge")->raw);
    authenticate(w);
    receive(w, server_hello);
    leave_unseen(w);
    w->told[0] = '\0';
}

static inline void open_with(world *w, tl_span server_hello)
{
    start(w);
    shake_hands(w, server_hello);
}

static inline void open_world(world *w)
{
    open_with(w, frame_called("hello of a server")->raw);
}

static inline void come(world *w, tl_frame_type type, uint32_t stream, tl_span payload)
{
    static uint8_t raw[1 << 16];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_frame_put(&out, type, stream, payload);
    receive(w, (tl_span){raw, out.n});
}

static inline tl_stream_ref come_open(world *w, uint32_t stream)
{
    come(w, TL_OPEN, stream, (tl_span){frame_called("open")->raw.at + TL_HEADER_SIZE,
                                       frame_called("open")->raw.n - TL_HEADER_SIZE});
    return w->last_asked;
}

static inline void come_credit(world *w, uint32_t stream, uint64_t offset)
{
    uint8_t raw[8];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_u64(&out, offset);
    come(w, TL_CREDIT, stream, (tl_span){raw, out.n});
}

static inline void send_on(world *w, tl_stream_ref stream, tl_span bytes, bool finish)
{
    w->to_send[tl_stream_index(stream)] = bytes;
    w->finish[tl_stream_index(stream)] = finish;
    tl_stream_wake(&w->mux, stream);
}

/* Whether exactly these frames leave now. */
static inline bool leaves(world *w, tl_span wanted)
{
    static uint8_t sent[1 << 16];
    size_t last = 0;
    return tl_same((tl_span){sent, leave(w, sent, sizeof sent, &last)}, wanted);
}

#endif
