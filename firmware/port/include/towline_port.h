/* What the firmware's core asks of the machine it runs on, and what the machine tells the core.
 *
 * The core runs in one task and owns no thread, socket, file or clock. It calls the functions below; none of them
 * waits for a network. What happens elsewhere comes as an event through one bounded queue. Bulk bytes stay in the
 * port's own few buffers: an event lends one, and the core gives it back, so a slow core slows its senders and
 * nothing piles up.
 *
 * `with` is the group's own, handed back to it in every call. A span that is given to a function is used before
 * it returns, unless it says otherwise.
 */
#ifndef TOWLINE_PORT_H
#define TOWLINE_PORT_H

#include "towline/crypto.h"
#include "towline/span.h"
#include "towline/stream_fill.h"

/* --- events --- */

#define TL_QUEUE_ENTRIES 24u   /* every port's buffers in use at once make fewer */
#define TL_QUEUE_PATIENCE_MS 5000u /* a full queue holds its poster up for so long; then his connection ends */

typedef enum {
    TL_EVENT_NONE, /* the wait ended by its time */
    TL_EVENT_STOP, /* the program is asked to end; a chip has none */
    TL_EVENT_NETWORK_UP,
    TL_EVENT_NETWORK_DOWN,
    /* `number`: the link's, of `open`; those of an older link are old news. */
    TL_EVENT_LINK_OPENED,
    TL_EVENT_LINK_MESSAGE,  /* `bytes`: whole, lent until link.release */
    TL_EVENT_LINK_WRITABLE, /* after `take` said no */
    TL_EVENT_LINK_CLOSED,   /* the last one; `status`: WebSocket's, 0 where there was none; `why`: for the log */
    TL_EVENT_MQTT_CONNECTED,
    TL_EVENT_MQTT_MESSAGE, /* `topic`, `bytes`: lent until mqtt.release */
    TL_EVENT_MQTT_TAKEN,   /* `number`: publish's: the broker has it */
    TL_EVENT_MQTT_LOST,    /* `why`; the port does not connect again by itself */
    /* `number`: the fetch's, of `start`. */
    TL_EVENT_FETCH_HEAD,   /* `status`; `length`: of the body, TL_LENGTH_NOT_TOLD */
    TL_EVENT_FETCH_DATA,   /* `bytes`: lent until fetch.release; no more comes before that */
    TL_EVENT_FETCH_END,
    TL_EVENT_FETCH_FAILED, /* `why` */
    /* `number`: the request's, a tl_web_ref. */
    TL_EVENT_WEB_REQUEST,   /* `bytes`: its head as HTTP/1.1 writes one; valid until the request is over */
    TL_EVENT_WEB_BODY,      /* `bytes`: lent until web.read_on */
    TL_EVENT_WEB_BODY_OVER,
    TL_EVENT_WEB_ROOM,      /* the answer may go on */
    TL_EVENT_WEB_GONE,      /* the client went; to be answered with web.send of nothing, TL_FILL_BROKEN */
    /* `number`: which endpoint, a tl_provisioning_endpoint. */
    TL_EVENT_PROVISIONING_REQUEST, /* `bytes`: lent until provisioning.answer */
    TL_EVENT_PROVISIONING_OVER
} tl_event_kind;

#define TL_LENGTH_NOT_TOLD UINT32_MAX

typedef struct {
    uint8_t kind; /* a tl_event_kind */
    uint16_t status;
    uint32_t number;
    union {
        const char *why; /* a literal */
        uint32_t length;
        tl_span topic;
    };
    tl_span bytes;
} tl_event;

/* --- clock, log, memory: cannot fail --- */

typedef enum { TL_LOG_ERROR, TL_LOG_WARNING, TL_LOG_INFO, TL_LOG_DEBUG } tl_log_level;

typedef enum { TL_RESET_POWER, TL_RESET_ASKED, TL_RESET_CRASH, TL_RESET_WATCHDOG, TL_RESET_BROWNOUT } tl_reset_reason;

typedef struct {
    uint32_t available, least, largest; /* bytes free now, at the worst, and in one piece */
} tl_memory;

typedef struct {
    void *with;
    uint64_t (*now_ms)(void *with); /* monotonic since the start, > 0 */
    int64_t (*wall_s)(void *with);  /* Unix seconds, -1 until it is known */
    void (*log)(void *with, tl_log_level level, tl_span line); /* without its end */
    void (*memory)(void *with, tl_memory *memory);
    tl_reset_reason (*reset_reason)(void *with);
    /* The program ends, or starts anew, with the event loop's next turn. */
    void (*reboot)(void *with);
} tl_port_sys;

