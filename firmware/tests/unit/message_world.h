/* A device's message side between a port of memory and a platform that follows the protocol: for tests. */
#ifndef TOWLINE_MESSAGE_WORLD_H
#define TOWLINE_MESSAGE_WORLD_H

#include "device_model.h"
#include "memory_flash.h"
#include "memory_kv.h"
#include "towline/bytes.h"
#include "towline/messages.h"

#include <stdio.h>

#define PREFIX "o_1/s_1/esp32/d_1"
#define SECTORS FLASH_SECTORS

enum { SAID_MAX = 400, SAID_BYTES = 1400 };

typedef struct {
    tl_kind kind;
    size_t n;
    uint8_t bytes[SAID_BYTES];
} said_message;

/* Everything is static in its tests: the message side alone has 10 KB. */
typedef struct {
    tl_messages messages;
    tl_log_ring log;
    memory_flash flash;
    memory_kv kv;
    uint64_t now_ms;
    int64_t wall_s;
    uint32_t chance;
    bool holds_taken;   /* the broker says nothing of what it has */
    bool takes_nothing; /* publish says not now */
    bool running;       /* between start and stop */
    tl_span subscribed[3];
    unsigned starts, stops, subscriptions, reboots, identified, configured, lent;
    uint32_t number;
    tl_config_values config;
    tl_log_level level;
    const char *update_says; /* what the device says to an update */
    unsigned updates, updates_stopped;
    tl_update_outcome outcome;
    char will_topic[TL_TOPIC_MAX + 1], will[512], username[80], password[80];
    said_message said[SAID_MAX]; /* since `forget` */
    size_t said_count;
    unsigned taken; /* of these the device was told */
    tl_port_sys sys;
    tl_port_mqtt mqtt;
    tl_port_network network;
    tl_crypto crypto;
    tl_port port;
} message_world;

static message_world *world_of_random; /* the crypto group bears no owner */

static inline uint64_t world_now(void *with)
{
    return ((message_world *)with)->now_ms;
}

static inline int64_t world_wall(void *with)
{
    const message_world *w = with;
    return w->wall_s < 0 ? -1 : w->wall_s + (int64_t)(w->now_ms / 1000);
}

static inline void world_log(void *with, tl_log_level level, tl_span text)
{
    (void)with, (void)level, (void)text;
}

static inline void world_memory(void *with, tl_memory *memory)
{
    (void)with;
    *memory = (tl_memory){150000, 120000, 60000};
}

static inline void world_reboot(void *with)
{
    ((message_world *)with)->reboots++;
}

static inline bool world_start(void *with, const tl_mqtt_session *session)
{
    message_world *w = with;
    w->starts++;
    w->running = true;
    w->subscriptions = 0;
    snprintf(w->will_topic, sizeof w->will_topic, "%.*s", (int)session->will_topic.n, (const char *)session->will_topic.at);
    snprintf(w->will, sizeof w->will, "%.*s", (int)session->will.n, (const char *)session->will.at);
    snprintf(w->username, sizeof w->username, "%.*s", (int)session->username.n, (const char *)session->username.at);
    snprintf(w->password, sizeof w->password, "%.*s", (int)session->password.n, (const char *)session->password.at);
    return true;
}

static inline bool world_subscribe(void *with, tl_span topic)
{
    message_world *w = with;
    static const tl_kind heard[] = {TL_KIND_CMD, TL_KIND_CONFIG, TL_KIND_ACCEPTED};
    return w->running && tl_topic_kind(topic, NULL) == heard[w->subscriptions++ % 3];
}

static inline uint32_t world_publish(void *with, tl_span topic, tl_span payload, uint8_t qos, bool retain)
{
    message_world *w = with;
    tl_span prefix;
    const tl_kind kind = tl_topic_kind(topic, &prefix);
    if (w->takes_nothing || !w->running || qos != 1 || retain || w->said_count == SAID_MAX ||
        payload.n > SAID_BYTES || !tl_is(prefix, PREFIX)) {
        return 0;
    }
    said_message *said = &w->said[w->said_count++];
    *said = (said_message){.kind = kind, .n = payload.n};
    memcpy(said->bytes, payload.at, payload.n);
    return ++w->number;
}

static inline void world_release(void *with, tl_span message)
{
    (void)message;
    ((message_world *)with)->lent--;
}

static inline void world_stop(void *with)
{
    message_world *w = with;
    w->running = false;
    w->stops++;
}

static inline bool world_rssi(void *with, int8_t *dbm)
{
    (void)with;
    *dbm = -61;
    return true;
}

static inline void world_random(uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        world_of_random->chance = world_of_random->chance * 1664525u + 1013904223u;
        to[i] = (uint8_t)(world_of_random->chance >> 24);
    }
}

static inline void world_identify(void *device)
{
    ((message_world *)device)->identified++;
}

static inline tl_log_level world_log_level(void *device, tl_log_level level)
{
    message_world *w = device;
    const tl_log_level was = w->level;
    w->level = level;
    return was;
}

static inline const char *world_update(void *device, const tl_update *update)
{
    message_world *w = device;
    w->updates += update->url_n > 0 && update->size > 0;
    return w->update_says;
}

static inline void world_stop_update(void *device)
{
    ((message_world *)device)->updates_stopped++;
}

static inline tl_update_outcome world_updated(void *device)
{
    return ((message_world *)device)->outcome;
}

static inline void world_configured(void *device, const tl_config_values *values)
{
    message_world *w = device;
    w->config = *values;
    w->configured++;
}

