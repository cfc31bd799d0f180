/* Keeps what the device has to say in a ring of flash until the other side has said that it is kept there
 * (docs/protocol/device-v1.md, section 4), and numbers it. Nothing counts as said before it is in the flash.
 *
 * Every number is given once: boots are counted in the key-value store, durable before one numbers anything.
 * Entries lie in the flash without their number in the text, so a counter that went back (section 5) costs one
 * record: those before it are numbered anew, in order. When there is no room the oldest go, and are counted.
 */
#ifndef TOWLINE_OUTBOX_H
#define TOWLINE_OUTBOX_H

#include "towline/device_line.h"
#include "towline/flash_ring.h"

/* Bytes of an entry's text, an envelope without its number. A device of this size says little at a time. */
#define TL_ENTRY_MAX 1024u
/* Room for a message made of one: the record's front, the number and the line are added. */
#define TL_MESSAGE_MAX (TL_ENTRY_MAX + 192u)
/* The highest boot that it believes it had: whoever tells a higher one would leave later starts without numbers. */
#define TL_BOOT_TOLD_MAX (TL_NUMBER_MAX / 2)
/* Entries that may wait: hours of reports; 12 bytes of memory each. */
#define TL_OUTBOX_ENTRIES 256u

typedef struct {
    uint32_t at, seq;
    uint16_t boots; /* above the outbox's `base` */
    uint16_t n;     /* of its record, the kind in the four bits above ENTRY_BITS */
} tl_outbox_entry;

typedef struct {
    tl_ring ring;
    const tl_port_kv *kv;
    uint64_t boot, base; /* boot: the highest that numbered anything */
    uint32_t seq;        /* the last given in it */
    bool counting;       /* this boot may number: its counter is durable */
    tl_number floor;     /* the highest known to be accepted; of this start alone */
    uint32_t dropped, refused; /* let go for want of room, or not taken by the other side, ever */
    bool counters_lag;
    uint32_t bytes;
    uint32_t gone; /* entries that left since the start: what sending counts its place by */
    tl_ring_record counters, renumbering;
    uint16_t renumbered; /* so many of the first entries have their number by `renumbering` */
    uint16_t first, count;
    tl_outbox_entry entries[TL_OUTBOX_ENTRIES];
} tl_outbox;

/* Reads what is there; with a stored counter a new boot begins at once. False: the flash cannot be used. */
bool tl_outbox_open(tl_outbox *, const tl_port_flash *, uint16_t first_sector, uint16_t sectors, const tl_port_kv *);
/* A boot above all that are known here and above `above`. False: it cannot be made durable, and nothing is numbered. */
bool tl_outbox_begin(tl_outbox *, uint64_t above);
/* 0: it waits for the answer to its hello. */
uint64_t tl_outbox_boot(const tl_outbox *);

/* Numbers a text and keeps it. `split`: where its number is put in. False: there is no boot, or the flash failed. */
bool tl_outbox_store(tl_outbox *, tl_kind kind, tl_span text, size_t split);

/* Of the entry `index`, 0 for the first in line. */
tl_number tl_outbox_number(const tl_outbox *, uint16_t index);
/* What is said for it, with its number, into an empty `out` of TL_MESSAGE_MAX. TL_KIND_NONE: it cannot be read. */
tl_kind tl_outbox_message(const tl_outbox *, uint16_t index, tl_out *out);
/* Everything up to this number is kept by the other side. */
void tl_outbox_accept(tl_outbox *, tl_number number);
/* The first in line will never be taken, or cannot be read. */
void tl_outbox_let_go(tl_outbox *, bool was_refused);
/* Gives everything that waits a number of a boot above `above`, which the other side knows. */
bool tl_outbox_renumber(tl_outbox *, tl_number above);

#endif
