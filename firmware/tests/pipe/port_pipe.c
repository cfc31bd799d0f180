/* The POSIX port's link, or its fetch, against whatever server a test has made: what it tells the core, a line each.
 *
 *     port-pipe link HOST PORT CA-FILE TIMES       dials so often, one after another; a message that comes closes it
 *     port-pipe fetch HOST PORT CA-FILE TIMES
 *
 * CA-FILE `-`: not over TLS.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fetch_lws.h"
#include "link_lws.h"

static tl_queue queue;
static tl_link line;
static tl_fetch fetch;
static uint8_t ca[4096];

static bool told(const tl_event *event)
{
    switch (event->kind) {
    case TL_EVENT_LINK_OPENED:
        printf("opened\n");
        return false;
    case TL_EVENT_LINK_MESSAGE:
        printf("message %zu\n", event->bytes.n);
        line.port.release(&line, event->bytes);
        line.port.close(&line, 1000, "enough");
        return false;
    case TL_EVENT_FETCH_HEAD:
        printf("head %u\n", event->status);
        return false;
    case TL_EVENT_FETCH_DATA:
        printf("data %zu\n", event->bytes.n);
        fetch.port.release(&fetch, event->bytes);
        return false;
    case TL_EVENT_FETCH_END:
        printf("end\n");
        return true;
    case TL_EVENT_LINK_CLOSED:
        printf("closed %u: %s\n", event->status, event->why);
        return true;
    default:
        printf("failed: %s\n", event->kind == TL_EVENT_FETCH_FAILED ? event->why : "nothing in time");
        return true;
    }
}

static void once(bool is_link, const tl_address *to)
{
    static const uint8_t body[] = "{\"a\": 1}";
    const tl_fetch_request request = {.to = *to, .method = "POST", .body = {body, sizeof body - 1}};
    if (is_link) {
        line.port.open(&line, to);
    } else {
        fetch.port.start(&fetch, &request);
    }
    for (bool over = false; !over;) {
        const tl_event event = tl_queue_wait(&queue, TL_LINK_DIAL_MS + TL_FETCH_STEP_MS);
        over = told(&event);
    }
}

int main(int argc, char **argv)
{
    if (argc != 6) {
        return EXIT_FAILURE;
    }
    FILE *file = strcmp(argv[4], "-") == 0 ? NULL : fopen(argv[4], "r");
    const size_t n = file != NULL ? fread(ca, 1, sizeof ca, file) : 0;
    const tl_address to = {
        .host = {(const uint8_t *)argv[2], strlen(argv[2])},
        .port = (uint16_t)atoi(argv[3]),
        .secure = file != NULL,
        .path = {(const uint8_t *)"/tunnel", 7},
        .ca = {ca, n},
    };
    if (file != NULL) {
        fclose(file);
    }
    tl_queue_init(&queue);
    tl_link_init(&line, &queue, 0);
    tl_fetch_init(&fetch, &queue);
    for (int i = 0; i < atoi(argv[5]); i++) {
        once(strcmp(argv[1], "link") == 0, &to);
    }
    tl_queue_close(&queue);
    tl_fetch_end(&fetch);
    tl_link_end(&line);
    tl_queue_end(&queue);
    return EXIT_SUCCESS;
}
