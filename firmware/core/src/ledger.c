#include "towline/ledger.h"

#include <string.h>

#include "towline/bytes.h"

#define HEAD (TL_UUID + 6u) /* id, order, state, what; then the error's text */

static void key_of(uint8_t slot, char key[4])
{
    key[0] = 'l';
    key[1] = (char)('0' + slot / 10);
    key[2] = (char)('0' + slot % 10);
    key[3] = 0;
}

static bool read_slot(const tl_ledger *l, uint8_t slot, tl_out *out)
{
    char key[4];
    key_of(slot, key);
    return l->kv->get(l->kv->with, key, out) && out->n >= HEAD;
}

void tl_ledger_open(tl_ledger *l, const tl_port_kv *kv)
{
    memset(l, 0, sizeof *l);
    l->kv = kv;
    for (uint8_t i = 0; i < TL_LEDGER_ENTRIES; i++) {
        uint8_t raw[HEAD + TL_LEDGER_ERROR_MAX];
        tl_out out = {raw, 0, sizeof raw, false};
        if (!read_slot(l, i, &out) || raw[TL_UUID + 4] > TL_LEDGER_FAILED) {
            continue;
        }
        tl_ledger_entry *entry = &l->entries[i];
        memcpy(entry->id, raw, TL_UUID);
        entry->order = tl_u32(raw + TL_UUID);
        entry->state = raw[TL_UUID + 4];
        entry->what = raw[TL_UUID + 5];
        if (entry->order > l->order) {
            l->order = entry->order;
        }
    }
}

uint8_t tl_ledger_find(const tl_ledger *l, const uint8_t id[TL_UUID])
{
    for (uint8_t i = 0; i < TL_LEDGER_ENTRIES; i++) {
        if (l->entries[i].state != TL_LEDGER_FREE && memcmp(l->entries[i].id, id, TL_UUID) == 0) {
            return i;
        }
    }
    return TL_NO_SLOT;
}

static bool save(const tl_ledger *l, uint8_t slot, const char *error)
{
    const tl_ledger_entry *entry = &l->entries[slot];
    uint8_t raw[HEAD + TL_LEDGER_ERROR_MAX];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put(&out, entry->id, TL_UUID);
    tl_put_u32(&out, entry->order);
    tl_put_u8(&out, entry->state);
    tl_put_u8(&out, entry->what);
    tl_span text = tl_text(error);
    tl_put_span(&out, tl_take(&text, TL_LEDGER_ERROR_MAX));
    char key[4];
    key_of(slot, key);
    return l->kv->set(l->kv->with, key, (tl_span){raw, out.n}) && l->kv->commit(l->kv->with);
}

uint8_t tl_ledger_take(tl_ledger *l, const uint8_t id[TL_UUID], uint8_t what)
{
    uint8_t slot = TL_NO_SLOT;
    for (uint8_t i = 0; i < TL_LEDGER_ENTRIES; i++) { /* the oldest that has ended */
        const tl_ledger_entry *entry = &l->entries[i];
        if (entry->state != TL_LEDGER_BEGUN && (slot == TL_NO_SLOT || entry->order < l->entries[slot].order)) {
            slot = i;
        }
    }
    if (slot == TL_NO_SLOT) {
        return slot;
    }
    const tl_ledger_entry before = l->entries[slot];
    tl_ledger_entry *entry = &l->entries[slot];
    *entry = (tl_ledger_entry){.order = ++l->order, .state = TL_LEDGER_BEGUN, .what = what};
    memcpy(entry->id, id, TL_UUID);
    if (!save(l, slot, NULL)) {
        *entry = before;
        return TL_NO_SLOT;
    }
    return slot;
}

bool tl_ledger_end(tl_ledger *l, uint8_t slot, const char *error)
{
    l->entries[slot].state = error == NULL ? TL_LEDGER_DONE : TL_LEDGER_FAILED;
    return save(l, slot, error);
}

void tl_ledger_put_error(const tl_ledger *l, uint8_t slot, tl_out *out)
{
    uint8_t raw[HEAD + TL_LEDGER_ERROR_MAX];
    tl_out stored = {raw, 0, sizeof raw, false};
    if (read_slot(l, slot, &stored)) {
        tl_put(out, raw + HEAD, stored.n - HEAD);
    }
}
