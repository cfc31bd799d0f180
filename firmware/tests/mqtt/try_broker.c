/* The port's MQTT group against a broker: try_broker HOST PORT CA CERTIFICATE KEY DEVICE; "-" for no file. Says what
 * happened: connected, taken, lost, silent (nothing within SILENT_MS); a connection is left at the end, and the time
 * that took in ms is said last. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mqtt_mosquitto.h"

enum { SILENT_MS = 3000, FILE_MAX = 8192 };

static tl_span text(const char *of)
{
    return (tl_span){(const uint8_t *)of, strlen(of)};
}

static tl_span file(const char *path, uint8_t *room)
{
    FILE *from = strcmp(path, "-") == 0 ? NULL : fopen(path, "rb");
    size_t n = 0;
    if (from != NULL) {
        n = fread(room, 1, FILE_MAX, from);
        fclose(from);
    }
    return (tl_span){room, n};
}

static long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (long)(now.tv_sec * 1000 + now.tv_nsec / 1000000);
}

static void say_something(tl_mqtt *m, tl_queue *queue, const char *device)
{
    char topic[200];
    snprintf(topic, sizeof topic, "o/s/esp32/%s/state", device);
    const uint32_t number = m->port.publish(m->port.with, text(topic), text("{}"), 1, false);
    const tl_event event = tl_queue_wait(queue, SILENT_MS);
    if (event.kind == TL_EVENT_MQTT_TAKEN && event.number == number) {
        puts("taken");
    }
}

int main(int argc, char **argv)
{
    static tl_queue queue;
    static tl_mqtt m;
    static uint8_t ca[FILE_MAX], certificate[FILE_MAX], key[FILE_MAX];
    if (argc != 7) {
        return 2;
    }
    tl_queue_init(&queue);
    tl_mqtt_init(&m, &queue);
    const tl_mqtt_session session = {
        .to = {.host = text(argv[1]), .port = (uint16_t)atoi(argv[2]), .secure = true, .ca = file(argv[3], ca)},
        .certificate = file(argv[4], certificate),
        .key = file(argv[5], key),
        .client_id = text(argv[6]),
        .will_topic = text("o/s/esp32/d/hello"),
        .will = text("{}"),
        .keepalive_s = 60,
    };
    if (!m.port.start(m.port.with, &session)) {
        puts("not started");
        return 0;
    }
    const tl_event event = tl_queue_wait(&queue, SILENT_MS);
    if (event.kind == TL_EVENT_MQTT_CONNECTED) {
        puts("connected");
        say_something(&m, &queue, argv[6]);
    } else {
        puts(event.kind == TL_EVENT_MQTT_LOST ? "lost" : "silent");
    }
    const long from = now_ms();
    m.port.stop(m.port.with);
    printf("%ld\n", now_ms() - from);
    fflush(stdout);
    tl_queue_close(&queue);
    tl_mqtt_end(&m);
    return 0;
}
