#include "towline/flash_ring.h"

#include "towline/bytes.h"
#include "towline/crc.h"

#include <string.h>

/* A sector: magic, its number (1, 2, … over all of the ring's life), the CRC of both; then records.
 * A record: length, kind, whether it is live, the CRC of length, kind and bytes; then the bytes. */
#define MAGIC 0x544C5231u /* TLR1 */
#define ERASED 0xFFu
#define LIVE 0xFFu
#define DROPPED 0u
#define AT_LIVE 3u /* the flag's place in a record's head: the one byte that is written twice */
#define AT_CRC 4u
#define PIECE 64u /* bytes of flash looked at at once, on the stack */

static uint32_t start_of(const tl_ring *r, uint16_t sector)
{
    return ((uint32_t)r->first + sector) * TL_FLASH_SECTOR;
}

static bool read(const tl_ring *r, uint32_t at, uint8_t *into, size_t n)
{
    return r->flash->read(r->flash->with, at, into, n);
}

static bool write(const tl_ring *r, uint32_t at, tl_span bytes)
{
    return bytes.n == 0 || r->flash->write(r->flash->with, at, bytes);
}

/* The CRC goes over length and kind, not over the flag, which changes. */
static uint32_t crc_of_head(const uint8_t *head)
{
    return tl_crc32(0, (tl_span){head, AT_LIVE});
}

/* --- opening --- */

/* A sector's number; 0: nothing was begun in it. */
static bool sequence_of(const tl_ring *r, uint16_t sector, uint32_t *sequence)
{
    uint8_t head[TL_RING_SECTOR_HEAD];
    if (!read(r, start_of(r, sector), head, sizeof head)) {
        return false;
    }
    const bool holds = tl_u32(head) == MAGIC && tl_u32(head + 8) == tl_crc32(0, (tl_span){head, 8});
    *sequence = holds ? tl_u32(head + 4) : 0;
    return true;
}

static bool bytes_hold(const tl_ring *r, uint32_t at, const uint8_t *head)
{
    uint8_t piece[PIECE];
    uint32_t crc = crc_of_head(head);
    for (size_t left = tl_u16(head); left > 0;) {
        const size_t n = left < PIECE ? left : PIECE;
        if (!read(r, at, piece, n)) {
            return false;
        }
        crc = tl_crc32(crc, (tl_span){piece, n});
        at += (uint32_t)n;
        left -= n;
    }
    return crc == tl_u32(head + AT_CRC);
}

/* A cut may have let bits fall anywhere in what was being written. */
static bool is_erased(const tl_ring *r, uint32_t at, uint32_t end)
{
    uint8_t piece[PIECE];
    while (at < end) {
        const size_t n = end - at < PIECE ? end - at : PIECE;
        if (!read(r, at, piece, n)) {
            return false;
        }
        for (size_t i = 0; i < n; i++) {
            if (piece[i] != ERASED) {
                return false;
            }
        }
        at += (uint32_t)n;
    }
    return true;
}

/* Tells the sector's live records; how many of its bytes are used, all of them where something does not hold. */
static uint16_t look_at(tl_ring *r, uint16_t sector, tl_ring_sink sink, void *owner)
{
    const uint32_t start = start_of(r, sector), end = start + TL_FLASH_SECTOR;
    uint32_t at = start + TL_RING_SECTOR_HEAD;
    while (end - at >= TL_RING_RECORD_HEAD) {
        uint8_t head[TL_RING_RECORD_HEAD];
        if (!read(r, at, head, sizeof head)) {
            return TL_FLASH_SECTOR;
        }
        const tl_ring_record record = {at, tl_u16(head), head[2]};
        if (record.n > end - at - TL_RING_RECORD_HEAD || !bytes_hold(r, at + TL_RING_RECORD_HEAD, head)) {
            break;
        }
        if (head[AT_LIVE] == LIVE) {
            r->live[sector]++;
            sink(owner, &record);
        }
        at += TL_RING_RECORD_HEAD + record.n;
    }
    return is_erased(r, at, end) ? (uint16_t)(at - start) : (uint16_t)TL_FLASH_SECTOR;
}

bool tl_ring_open(tl_ring *r, const tl_port_flash *flash, uint16_t first, uint16_t sectors, tl_ring_sink sink,
                  void *owner)
{
    if (sectors < TL_RING_SECTORS_MIN || sectors > TL_RING_SECTORS_MAX ||
        (uint32_t)first + sectors > flash->size / TL_FLASH_SECTOR) {
        return false;
    }
    memset(r, 0, sizeof *r);
    r->flash = flash;
    r->first = first;
    r->sectors = sectors;
    uint32_t sequence[TL_RING_SECTORS_MAX];
    for (uint16_t i = 0; i < sectors; i++) {
        if (!sequence_of(r, i, &sequence[i])) {
            return false;
        }
        if (sequence[i] > r->sequence) {
            r->sequence = sequence[i];
            r->head = i;
        }
    }
    for (uint16_t i = 1; i <= sectors; i++) { /* the one behind the head is the oldest */
        const uint16_t sector = (uint16_t)((r->head + i) % sectors);
        if (sequence[sector] != 0) {
            r->head_n = look_at(r, sector, sink, owner); /* the head is the last */
        }
    }
    return true;
}