/* --- link: one WebSocket over TLS, subprotocol towline.v1 --- */

#define TL_LINK_MESSAGE_MAX 2048u /* both ways; a longer one that comes ends the link with status 4001 */
#define TL_LINK_DIAL_MS 10000u    /* name, TCP, TLS and upgrade together */

typedef struct {
    tl_span host; /* also what the certificate must name */
    uint16_t port;
    bool secure;  /* false: on loopback alone */
    tl_span path;
    tl_span ca;   /* PEM, stays where it is while the link lives; empty: the system's roots */
} tl_address;

typedef struct {
    void *with;
    /* Begins to dial; the number that its events bear, > 0. One link at a time: the former one was closed, and its
     * TL_EVENT_LINK_CLOSED came. */
    uint32_t (*open)(void *with, const tl_address *to);
    /* Room for one message, TL_LINK_MESSAGE_MAX bytes. False: the former one has not left yet, and
     * TL_EVENT_LINK_WRITABLE follows; or the link is over. */
    bool (*take)(void *with, tl_out *message);
    /* Sends what was written into that room; of no bytes: gives it back. */
    void (*send)(void *with, size_t n);
    void (*release)(void *with, tl_span message);
    /* What was sent leaves first. TL_EVENT_LINK_CLOSED follows, at the latest after 1 s. `reason`: a literal. */
    void (*close)(void *with, uint16_t status, const char *reason);
} tl_port_link;

/* --- messages: MQTT 3.1.1 with a clean session --- */

#define TL_MQTT_CONNECT_MS 15000u

typedef struct {
    tl_address to; /* without a path */
    /* PEM; empty: none. They stay where they are while the connection lives. */
    tl_span certificate, key;
    tl_span username, password; /* empty: none */
    tl_span client_id;
    tl_span will_topic, will; /* QoS 1 */
    uint16_t keepalive_s;
} tl_mqtt_session;

typedef struct {
    void *with;
    /* CONNECTED or LOST follows. */
    bool (*start)(void *with, const tl_mqtt_session *session);
    /* QoS 1. False: not now; LOST follows. */
    bool (*subscribe)(void *with, tl_span topic);
    /* The message's number, > 0, that TAKEN bears (QoS 1; 0 there means it was sent); 0: not now. */
    uint32_t (*publish)(void *with, tl_span topic, tl_span payload, uint8_t qos, bool retain);
    void (*release)(void *with, tl_span message);
    void (*stop)(void *with); /* says goodbye where it can; no event follows */
} tl_port_mqtt;

/* --- fetch: one HTTPS request at a time --- */

#define TL_FETCH_STEP_MS 15000u     /* name and TCP and TLS; the head; each piece */
#define TL_FETCH_ALL_MS 600000u

typedef struct {
    tl_address to; /* with the path and query */
    const char *method;
    tl_span bearer; /* empty: no Authorization */
    tl_span body;   /* JSON, stays where it is until the fetch is over; empty: none */
} tl_fetch_request;

typedef struct {
    void *with;
    /* The number that its events bear, > 0; 0: one is under way. Redirects are not followed. */
    uint32_t (*start)(void *with, const tl_fetch_request *request);
    void (*release)(void *with, tl_span data);
    void (*stop)(void *with); /* no event follows */
} tl_port_fetch;

/* --- web: the local web server, whose requests go through the same routes as the tunnel's --- */

#define TL_WEB_SLOTS 3u
#define TL_WEB_ANSWER_ROOM 1024u

/* slot + 256 × a count: a late caller of a request that is over does nothing. > 0. */
typedef uint32_t tl_web_ref;

static inline unsigned tl_web_slot(tl_web_ref ref)
{
    return ref & 0xFFu;
}

typedef struct {
    void *with;
    bool (*start)(void *with);
    /* The next piece of the body may come, or its end: once after WEB_REQUEST, unless it is refused, and once after
     * each WEB_BODY. */
    void (*read_on)(void *with, tl_web_ref request);
    /* Room for the next of the answer: HTTP/1.1 as it stands on the line, its head and each chunk whole. False: what was sent has not left yet,
     * and TL_EVENT_WEB_ROOM follows; or the request is over. */
    bool (*take)(void *with, tl_web_ref request, tl_out *answer);
    /* Sends what was written into that room; of nothing: gives it back. END: the answer is whole; BROKEN: the
     * connection is cut. After both the request is over, and its reference dead. */
    void (*send)(void *with, tl_web_ref request, size_t n, tl_fill how);
} tl_port_web;

