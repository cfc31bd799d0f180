/* The port's fetch group by libwebsockets: a thread for each request. */
#ifndef TOWLINE_POSIX_FETCH_LWS_H
#define TOWLINE_POSIX_FETCH_LWS_H

#include "lws_context.h"
#include "queue.h"

#define TL_FETCH_PIECE 1024u
#define TL_FETCH_BEARER_MAX 256u
#define TL_FETCH_WHY_MAX 96u

typedef struct {
    tl_port_fetch port;
    tl_queue *queue;
    /* Of the request; by its thread alone. */
    tl_lws_address to;
    char method[8];
    char bearer[TL_FETCH_BEARER_MAX];
    tl_span body;
    size_t body_sent;
    bool over, whole;
    const char *why;
    char error[TL_FETCH_WHY_MAX];
    lws_sorted_usec_list_t step, all;
    size_t n; /* of the piece */
    uint8_t piece[TL_FETCH_PIECE];
    uint8_t raw[LWS_PRE + TL_FETCH_PIECE];
    /* Both sides', under the lock. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t thread;
    bool has_thread, under_way, lent, stopping;
    uint32_t number;
    struct lws_context *context;
} tl_fetch;

void tl_fetch_init(tl_fetch *, tl_queue *);
/* The queue was closed: ends the request, if there is one. */
void tl_fetch_end(tl_fetch *);

#endif
