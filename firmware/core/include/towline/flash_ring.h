/* Records in a ring of flash sectors: written once, dropped one by one, and still there after a power cut.
 *
 * A record lies within one sector. Sectors are filled in turn; one is erased when it is its turn again and nothing
 * in it is live, so all wear alike. What a cut left half written is never given out: each record has a CRC, and a
 * sector in which one does not hold takes no more. Whoever keeps records decides which go when there is no room.
 * It holds no lock and waits for nothing: one task uses it.
 */
#ifndef TOWLINE_FLASH_RING_H
#define TOWLINE_FLASH_RING_H

#include "towline_port.h"

#define TL_RING_SECTORS_MIN 2u  /* one to write into while the other has what is live */
#define TL_RING_SECTORS_MAX 32u /* 128 KiB: twice the outbox */
#define TL_RING_SECTOR_HEAD 12u
#define TL_RING_RECORD_HEAD 8u
/* The longest record. */
#define TL_RING_RECORD_MAX (TL_FLASH_SECTOR - TL_RING_SECTOR_HEAD - TL_RING_RECORD_HEAD)

/* `at`: where it lies; never 0. The caller keeps it, or parts of it, as long as the record is live. */
typedef struct {
    uint32_t at;
    uint16_t n;   /* bytes */
    uint8_t kind; /* the caller's own */
} tl_ring_record;

typedef enum {
    TL_RING_DONE,
    TL_RING_NO_ROOM, /* the oldest sector has live records: drop them and try again */
    TL_RING_BROKEN   /* longer than a record may be, or the flash failed */
} tl_ring_result;

typedef struct {
    const tl_port_flash *flash;
    uint32_t sequence; /* of the sector that is written into; 0: none was yet */
    uint16_t first; /* sector of the flash where the ring begins */
    uint16_t sectors;
    uint16_t head;   /* the sector that is written into */
    uint16_t head_n; /* bytes used of it; TL_FLASH_SECTOR: it takes no more */
    uint16_t live[TL_RING_SECTORS_MAX]; /* records that were not dropped */
} tl_ring;

/* Told each live record while the ring is opened, the oldest first. */
typedef void (*tl_ring_sink)(void *owner, const tl_ring_record *);

/* Uses `sectors` sectors of the flash from `first`. Whatever lies there: what is no record is passed over. False:
 * the flash has not that many sectors, or cannot be read. */
bool tl_ring_open(tl_ring *, const tl_port_flash *, uint16_t first, uint16_t sectors, tl_ring_sink, void *owner);
/* Writes `front` and behind it `rest` as one record, durable when it says DONE. */
tl_ring_result tl_ring_append(tl_ring *, uint8_t kind, tl_span front, tl_span rest, tl_ring_record *record);
/* Appends the record's bytes to `out`; false: no room, or they are not what was written. */
bool tl_ring_read(const tl_ring *, const tl_ring_record *, tl_out *out);
/* It does not come back, after a restart either. False: the flash failed; the record stays live. */
bool tl_ring_drop(tl_ring *, const tl_ring_record *);

#endif
