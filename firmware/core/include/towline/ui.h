/* The device's own page, and what it asks: one table of routes for the tunnel and the LAN.
 *
 * The page knows no other module. What it shows and changes it gets from the device through `tl_ui_device`; spans
 * that are handed to it hold until the call into the routes returns.
 *
 * Every exchange with these routes has the `tl_ui` as its owner.
 */
#ifndef TOWLINE_UI_H
#define TOWLINE_UI_H

#include "towline/login.h"
#include "towline/routes.h"

#define TL_UI_UNKNOWN INT64_MIN /* a number that is not known: `null` on the page */
#define TL_UI_NAME_MAX 32u      /* bytes of a name, an SSID, a version … : longer ones are cut */
#define TL_UI_LINE_MAX 200u     /* bytes of a log line's text: a longer one is cut */
#define TL_LIVE_EACH_MS 1000u   /* about 1 KB each: a tenth of what one stream carries */
#define TL_LIVE_LAN_MAX 2u      /* of the LAN's web slots one stays free for requests; who is beyond polls */

/* What the page shows all the time. */
typedef struct {
    tl_span device;         /* id; empty: not enrolled */
    tl_span name;           /* what its owner calls it */
    tl_span hardware;
    tl_span version;
    tl_span reset_reason;
    tl_span firmware;       /* idle, receiving, verified, trial, confirmed, rolled_back */
    tl_span ssid;           /* empty: no Wi-Fi, or not joined */
    tl_span address;        /* on the LAN */
    tl_span tunnel;         /* off, connecting, up */
    tl_span messages;       /* off, connecting, up */
    int64_t uptime_s;
    int64_t time_s;         /* Unix */
    int64_t rssi;           /* dBm */
    int64_t memory_free, memory_least, memory_block; /* bytes: now, since the start, largest in one piece */
    int64_t outbox;         /* messages that are not accepted yet */
    int64_t streams;        /* open through the tunnel */
    int64_t received;       /* bytes of an image that is coming */
} tl_ui_facts;

/* `value` / 10^decimals. The name's last word may be its unit: `temperature_c`, `humidity_percent`. */
typedef struct {
    tl_span name;
    int64_t value;
    unsigned decimals;
} tl_ui_sensor;

typedef struct {
    uint32_t number; /* from 1; a gap: lines that are gone */
    uint64_t at_ms;  /* since the start */
    char level;      /* E W I D */
    tl_span text;
} tl_ui_line;

/* Shown: without the secrets, which never leave the device. Changed: what has no `at` stays as it is. */
typedef struct {
    tl_span name;
    tl_span ssid;
    tl_span password; /* of the Wi-Fi; empty: an open one */
    tl_span gateway;  /* its URL */
    tl_span token;    /* registration token: the device enrols with it */
    int64_t support;  /* whether support sessions may open this page: 0, 1; TL_UI_UNKNOWN: stays */
    bool has_password;
} tl_ui_settings;

/* What the device does for its page. A reason is a literal of at most TL_WHY_MAX bytes for the reader; NULL: done.
 * None of these may wait for the network, and what ends the connection (restart, reset, other Wi-Fi settings)
 * happens two seconds later, so that the answer leaves first. */
typedef struct {
    void (*facts)(void *device, tl_ui_facts *facts);
    bool (*sensor)(void *device, unsigned index, tl_ui_sensor *sensor); /* false: there are no more */
    bool (*line)(void *device, uint32_t after, tl_ui_line *line); /* the first with a higher number; false: none */
    void (*settings)(void *device, tl_ui_settings *settings);
    const char *(*change)(void *device, const tl_ui_settings *changes); /* all of them, or none */
    /* An image comes: begin, its bytes, then end; or drop, at any time after begin. What says why not ends it. One at a
     * time. */
    const char *(*image_begin)(void *device, uint64_t size, bool force); /* force: the same version again */
    const char *(*image_add)(void *device, tl_span piece);
    const char *(*image_end)(void *device); /* NULL: it is verified, and starts with the restart that follows */
    void (*image_drop)(void *device);
    void (*restart)(void *device);
    void (*reset)(void *device); /* back to the factory: settings, identity, outbox, logs */
} tl_ui_device;

typedef struct {
    const tl_ui_device *calls;
    void *device;
    tl_login *login;
    uint64_t now_ms;
    uint64_t next_ms;           /* when the next of live answers is due */
    uint32_t round;             /* of live answers */
    uint8_t live[2];            /* under way: on the LAN, through the tunnel */
    uint8_t live_tunnel_max;    /* one less than streams: the page's requests need one */
    bool receiving;             /* an image comes */
} tl_ui;

void tl_ui_init(tl_ui *, const tl_ui_device *, void *device, tl_login *, unsigned max_streams);
/* Each turn of the device's loop, before its events: routes know the time from here. True: live answers are due,
 * so whatever said TL_FILL_AGAIN is to be asked again, in the tunnel and on the LAN. */
bool tl_ui_tick(tl_ui *, uint64_t now_ms);
/* When it wants to be called at the latest; UINT64_MAX: nobody watches. */
uint64_t tl_ui_timer(const tl_ui *);
extern const tl_routes TL_UI_ROUTES;

/* Written by the build out of web/page.html: gzip, its entity tag, and what the browser may do with it. */
extern const uint8_t tl_page[];
extern const uint32_t tl_page_size;
extern const char tl_page_etag[];
extern const char tl_page_policy[];

#endif