static const tl_command_work world_work = {world_identify, world_log_level, world_update, world_stop_update,
                                           world_updated};

/* The device starts; what it kept is there. */
static inline bool world_boot(message_world *w)
{
    w->flash.dark = false;
    w->flash.cut_at = 0;
    w->running = false;
    w->now_ms = 1;
    kv_restart(&w->kv);
    world_of_random = w;
    const tl_messages_parts parts = {.port = &w->port, .log = &w->log, .software = "firmware 1.2.3", .type = "esp32",
                                     .work = &world_work, .configured = world_configured, .device = w,
                                     .sectors = SECTORS};
    tl_log_init(&w->log, &w->sys, TL_LOG_DEBUG);
    if (!tl_messages_open(&w->messages, &parts)) {
        return false;
    }
    tl_messages_start(&w->messages);
    tl_messages_event(&w->messages, &(tl_event){.kind = TL_EVENT_NETWORK_UP});
    return true;
}

static inline void world_init(message_world *w)
{
    memset(w, 0, sizeof *w);
    w->wall_s = 1763000000;
    w->level = TL_LOG_INFO;
    flash_init(&w->flash, SECTORS, 0);
    kv_init(&w->kv);
    w->sys = (tl_port_sys){.with = w, .now_ms = world_now, .wall_s = world_wall, .log = world_log,
                           .memory = world_memory, .reboot = world_reboot};
    w->mqtt = (tl_port_mqtt){w, world_start, world_subscribe, world_publish, world_release, world_stop};
    w->network = (tl_port_network){.with = w, .rssi = world_rssi};
    w->crypto = (tl_crypto){.random = world_random};
    w->port = (tl_port){.crypto = &w->crypto, .sys = &w->sys, .mqtt = &w->mqtt, .kv = &w->kv.port,
                        .flash = &w->flash.port, .network = &w->network};
}

static inline void world_tell_broker(message_world *w)
{
    const tl_broker broker = {.device = tl_text("d_1"), .prefix = tl_text(PREFIX), .password = tl_text("secret")};
    tl_messages_broker(&w->messages, &broker);
}

/* Runs until nothing is due any more now; what the broker takes is told. */
static inline void world_turn(message_world *w)
{
    for (int turns = 0; turns < 1000; turns++) {
        const uint64_t due = tl_messages_run(&w->messages);
        bool news = false;
        while (!w->holds_taken && w->taken < w->said_count) {
            w->taken++;
            news = true;
            tl_messages_event(&w->messages, &(tl_event){.kind = TL_EVENT_MQTT_TAKEN, .number = w->taken});
        }
        if (due > w->now_ms && !news) {
            return;
        }
    }
}

static inline void world_pass(message_world *w, uint64_t ms)
{
    const uint64_t until = w->now_ms + ms;
    for (;;) {
        world_turn(w);
        const uint64_t due = tl_messages_run(&w->messages);
        if (due > until) {
            w->now_ms = until;
            world_turn(w);
            return;
        }
        w->now_ms = due > w->now_ms ? due : w->now_ms + 1;
    }
}

static inline void world_event(message_world *w, tl_event_kind kind)
{
    tl_messages_event(&w->messages, &(tl_event){.kind = (uint8_t)kind, .why = "cut"});
}

/* Up to the hello on a connection. */
static inline void world_connect(message_world *w)
{
    for (int i = 0; i < 10 && !w->running; i++) {
        world_pass(w, 61000);
        if (tl_messages_asks(&w->messages)) {
            world_tell_broker(w);
        }
        world_turn(w);
    }
    world_event(w, TL_EVENT_MQTT_CONNECTED);
    world_turn(w);
}

static inline void world_tell(message_world *w, const char *kind, const char *text)
{
    char topic[64];
    snprintf(topic, sizeof topic, PREFIX "/%s", kind);
    /* A copy of its own: who reads beyond it is found out. */
    static uint8_t lent[10000];
    const size_t n = strlen(text);
    memcpy(lent, text, n);
    w->lent++;
    tl_messages_event(&w->messages, &(tl_event){.kind = TL_EVENT_MQTT_MESSAGE, .topic = tl_text(topic), .bytes = {lent, n}});
    world_turn(w);
}

static inline void world_forget(message_world *w)
{
    w->said_count = w->taken = 0;
}

static inline void world_answer_hello(message_world *w, tl_number known)
{
    char text[200];
    snprintf(text, sizeof text, "{\"v\":1,\"hello\":%llu,\"boot\":%llu,\"seq\":%llu,\"time\":1763000000000,\"prefix\":\"%s\"}",
             (unsigned long long)tl_outbox_boot(&w->messages.outbox), (unsigned long long)known.boot,
             (unsigned long long)known.seq, PREFIX);
    world_tell(w, "accepted", text);
}

static inline void world_accept(message_world *w, tl_number number)
{
    char text[100];
    snprintf(text, sizeof text, "{\"v\":1,\"boot\":%llu,\"seq\":%llu}", (unsigned long long)number.boot,
             (unsigned long long)number.seq);
    world_tell(w, "accepted", text);
}

/* How many were said of a kind; `last` is set to the last of them. */
static inline unsigned world_said(const message_world *w, tl_kind kind, tl_json *last)
{
    unsigned count = 0;
    for (size_t i = 0; i < w->said_count; i++) {
        if (w->said[i].kind == kind) {
            count++;
            if (tl_json_check((tl_span){w->said[i].bytes, w->said[i].n}, last) != TL_JSON_FINE) {
                return 0;
            }
        }
    }
    return count;
}

#endif
