#include "towline/outbox.h"

#include <string.h>

#include "towline/bytes.h"
#include "towline/envelope.h"

/* Kinds of records beside those of entries, which are tl_kind's. */
#define COUNTERS 16u    /* dropped, refused */
#define RENUMBERING 17u /* boot, count: so many entries before it are (boot, 1) … (boot, count) */

#define FRONT 14u /* boot, seq, split: before an entry's text */
#define ENTRY_BITS 12u
#define BOOTS_MAX UINT16_MAX /* between the oldest entry and the newest: what is older has nobody who waits */

static const char boot_key[] = "boots";

static tl_outbox_entry *entry_at(tl_outbox *o, uint16_t index)
{
    return &o->entries[(o->first + index) % TL_OUTBOX_ENTRIES];
}

static const tl_outbox_entry *entry_of(const tl_outbox *o, uint16_t index)
{
    return &o->entries[(o->first + index) % TL_OUTBOX_ENTRIES];
}

static tl_ring_record record_of(const tl_outbox_entry *entry)
{
    const uint16_t n = entry->n & ((1u << ENTRY_BITS) - 1);
    return (tl_ring_record){entry->at, n, (uint8_t)(entry->n >> ENTRY_BITS)};
}

static void drop_record(tl_outbox *o, tl_ring_record *record)
{
    if (record->at != 0) {
        /* Where the flash fails it comes back at the next start, and is dropped again then. */
        (void)tl_ring_drop(&o->ring, record);
        record->at = 0;
    }
}

static void pop(tl_outbox *o)
{
    tl_ring_record record = record_of(entry_at(o, 0));
    o->bytes -= record.n;
    drop_record(o, &record);
    o->first = (uint16_t)((o->first + 1) % TL_OUTBOX_ENTRIES);
    o->count--;
    o->gone++;
    if (o->renumbered > 0 && --o->renumbered == 0) {
        drop_record(o, &o->renumbering);
    }
}

static void drop_oldest(tl_outbox *o)
{
    pop(o);
    o->dropped++;
    o->counters_lag = true;
}

/* Makes `base` low enough for what is there and high enough for `boot`. */
static void rebase(tl_outbox *o, uint64_t boot)
{
    while (o->count > 0) {
        const uint64_t oldest = tl_outbox_number(o, 0).boot;
        if (boot - oldest <= BOOTS_MAX) {
            for (uint16_t i = 0; i < o->count; i++) {
                entry_at(o, i)->boots = (uint16_t)(entry_at(o, i)->boots - (oldest - o->base));
            }
            o->base = oldest;
            return;
        }
        drop_oldest(o);
    }
    o->base = boot;
}

static void push(tl_outbox *o, const tl_ring_record *record, tl_number number)
{
    if (o->count == TL_OUTBOX_ENTRIES) {
        drop_oldest(o);
    }
    if (o->count == 0 || number.boot - o->base > BOOTS_MAX) {
        rebase(o, number.boot);
    }
    *entry_at(o, o->count++) = (tl_outbox_entry){
        .at = record->at,
        .seq = (uint32_t)number.seq,
        .boots = (uint16_t)(number.boot - o->base),
        .n = (uint16_t)(record->n | (unsigned)record->kind << ENTRY_BITS),
    };
    o->bytes += record->n;
}

/* --- at a start --- */

/* The first entries are (boot, last − count + 1) … (boot, last). */
static void number_anew(tl_outbox *o, uint64_t boot, uint32_t last)
{
    o->base = boot;
    o->renumbered = o->count;
    for (uint16_t i = 0; i < o->count; i++) {
        entry_at(o, i)->boots = 0;
        entry_at(o, i)->seq = last - o->count + i + 1;
    }
}

