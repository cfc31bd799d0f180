/* The one queue through which everything that happens reaches the core: fixed entries, many posters, one taker. */
#ifndef TOWLINE_POSIX_QUEUE_H
#define TOWLINE_POSIX_QUEUE_H

#include <pthread.h>

#include "towline_port.h"

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t filled, emptied;
    tl_event entry[TL_QUEUE_ENTRIES];
    unsigned first, count;
    bool closed;
} tl_queue;

void tl_queue_init(tl_queue *);
/* Waits for room for TL_QUEUE_PATIENCE_MS at most. False: there was none, or the queue is closed; nothing was
 * posted. Never from the core's thread. */
bool tl_queue_post(tl_queue *, const tl_event *);
/* The last word of a connection: waits for room until there is some, or the queue is closed. */
void tl_queue_post_last(tl_queue *, const tl_event *);
/* Waits for `ms` at most; UINT32_MAX: for ever. TL_EVENT_NONE: nothing came. */
tl_event tl_queue_wait(tl_queue *, uint32_t ms);
/* Nobody takes any more: all who wait for room go on. */
void tl_queue_close(tl_queue *);
void tl_queue_end(tl_queue *);

#endif
