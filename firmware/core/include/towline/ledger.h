/* Commands that were begun and how they ended, durable before anything happens: none is executed twice
 * (docs/protocol/device-v1.md, section 7). A gateway holds at most 50 open for a device, and repeats no others. */
#ifndef TOWLINE_LEDGER_H
#define TOWLINE_LEDGER_H

#include "towline/envelope.h"
#include "towline_port.h"

#define TL_LEDGER_ENTRIES 64u
#define TL_LEDGER_ERROR_MAX 80u /* bytes of why a command failed */
#define TL_NO_SLOT UINT8_MAX

typedef enum { TL_LEDGER_FREE, TL_LEDGER_BEGUN, TL_LEDGER_DONE, TL_LEDGER_FAILED } tl_ledger_state;

typedef struct {
    uint8_t id[TL_UUID];
    uint32_t order; /* a later one is higher */
    uint8_t state;  /* a tl_ledger_state */
    uint8_t what;   /* the caller's own */
} tl_ledger_entry;

typedef struct {
    const tl_port_kv *kv;
    uint32_t order;
    tl_ledger_entry entries[TL_LEDGER_ENTRIES];
} tl_ledger;

void tl_ledger_open(tl_ledger *, const tl_port_kv *);
/* TL_NO_SLOT: nothing is known of it. */
uint8_t tl_ledger_find(const tl_ledger *, const uint8_t id[TL_UUID]);
/* It is about to be executed: durable when this returns a slot. TL_NO_SLOT: it must not be. */
uint8_t tl_ledger_take(tl_ledger *, const uint8_t id[TL_UUID], uint8_t what);
/* It ended so; `error` NULL: it did what was asked. False: it is not stored, and a restart calls it interrupted. */
bool tl_ledger_end(tl_ledger *, uint8_t slot, const char *error);
/* Why it failed, as it was stored. */
void tl_ledger_put_error(const tl_ledger *, uint8_t slot, tl_out *out);

#endif