/* --- writing --- */

static bool begin_sector(tl_ring *r, uint16_t sector)
{
    static const uint8_t nothing[TL_RING_SECTOR_HEAD];
    uint8_t head[TL_RING_SECTOR_HEAD];
    tl_out out = {head, 0, sizeof head, false};
    tl_put_u32(&out, MAGIC);
    tl_put_u32(&out, r->sequence + 1);
    tl_put_u32(&out, tl_crc32(0, (tl_span){head, 8}));
    /* An erase that is cut raises some bits. The head must not hold then: a flag may have risen, and what was
     * dropped would be live again. */
    const uint32_t at = start_of(r, sector);
    return write(r, at, (tl_span){nothing, sizeof nothing}) && r->flash->erase(r->flash->with, at) &&
           write(r, at, (tl_span){head, sizeof head});
}

static tl_ring_result next_sector(tl_ring *r)
{
    const uint16_t next = (uint16_t)((r->head + (r->sequence != 0)) % r->sectors); /* the first is 0 */
    if (r->live[next] > 0) {
        return TL_RING_NO_ROOM;
    }
    if (!begin_sector(r, next)) {
        return TL_RING_BROKEN;
    }
    r->head = next;
    r->head_n = TL_RING_SECTOR_HEAD;
    r->sequence++;
    return TL_RING_DONE;
}

tl_ring_result tl_ring_append(tl_ring *r, uint8_t kind, tl_span front, tl_span rest, tl_ring_record *record)
{
    const size_t n = front.n + rest.n;
    if (n > TL_RING_RECORD_MAX) {
        return TL_RING_BROKEN;
    }
    const size_t whole = TL_RING_RECORD_HEAD + n;
    if (r->sequence == 0 || whole > (size_t)TL_FLASH_SECTOR - r->head_n) {
        const tl_ring_result result = next_sector(r);
        if (result != TL_RING_DONE) {
            return result;
        }
    }
    uint8_t head[TL_RING_RECORD_HEAD];
    tl_out out = {head, 0, sizeof head, false};
    tl_put_u16(&out, (uint16_t)n);
    tl_put_u8(&out, kind);
    tl_put_u8(&out, LIVE);
    tl_put_u32(&out, tl_crc32(tl_crc32(crc_of_head(head), front), rest));
    const uint32_t at = start_of(r, r->head) + r->head_n, bytes = at + TL_RING_RECORD_HEAD;
    if (!write(r, at, (tl_span){head, sizeof head}) || !write(r, bytes, front) ||
        !write(r, bytes + (uint32_t)front.n, rest)) {
        r->head_n = TL_FLASH_SECTOR; /* what lies there now is nobody's */
        return TL_RING_BROKEN;
    }
    r->head_n = (uint16_t)(r->head_n + whole);
    r->live[r->head]++;
    *record = (tl_ring_record){at, (uint16_t)n, kind};
    return TL_RING_DONE;
}

/* --- what was written --- */

bool tl_ring_read(const tl_ring *r, const tl_ring_record *record, tl_out *out)
{
    uint8_t head[TL_RING_RECORD_HEAD];
    if (out->full || record->n > out->cap - out->n || !read(r, record->at, head, sizeof head) ||
        tl_u16(head) != record->n || head[2] != record->kind) {
        return false;
    }
    uint8_t *to = out->at + out->n;
    if (!read(r, record->at + TL_RING_RECORD_HEAD, to, record->n) ||
        tl_crc32(crc_of_head(head), (tl_span){to, record->n}) != tl_u32(head + AT_CRC)) {
        return false;
    }
    out->n += record->n;
    return true;
}

bool tl_ring_drop(tl_ring *r, const tl_ring_record *record)
{
    static const uint8_t dropped = DROPPED;
    const uint32_t at = record->at + AT_LIVE;
    uint8_t flag;
    if (!read(r, at, &flag, 1)) {
        return false;
    }
    if (flag == DROPPED) {
        return true; /* once is enough: it must not be counted twice */
    }
    if (!write(r, at, (tl_span){&dropped, 1})) {
        return false;
    }
    r->live[record->at / TL_FLASH_SECTOR - r->first]--;
    return true;
}