static void found_entry(tl_outbox *o, const tl_ring_record *record, const uint8_t *front)
{
    const tl_number number = {tl_u64(front), tl_u32(front + 8)};
    const tl_number before = o->count == 0 ? (tl_number){0, 0} : tl_outbox_number(o, (uint16_t)(o->count - 1));
    if (record->kind < TL_KIND_STATE || record->kind > TL_KIND_HEARTBEAT || number.seq == 0 ||
        number.boot > TL_NUMBER_MAX || !tl_number_above(number, before) ||
        record->n > FRONT + TL_ENTRY_MAX) {
        tl_ring_record nobodys = *record;
        drop_record(o, &nobodys);
        return;
    }
    if (number.boot > o->boot) {
        o->boot = number.boot;
    }
    push(o, record, number);
}

static void found_renumbering(tl_outbox *o, const tl_ring_record *record, const uint8_t *front)
{
    const uint64_t boot = tl_u64(front);
    const uint32_t count = tl_u32(front + 8);
    drop_record(o, &o->renumbering);
    o->renumbering = *record;
    if (boot > o->boot && boot <= TL_NUMBER_MAX && count >= o->count) {
        o->boot = boot;
        number_anew(o, boot, count);
    }
    if (o->renumbered == 0) {
        drop_record(o, &o->renumbering);
    }
}

static void found(void *owner, const tl_ring_record *record)
{
    tl_outbox *o = owner;
    uint8_t whole[FRONT + TL_ENTRY_MAX];
    tl_out out = {whole, 0, sizeof whole, false};
    if (!tl_ring_read(&o->ring, record, &out) || out.n < FRONT) {
        tl_ring_record nobodys = *record;
        drop_record(o, &nobodys);
    } else if (record->kind == COUNTERS) {
        drop_record(o, &o->counters);
        o->counters = *record;
        o->dropped = tl_u32(whole);
        o->refused = tl_u32(whole + 4);
    } else if (record->kind == RENUMBERING) {
        found_renumbering(o, record, whole);
    } else {
        found_entry(o, record, whole);
    }
}

bool tl_outbox_open(tl_outbox *o, const tl_port_flash *flash, uint16_t first_sector, uint16_t sectors,
                    const tl_port_kv *kv)
{
    memset(o, 0, sizeof *o);
    o->kv = kv;
    if (!tl_ring_open(&o->ring, flash, first_sector, sectors, found, o)) {
        return false;
    }
    uint8_t stored[8];
    tl_out out = {stored, 0, sizeof stored, false};
    if (kv->get(kv->with, boot_key, &out) && out.n == sizeof stored) {
        (void)tl_outbox_begin(o, tl_u64(stored)); /* where it fails, the other side is asked */
    }
    return true;
}

/* The counter is durable, and `boot` numbers from now on. */
static bool count_boot(tl_outbox *o, uint64_t boot)
{
    uint8_t stored[8];
    tl_out out = {stored, 0, sizeof stored, false};
    o->counting = false;
    if (boot > TL_NUMBER_MAX) {
        return false;
    }
    o->boot = boot;
    o->seq = 0;
    tl_put_u64(&out, boot);
    o->counting = o->kv->set(o->kv->with, boot_key, (tl_span){stored, sizeof stored}) &&
                  o->kv->commit(o->kv->with);
    return o->counting;
}

bool tl_outbox_begin(tl_outbox *o, uint64_t above)
{
    return count_boot(o, (above > o->boot ? above : o->boot) + 1);
}

uint64_t tl_outbox_boot(const tl_outbox *o)
{
    return o->counting ? o->boot : 0;
}

/* --- taking in --- */

/* Lets go of the oldest until there is room. The counters may be what holds the oldest sector: they are written
 * again later. */
static bool append(tl_outbox *o, uint8_t kind, tl_span front, tl_span rest, tl_ring_record *record)
{
    for (;;) {
        const tl_ring_result result = tl_ring_append(&o->ring, kind, front, rest, record);
        if (result != TL_RING_NO_ROOM) {
            return result == TL_RING_DONE;
        }
        if (o->counters.at != 0) {
            drop_record(o, &o->counters);
            o->counters_lag = true;
        } else if (o->count > 0) {
            drop_oldest(o);
        } else {
            return false; /* records that are not known here */
        }
    }
}

