/* The message side of a device as a whole (docs/protocol/device-v1.md): one MQTT connection that is made again
 * whenever it ends, the outbox behind it, reports in their time, commands and the configuration.
 *
 * Bytes and events in, calls of the port out; it never waits. It asks for the broker's address (`tl_messages_asks`),
 * and the owner asks the gateway and tells it with `tl_messages_broker`.
 */
#ifndef TOWLINE_MESSAGES_H
#define TOWLINE_MESSAGES_H

#include "towline/command.h"
#include "towline/configuration.h"
#include "towline/log_ring.h"
#include "towline/reconnect.h"
#include "towline/sending.h"
#include "towline/telemetry.h"

#define TL_HELLO_FIRST_MS 5000u
#define TL_HELLO_MAX_MS 60000u    /* the pipeline may be away while the broker is there */
#define TL_HEALTH_EVERY_S 60u     /* nothing heard for 150 s: the platform calls a device offline */
#define TL_READINGS_EVERY_S 60u
#define TL_ASK_AGAIN_AFTER 3u     /* failures: the broker may have moved, or the password ended */
#define TL_MQTT_KEEPALIVE_S 60u   /* of 300 that may be: what a NAT forgets is found sooner */
/* Messages that the broker has not taken yet: each is held in the MQTT client's memory until then. */
#define TL_UNTAKEN_MAX 4u
#define TL_PUBLISH_AGAIN_MS 500u  /* after the client said not now */
#define TL_SETTLE_MS 1000u        /* from an address on the network to the first dial: routes and names follow it */

/* All of it stays where it is until another one is told. */
typedef struct {
    tl_address to;
    tl_span certificate, key; /* PEM; empty where the broker asks for a password */
    tl_span password;         /* empty: none */
    tl_span device, prefix;
} tl_broker;

typedef struct {
    const tl_port *port;
    tl_log_ring *log;
    const char *software, *type;
    const tl_command_work *work;
    /* Another configuration is in force; what it leaves open is as the device's settings say. */
    void (*configured)(void *device, const tl_config_values *);
    void *device;
    uint16_t first_sector, sectors; /* of the flash: the outbox */
} tl_messages_parts;

typedef enum {
    TL_MESSAGES_OFF,
    TL_MESSAGES_ASKING, /* for the broker's address */
    TL_MESSAGES_WAITING,
    TL_MESSAGES_CONNECTING,
    TL_MESSAGES_UP
} tl_messages_state;

typedef struct {
    tl_messages_parts parts;
    tl_broker broker;
    uint8_t state; /* a tl_messages_state */
    uint8_t failures, untaken;
    bool network, may_dial, has_broker, answered;
    uint16_t report_s; /* of readings, where the configuration says nothing */
    uint8_t readings_from; /* the first that the report under way has not told yet */
    char instance[25];
    uint64_t dial_at; /* while connecting: when it is given up */
    uint64_t hello_at, health_at, readings_at, publish_at;
    uint64_t greeted_boot; /* that the last hello told; UINT64_MAX: none on this connection */
    uint32_t hello_every_ms;
    tl_reconnect reconnect;
    tl_outbox outbox;
    tl_sending sending;
    tl_ledger ledger;
    tl_commands commands;
    tl_configuration configuration;
    tl_telemetry telemetry;
    tl_sensors sensors;
    uint8_t text[TL_MESSAGE_MAX];
} tl_messages;

/* Reads what was kept. False: the outbox cannot be used, and nothing is said. */
bool tl_messages_open(tl_messages *, const tl_messages_parts *);
/* The device is enrolled: it may be connected from now on. */
void tl_messages_start(tl_messages *);
/* Says goodbye; what waits stays in the outbox. */
void tl_messages_stop(tl_messages *);
/* Who and where changed (a renewed certificate, another gateway): connect anew. */
void tl_messages_reconnect(tl_messages *);
/* Whether it may begin to dial: one TLS handshake at a time. True at first. */
void tl_messages_may_dial(tl_messages *, bool may);
/* It waits for the broker's address. */
bool tl_messages_asks(const tl_messages *);
/* The gateway's answer; NULL: there was none, or it names no broker. */
void tl_messages_broker(tl_messages *, const tl_broker *);
/* MQTT_* and NETWORK_*; gives back what the port lent. */
void tl_messages_event(tl_messages *, const tl_event *);
/* Does what is due; when it wants to be called again. */
uint64_t tl_messages_run(tl_messages *);

/* One sample of a measured number, value / 10^decimals. */
bool tl_messages_measured(tl_messages *, const char *name, int32_t value, uint8_t decimals);
/* What the device is now (kind STATE), or what happened (kind EVENT, `type` its name): a JSON object. False: it is not
 * kept. */
bool tl_messages_say(tl_messages *, tl_kind kind, const char *type, tl_span payload);

#endif
