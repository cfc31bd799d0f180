/* New firmware: it is checked before a byte of it is written, tried, and kept only when it proves itself.
 *
 * Two slots. An image goes into the one that does not run; when its digest holds it boots next, on trial. It is
 * confirmed when it has run for a minute and reached what it must reach; else the former one is booted again. Power
 * may go at any moment: what runs afterwards is the old image whole, or the new one whole.
 */
#ifndef TOWLINE_OTA_H
#define TOWLINE_OTA_H

#include "towline/image.h"
#include "towline_port.h"

#define TL_OTA_STEADY_MS 60000u    /* runs so long before it is confirmed: most crashes of a bad image come sooner */
#define TL_OTA_PATIENCE_MS 300000u /* to reach the cloud: a router that restarts as well takes two minutes */

typedef enum {
    TL_OTA_IDLE,
    TL_OTA_RECEIVING,
    TL_OTA_VERIFIED, /* boots with the next restart */
    TL_OTA_TRIAL,
    TL_OTA_CONFIRMED,  /* what runs came as an update, and proved itself */
    TL_OTA_ROLLED_BACK /* an update was verified, and is not what runs */
} tl_ota_state;

typedef struct {
    const tl_port_ota *port;
    const tl_port_kv *kv;
    const tl_crypto *crypto;
    const tl_firmware *runs;
    uint32_t steady_ms, patience_ms; /* on trial: the constants above, but for tests */
} tl_ota_means;

typedef struct {
    tl_ota_means means;
    tl_ota_state state;
    bool reached, force;
    uint32_t floor;
    tl_version version; /* of the last update, as the state says; 0.0.0: there was none */
    tl_image image;     /* while it is received */
    uint32_t told;      /* bytes that were promised, head included */
    uint32_t received;  /* of them */
    union {
        uint8_t head[TL_IMAGE_HEAD]; /* until it is whole */
        tl_sha256 digest;            /* of what follows it */
    };
} tl_ota;

/* Finds out what became of the last update. */
void tl_ota_open(tl_ota *, const tl_ota_means *);
/* `idle`, `receiving`, `verified`, `trial`, `confirmed`, `rolled_back` */
const char *tl_ota_name(const tl_ota *);

/* An image of `size` bytes comes, head included. `force`: see tl_image_rules. Each answers NULL, or why not (a literal
 * of at most TL_WHY_MAX bytes); then nothing is received any more, and what runs is as it was. */
const char *tl_ota_begin(tl_ota *, uint64_t size, bool force);
const char *tl_ota_add(tl_ota *, tl_span piece);
/* NULL: it boots with the next restart, which is the caller's to ask for. */
const char *tl_ota_end(tl_ota *);
/* Whoever sent it does not go on. */
void tl_ota_drop(tl_ota *);

/* On trial: call it when something changed, and at the time that it tells (monotonic since the start; UINT64_MAX:
 * nothing is waited for). `reached`: tunnel or messages are up, or there is no cloud to reach. */
uint64_t tl_ota_run(tl_ota *, uint64_t now_ms, bool reached);

#endif