/* After what they count; where it fails, or makes more of them go, they lag behind. */
static void save_counters(tl_outbox *o)
{
    uint8_t front[FRONT] = {0};
    tl_out out = {front, 0, sizeof front, false};
    tl_ring_record record;
    if (!o->counters_lag) {
        return;
    }
    o->counters_lag = false;
    drop_record(o, &o->counters);
    tl_put_u32(&out, o->dropped);
    tl_put_u32(&out, o->refused);
    if (append(o, COUNTERS, (tl_span){front, sizeof front}, (tl_span){0}, &record)) {
        o->counters = record;
    }
}

bool tl_outbox_store(tl_outbox *o, tl_kind kind, tl_span text, size_t split)
{
    if (!o->counting || o->seq == UINT32_MAX || text.n > TL_ENTRY_MAX) {
        return false;
    }
    uint8_t front[FRONT];
    tl_out out = {front, 0, sizeof front, false};
    tl_put_u64(&out, o->boot);
    tl_put_u32(&out, o->seq + 1);
    tl_put_u16(&out, (uint16_t)split);
    tl_ring_record record;
    const bool stored = append(o, (uint8_t)kind, (tl_span){front, sizeof front}, text, &record);
    if (stored) {
        push(o, &record, (tl_number){o->boot, ++o->seq});
    }
    save_counters(o);
    return stored;
}

/* --- giving out --- */

tl_number tl_outbox_number(const tl_outbox *o, uint16_t index)
{
    const tl_outbox_entry *entry = entry_of(o, index);
    return (tl_number){o->base + entry->boots, entry->seq};
}

tl_kind tl_outbox_message(const tl_outbox *o, uint16_t index, tl_out *out)
{
    const tl_ring_record record = record_of(entry_of(o, index));
    const tl_number number = tl_outbox_number(o, index);
    if (!tl_ring_read(&o->ring, &record, out)) {
        return TL_KIND_NONE;
    }
    const size_t split = tl_u16(out->at + 12), text = out->n - FRONT;
    if (split > text) {
        return TL_KIND_NONE;
    }
    uint8_t numbered[64];
    tl_out middle = {numbered, 0, sizeof numbered, false};
    tl_envelope_put_number(&middle, number);
    memmove(out->at, out->at + FRONT, split);
    memmove(out->at + split + middle.n, out->at + FRONT + split, text - split);
    memcpy(out->at + split, numbered, middle.n);
    out->n = text + middle.n;
    const tl_number prev = index == 0 ? o->floor : tl_outbox_number(o, (uint16_t)(index - 1));
    tl_envelope_put_line(out, number, o->floor, prev);
    return out->full ? TL_KIND_NONE : (tl_kind)record.kind;
}

void tl_outbox_accept(tl_outbox *o, tl_number number)
{
    if (tl_number_above(number, o->floor)) {
        o->floor = number;
    }
    while (o->count > 0 && !tl_number_above(tl_outbox_number(o, 0), number)) {
        pop(o);
    }
}

void tl_outbox_let_go(tl_outbox *o, bool was_refused)
{
    pop(o);
    if (was_refused) {
        o->refused++;
    } else {
        o->dropped++;
    }
    o->counters_lag = true;
    save_counters(o);
}

bool tl_outbox_renumber(tl_outbox *o, tl_number above)
{
    if (above.boot > TL_BOOT_TOLD_MAX) {
        return false;
    }
    const uint64_t boot = (above.boot > o->boot ? above.boot : o->boot) + 1;
    const uint32_t count = o->count;
    if (count > 0) {
        /* The record comes first: a cut behind it leaves a counter that the record itself is above. */
        uint8_t front[FRONT] = {0};
        tl_out out = {front, 0, sizeof front, false};
        tl_ring_record record;
        tl_put_u64(&out, boot);
        tl_put_u32(&out, count);
        if (!append(o, RENUMBERING, (tl_span){front, sizeof front}, (tl_span){0}, &record)) {
            return false;
        }
        drop_record(o, &o->renumbering);
        o->renumbering = record;
        number_anew(o, boot, count);
    }
    if (tl_number_above(above, o->floor)) {
        o->floor = above;
    }
    const bool counted = count_boot(o, boot);
    o->seq = count;
    save_counters(o);
    return counted;
}
