#include "queue.h"

#include <string.h>
#include <time.h>

void tl_queue_init(tl_queue *queue)
{
    memset(queue, 0, sizeof *queue);
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->filled, &monotonic);
    pthread_cond_init(&queue->emptied, &monotonic);
    pthread_condattr_destroy(&monotonic);
}

void tl_queue_end(tl_queue *queue)
{
    pthread_cond_destroy(&queue->emptied);
    pthread_cond_destroy(&queue->filled);
    pthread_mutex_destroy(&queue->lock);
}

static struct timespec in_ms(uint32_t ms)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_sec += (time_t)(ms / 1000u);
    at.tv_nsec += (long)(ms % 1000u) * 1000000L;
    if (at.tv_nsec >= 1000000000L) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000L;
    }
    return at;
}

static bool post(tl_queue *queue, const tl_event *event, const struct timespec *until)
{
    pthread_mutex_lock(&queue->lock);
    int waited = 0;
    while (!queue->closed && queue->count == TL_QUEUE_ENTRIES && waited == 0) {
        waited = until != NULL ? pthread_cond_timedwait(&queue->emptied, &queue->lock, until)
                               : pthread_cond_wait(&queue->emptied, &queue->lock);
    }
    const bool room = !queue->closed && queue->count < TL_QUEUE_ENTRIES;
    if (room) {
        queue->entry[(queue->first + queue->count++) % TL_QUEUE_ENTRIES] = *event;
        pthread_cond_signal(&queue->filled);
    }
    pthread_mutex_unlock(&queue->lock);
    return room;
}

bool tl_queue_post(tl_queue *queue, const tl_event *event)
{
    const struct timespec until = in_ms(TL_QUEUE_PATIENCE_MS);
    return post(queue, event, &until);
}

void tl_queue_post_last(tl_queue *queue, const tl_event *event)
{
    post(queue, event, NULL);
}

tl_event tl_queue_wait(tl_queue *queue, uint32_t ms)
{
    const struct timespec until = in_ms(ms == UINT32_MAX ? 0 : ms);
    tl_event event = {.kind = TL_EVENT_NONE};
    pthread_mutex_lock(&queue->lock);
    int waited = 0;
    while (queue->count == 0 && waited == 0) {
        waited = ms == UINT32_MAX ? pthread_cond_wait(&queue->filled, &queue->lock)
                                  : pthread_cond_timedwait(&queue->filled, &queue->lock, &until);
    }
    if (queue->count > 0) {
        event = queue->entry[queue->first];
        queue->first = (queue->first + 1) % TL_QUEUE_ENTRIES;
        queue->count--;
        pthread_cond_signal(&queue->emptied);
    }
    pthread_mutex_unlock(&queue->lock);
    return event;
}

void tl_queue_close(tl_queue *queue)
{
    pthread_mutex_lock(&queue->lock);
    queue->closed = true;
    pthread_cond_broadcast(&queue->emptied);
    pthread_mutex_unlock(&queue->lock);
}