/* --- what outlives a restart --- */

#define TL_KV_KEY_MAX 15u    /* characters: NVS has no more */
#define TL_KV_VALUE_MAX 4000u /* bytes: one NVS page */

typedef struct {
    void *with;
    /* Appends to `value`; false: there is none, it does not fit, or it cannot be read. */
    bool (*get)(void *with, const char *key, tl_out *value);
    /* Each set or erase is whole or not at all, and durable with the next commit. */
    bool (*set)(void *with, const char *key, tl_span value);
    bool (*erase)(void *with, const char *key);
    bool (*commit)(void *with);
    bool (*erase_all)(void *with); /* durable when it returns */
} tl_port_kv;

#define TL_FLASH_SECTOR 4096u

/* The partition `outbox`: NOR flash. A write only turns ones into zeros; erasing a sector makes it all ones. A cut of
 * the power in between leaves some of that done. */
typedef struct {
    void *with;
    uint32_t size; /* a multiple of TL_FLASH_SECTOR */
    bool (*read)(void *with, uint32_t at, uint8_t *to, size_t n);
    bool (*write)(void *with, uint32_t at, tl_span bytes); /* durable when it returns */
    bool (*erase)(void *with, uint32_t sector_at);
} tl_port_flash;

typedef struct {
    void *with;
    uint16_t target;      /* of images that run here: IDF's chip id, or the simulator's */
    uint8_t slot;         /* 0 or 1: from which of the two this image runs; another is written into the other */
    uint32_t largest;     /* bytes an image may have */
    bool (*begin)(void *with, uint32_t size);
    bool (*write)(void *with, tl_span bytes);
    bool (*finish)(void *with);     /* the image is whole, and boots next */
    void (*abort)(void *with);
    bool (*on_trial)(void *with);   /* this image was not confirmed yet */
    bool (*mark_valid)(void *with);
    void (*rollback)(void *with);   /* boots the former image; as `reboot` */
} tl_port_ota;

/* --- network and provisioning --- */

#define TL_WIFI_SSID_MAX 32u
#define TL_WIFI_PASSWORD_MAX 64u
#define TL_ADDRESS_TEXT_MAX 40u

typedef struct {
    void *with;
    /* Begins to connect; NETWORK_UP and NETWORK_DOWN tell the rest. With Ethernet, or on a host: nothing. */
    bool (*apply)(void *with, tl_span ssid, tl_span password);
    bool (*rssi)(void *with, int8_t *dbm); /* false: not on Wi-Fi now */
    /* What this device is called on the LAN, for Host: its addresses, its mDNS name. False: there is no such. */
    bool (*name)(void *with, size_t index, tl_out *host);
} tl_port_network;

#define TL_PROVISIONING_SALT 16u
#define TL_PROVISIONING_VERIFIER 384u
#define TL_PROVISIONING_RECORD (TL_PROVISIONING_SALT + TL_PROVISIONING_VERIFIER)

typedef enum { TL_PROVISIONING_WIFI, TL_PROVISIONING_TOWLINE } tl_provisioning_endpoint;

typedef struct {
    tl_span service_name;     /* what a phone sees */
    tl_span salt, verifier;   /* SRP-6a, of this device */
} tl_provisioning_offer;

typedef struct {
    void *with;
    /* Salt and verifier of a password, TL_PROVISIONING_RECORD bytes; with another salt each time. */
    bool (*record)(void *with, tl_span user, tl_span password, uint8_t *to);
    bool (*start)(void *with, const tl_provisioning_offer *offer);
    void (*answer)(void *with, tl_span bytes); /* to the one request that was lent */
    void (*stop)(void *with); /* the radio's memory is free then */
} tl_port_provisioning;

typedef struct {
    const tl_crypto *crypto;
    const tl_port_sys *sys;
    const tl_port_link *link;
    const tl_port_mqtt *mqtt;
    const tl_port_fetch *fetch;
    const tl_port_web *web;
    const tl_port_kv *kv;
    const tl_port_flash *flash;
    const tl_port_ota *ota;
    const tl_port_network *network;
    const tl_port_provisioning *provisioning;
} tl_port;

#endif
