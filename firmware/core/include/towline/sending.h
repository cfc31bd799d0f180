/* When which entry of the outbox leaves (docs/protocol/device-v1.md, section 4): go-back-N. The broker's word that
 * it has a message counts for nothing; only `accepted` moves the window on. Times in milliseconds. */
#ifndef TOWLINE_SENDING_H
#define TOWLINE_SENDING_H

#include "towline/outbox.h"

/* Beyond the floor. As no entry's text is above TL_ENTRY_MAX, that is never more than the 64 KiB that may be. */
#define TL_WINDOW 64u
#define TL_PATIENCE_FIRST_MS 5000u /* without progress; a bridge answers within 50 ms, 1 s over a mobile line */
#define TL_PATIENCE_MAX_MS 60000u  /* repeating faster only loads a pipeline that comes back */
#define TL_REFUSALS 3u             /* of the first in line: a fourth would not be taken either */
/* How long a start waits for the answer to its first hello before it sends all the same: the answer tells whether
 * another life of this device gave these numbers before. */
#define TL_HOLD_MS TL_PATIENCE_FIRST_MS
/* Between two of them: a server that invents numbers must not wear the flash out. */
#define TL_RENUMBER_EVERY_MS 60000u

#define TL_NEVER_DUE UINT64_MAX

typedef struct {
    uint64_t again_at;       /* TL_NEVER_DUE: nothing is in flight */
    uint64_t hold_until;     /* 0: not held */
    uint64_t renumber_after;
    uint32_t patience_ms;
    uint32_t next; /* as outbox.gone counts: the first that was not sent since the last step back */
    tl_number said; /* the highest that was sent since the start */
    uint8_t refusals;
    bool connected, was_connected;
} tl_sending;

typedef enum { TL_TAKEN_OLD, TL_TAKEN_NEWS, TL_TAKEN_RENUMBERED } tl_taken;

void tl_sending_init(tl_sending *);
/* There is a connection, and hello was said on it. */
void tl_sending_connected(tl_sending *, const tl_outbox *, uint64_t now_ms);
void tl_sending_lost(tl_sending *, const tl_outbox *);
void tl_sending_answered(tl_sending *);

/* Which entry leaves now; false: none. `tl_sending_sent` when it left; `random`: 32 uniform bits. */
bool tl_sending_next(tl_sending *, const tl_outbox *, uint64_t now_ms, uint16_t *index);
void tl_sending_sent(tl_sending *, const tl_outbox *, uint16_t index, uint64_t now_ms, uint32_t random);
/* When `tl_sending_next` may find one without anything new. */
uint64_t tl_sending_due(const tl_sending *, const tl_outbox *, uint64_t now_ms);

/* Told that everything up to `number` is kept. */
tl_taken tl_sending_accepted(tl_sending *, tl_outbox *, tl_number number, uint64_t now_ms, uint32_t random);
/* Told that the message of this id is a dead letter. True: the line goes on without it. */
bool tl_sending_refused(tl_sending *, tl_outbox *, const uint8_t id[16], tl_out *scratch);

#endif
