/* Does what the gateway asks: from a list, one at a time, each once, answered by the command's id
 * (docs/protocol/device-v1.md, section 7). What does no harm twice is not stored: ping, log_level, identify. */
#ifndef TOWLINE_COMMAND_H
#define TOWLINE_COMMAND_H

#include "towline/bodies.h"
#include "towline/ledger.h"
#include "towline/told.h"

#define TL_COMMANDS_WAITING 16u /* behind the one that runs */
#define TL_ACKS 16u             /* that wait to be sent; of more the oldest go: the command comes again */
#define TL_REFUSED_IDS 64u      /* copies get the same answer; a gateway holds 50 open */
#define TL_REBOOT_AFTER_MS 1000u /* so that `received` leaves first */
#define TL_UPDATE_URL_MAX 200u
#define TL_UPDATE_VERSION_MAX 32u

typedef struct {
    uint8_t url[TL_UPDATE_URL_MAX], version[TL_UPDATE_VERSION_MAX];
    uint8_t url_n, version_n;
    uint32_t size;
    uint8_t sha256[32]; /* of the image */
} tl_update;

typedef enum {
    TL_UPDATE_UNKNOWN, /* it was cut off before it was written */
    TL_UPDATE_ON_TRIAL,
    TL_UPDATE_RUNS,
    TL_UPDATE_ROLLED_BACK
} tl_update_outcome;

/* What the device does for a command. */
typedef struct {
    void (*identify)(void *device); /* shows a person which one it is */
    tl_log_level (*log_level)(void *device, tl_log_level); /* what it was */
    /* NULL: no updates. It says NULL, and tl_commands_update_over follows, or the restart into the image; or why
     * not, a literal of at most TL_LEDGER_ERROR_MAX bytes. */
    const char *(*update)(void *device, const tl_update *);
    void (*stop_update)(void *device);
    tl_update_outcome (*updated)(void *device); /* of the update that was under way before this start */
} tl_command_work;

typedef struct {
    uint8_t id[TL_UUID];
    uint8_t what, level;
    uint64_t begin_by, timeout_ms;
} tl_job;

typedef struct {
    uint8_t id[TL_UUID];
    int64_t at_ms;
    const char *error; /* a literal; NULL: see slot */
    uint8_t stage;     /* a tl_stage */
    uint8_t slot;      /* of the ledger, where the error stands; TL_NO_SLOT */
    uint8_t was;       /* the log level; UINT8_MAX: none */
    bool ok;
} tl_ack;

typedef struct {
    const tl_port_sys *sys;
    const tl_command_work *work;
    void *device;
    tl_ledger *ledger;
    tl_job now;         /* that runs; `what` 0: none */
    uint8_t slot;       /* its place in the ledger */
    bool waits_for_update;
    uint64_t reboot_at; /* TL_NEVER_DUE: none */
    uint64_t deadline;
    uint8_t waiting, ack_count, refused_next;
    tl_job queue[TL_COMMANDS_WAITING];
    tl_ack acks[TL_ACKS];
    struct {
        uint8_t id[TL_UUID];
        const char *error; /* NULL: free */
    } refused[TL_REFUSED_IDS];
    tl_update update; /* of the one update that waits or runs */
} tl_commands;

/* Ends those of the ledger that a restart cut off. */
void tl_commands_open(tl_commands *, tl_ledger *, const tl_port_sys *, const tl_command_work *, void *device);
/* Names for hello. */
const char *const *tl_commands_names(const tl_commands *, size_t *count);
/* One came, perhaps not for the first time. */
void tl_commands_offer(tl_commands *, const tl_command *, uint64_t now_ms);
/* Does what is due; when it wants to be called again. */
uint64_t tl_commands_run(tl_commands *, uint64_t now_ms);
/* How the update ended: NULL, the image runs and is confirmed; or why not. */
void tl_commands_update_over(tl_commands *, const char *error);
/* The first answer that waits; false: none. `text`: room for its error or result. */
bool tl_commands_ack(const tl_commands *, tl_ack_body *body, tl_out *text);
void tl_commands_ack_said(tl_commands *);

#endif
