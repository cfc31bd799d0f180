/* The one queue of the POSIX port: many threads post, one takes. */
#include "queue.h"

#include <pthread.h>
#include <time.h>

#include "check.h"

enum { POSTERS = 4, EACH = 5000 };

typedef struct {
    tl_queue *queue;
    uint16_t who;
    bool all_taken;
} poster;

static uint64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000u + (uint64_t)now.tv_nsec / 1000000u;
}

static void *post_all(void *of)
{
    poster *p = of;
    p->all_taken = true;
    for (uint32_t i = 1; i <= EACH; i++) {
        const tl_event event = {.kind = TL_EVENT_MQTT_TAKEN, .status = p->who, .number = i};
        p->all_taken = tl_queue_post(p->queue, &event) && p->all_taken;
    }
    return NULL;
}

static void nothing_is_lost_or_overtaken(void)
{
    static tl_queue queue;
    poster posters[POSTERS];
    pthread_t threads[POSTERS];
    uint32_t last[POSTERS] = {0};
    tl_queue_init(&queue);
    for (uint16_t i = 0; i < POSTERS; i++) {
        posters[i] = (poster){&queue, i, false};
        CHECK(pthread_create(&threads[i], NULL, post_all, &posters[i]) == 0);
    }
    bool in_order = true;
    for (unsigned taken = 0; taken < POSTERS * EACH; taken++) {
        const tl_event event = tl_queue_wait(&queue, UINT32_MAX);
        in_order = in_order && event.status < POSTERS && event.number == last[event.status] + 1;
        last[event.status % POSTERS] = event.number;
    }
    CHECK(in_order);
    for (unsigned i = 0; i < POSTERS; i++) {
        pthread_join(threads[i], NULL);
        CHECK(posters[i].all_taken);
    }
    CHECK(tl_queue_wait(&queue, 0).kind == TL_EVENT_NONE);
    tl_queue_end(&queue);
}

static void fill(tl_queue *queue)
{
    for (uint32_t i = 0; i < TL_QUEUE_ENTRIES; i++) {
        CHECK(tl_queue_post(queue, &(tl_event){.kind = TL_EVENT_WEB_ROOM, .number = i}));
    }
}

static void who_finds_it_full_waits_so_long(void)
{
    static tl_queue queue;
    tl_queue_init(&queue);
    fill(&queue);
    const uint64_t began = now_ms();
    CHECK(!tl_queue_post(&queue, &(tl_event){.kind = TL_EVENT_STOP}));
    CHECK(now_ms() - began + 1 >= TL_QUEUE_PATIENCE_MS);
    for (uint32_t i = 0; i < TL_QUEUE_ENTRIES; i++) {
        CHECK(tl_queue_wait(&queue, 0).number == i);
    }
    CHECK(tl_queue_wait(&queue, 0).kind == TL_EVENT_NONE); /* what found no room was not posted */
    tl_queue_end(&queue);
}

static void *post_last(void *of)
{
    tl_queue_post_last(of, &(tl_event){.kind = TL_EVENT_LINK_CLOSED});
    return NULL;
}

static void a_last_word_waits_for_room(void)
{
    static tl_queue queue;
    pthread_t thread;
    tl_queue_init(&queue);
    fill(&queue);
    CHECK(pthread_create(&thread, NULL, post_last, &queue) == 0);
    for (uint32_t i = 0; i < TL_QUEUE_ENTRIES; i++) {
        tl_queue_wait(&queue, UINT32_MAX);
    }
    CHECK(tl_queue_wait(&queue, UINT32_MAX).kind == TL_EVENT_LINK_CLOSED);
    pthread_join(thread, NULL);
    tl_queue_end(&queue);
}

static void a_closed_queue_holds_nobody_up(void)
{
    static tl_queue queue;
    pthread_t thread;
    tl_queue_init(&queue);
    fill(&queue);
    CHECK(pthread_create(&thread, NULL, post_last, &queue) == 0);
    tl_queue_close(&queue);
    pthread_join(thread, NULL);
    CHECK(!tl_queue_post(&queue, &(tl_event){.kind = TL_EVENT_STOP}));
    tl_queue_end(&queue);
}

static void a_wait_ends_in_time(void)
{
    static tl_queue queue;
    tl_queue_init(&queue);
    const uint64_t began = now_ms();
    CHECK(tl_queue_wait(&queue, 20).kind == TL_EVENT_NONE);
    CHECK(now_ms() - began + 1 >= 20);
    tl_queue_end(&queue);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(nothing_is_lost_or_overtaken),   CHECK_TEST(who_finds_it_full_waits_so_long),
        CHECK_TEST(a_last_word_waits_for_room),     CHECK_TEST(a_closed_queue_holds_nobody_up),
        CHECK_TEST(a_wait_ends_in_time),
    };
    return CHECK_ALL(tests);
}
