#include "towline/revoked.h"

#include <string.h>

#include "towline/bytes.h"

#define FORMAT 1u

void tl_revoked_init(tl_revoked *r)
{
    memset(r, 0, sizeof *r);
}

static size_t used(const tl_revoked_entry *entries, size_t most)
{
    size_t n = 0;
    while (n < most && entries[n].until_s != 0) {
        n++;
    }
    return n;
}

static int find(const tl_revoked_entry *entries, size_t most, const uint8_t *id)
{
    for (size_t i = 0; i < most && entries[i].until_s != 0; i++) {
        if (memcmp(entries[i].id, id, TL_GRANT_ID) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static void drop(tl_revoked_entry *entries, size_t most, size_t at)
{
    memmove(entries + at, entries + at + 1, (most - at - 1) * sizeof *entries);
    memset(entries + most - 1, 0, sizeof *entries);
}

/* Behind all others; there must be a free place. */
static void append(tl_revoked_entry *entries, size_t most, const uint8_t *id, uint32_t until_s, uint32_t server)
{
    tl_revoked_entry *entry = entries + used(entries, most);
    memcpy(entry->id, id, TL_GRANT_ID);
    entry->until_s = until_s != 0 ? until_s : 1;
    entry->server = server;
}

bool tl_revoked_holds(const tl_revoked *r, const uint8_t id[TL_GRANT_ID])
{
    return find(r->known, TL_REVOKED_KNOWN, id) >= 0 || find(r->unseen, TL_REVOKED_UNSEEN, id) >= 0;
}

void tl_revoked_add(tl_revoked *r, const uint8_t id[TL_GRANT_ID], uint32_t until_s)
{
    const int at = find(r->known, TL_REVOKED_KNOWN, id);
    if (at >= 0) {
        drop(r->known, TL_REVOKED_KNOWN, (size_t)at);
    } else if (used(r->known, TL_REVOKED_KNOWN) == TL_REVOKED_KNOWN) {
        drop(r->known, TL_REVOKED_KNOWN, 0); /* the oldest */
    }
    append(r->known, TL_REVOKED_KNOWN, id, until_s, 0);
}

static size_t told_by(const tl_revoked *r, uint32_t server)
{
    size_t n = 0;
    for (size_t i = 0; i < TL_REVOKED_UNSEEN; i++) {
        n += r->unseen[i].until_s != 0 && r->unseen[i].server == server;
    }
    return n;
}

/* The oldest entry of the server that told most; of `mine`, which tells one more, where none told more. */
static size_t one_too_many(const tl_revoked *r, uint32_t mine)
{
    uint32_t whose = mine;
    size_t most = told_by(r, mine);
    for (size_t i = 0; i < TL_REVOKED_UNSEEN; i++) {
        const size_t n = told_by(r, r->unseen[i].server);
        if (n > most) {
            most = n;
            whose = r->unseen[i].server;
        }
    }
    size_t at = 0;
    while (r->unseen[at].server != whose) {
        at++;
    }
    return at;
}

/* One entry for each server that told it: one that tells what another told must not own the only entry, which it
 * could push out. */
static int told_already(const tl_revoked *r, const uint8_t *id, uint32_t server)
{
    for (size_t i = 0; i < TL_REVOKED_UNSEEN && r->unseen[i].until_s != 0; i++) {
        if (r->unseen[i].server == server && memcmp(r->unseen[i].id, id, TL_GRANT_ID) == 0) {
            return (int)i;
        }
    }
    return -1;
}

static bool add_unseen(tl_revoked *r, const uint8_t *id, uint32_t until_s, uint32_t server)
{
    if (find(r->known, TL_REVOKED_KNOWN, id) >= 0) {
        return false;
    }
    const int at = told_already(r, id, server);
    if (at >= 0) {
        drop(r->unseen, TL_REVOKED_UNSEEN, (size_t)at);
    } else if (used(r->unseen, TL_REVOKED_UNSEEN) == TL_REVOKED_UNSEEN) {
        drop(r->unseen, TL_REVOKED_UNSEEN, one_too_many(r, server));
    }
    append(r->unseen, TL_REVOKED_UNSEEN, id, until_s, server);
    return at < 0;
}

bool tl_revoked_add_unseen(tl_revoked *r, const uint8_t id[TL_GRANT_ID], uint32_t now_s, uint32_t server)
{
    return add_unseen(r, id, now_s + TL_REVOKED_UNKNOWN_S, server);
}

static void expire(tl_revoked_entry *entries, size_t most, uint32_t now_s)
{
    for (size_t i = used(entries, most); i > 0; i--) {
        if (entries[i - 1].until_s <= now_s) {
            drop(entries, most, i - 1);
        }
    }
}

void tl_revoked_expire(tl_revoked *r, uint32_t now_s)
{
    expire(r->known, TL_REVOKED_KNOWN, now_s);
    expire(r->unseen, TL_REVOKED_UNSEEN, now_s);
}

/* --- over a restart: format, number of known ones, number of unseen ones, entries; times in Unix seconds, 0
 * where the time was not known --- */

static void save(const tl_revoked_entry *entries, size_t n, int64_t wall_s, uint32_t now_s, tl_out *out)
{
    for (size_t i = 0; i < n; i++) {
        const int64_t left_s = (int64_t)entries[i].until_s - (int64_t)now_s;
        tl_put(out, entries[i].id, TL_GRANT_ID);
        tl_put_u64(out, wall_s < 0 ? 0 : (uint64_t)(wall_s + (left_s > 0 ? left_s : 0)));
        tl_put_u32(out, entries[i].server);
    }
}

void tl_revoked_save(const tl_revoked *r, int64_t wall_s, uint32_t now_s, tl_out *out)
{
    const size_t known = used(r->known, TL_REVOKED_KNOWN), unseen = used(r->unseen, TL_REVOKED_UNSEEN);
    tl_put_u8(out, FORMAT);
    tl_put_u8(out, (uint8_t)known);
    tl_put_u8(out, (uint8_t)unseen);
    save(r->known, known, wall_s, now_s, out);
    save(r->unseen, unseen, wall_s, now_s, out);
}

/* How long an entry is kept from now; 0: it is over. A clock that stands far behind keeps none for longer than
 * a day. */
static uint32_t left_s(uint64_t until, int64_t wall_s)
{
    if (until == 0 || wall_s < 0) {
        return TL_REVOKED_UNKNOWN_S;
    }
    if (until <= (uint64_t)wall_s) {
        return 0;
    }
    const uint64_t left = until - (uint64_t)wall_s;
    return left < TL_REVOKED_UNKNOWN_S ? (uint32_t)left : TL_REVOKED_UNKNOWN_S;
}

bool tl_revoked_restore(tl_revoked *r, tl_span saved, int64_t wall_s, uint32_t now_s)
{
    if (saved.n < 3 || saved.at[0] != FORMAT) {
        return false;
    }
    const size_t known = saved.at[1], entries = known + saved.at[2];
    if (known > TL_REVOKED_KNOWN || saved.at[2] > TL_REVOKED_UNSEEN || saved.n != 3 + entries * TL_REVOKED_ENTRY) {
        return false;
    }
    const uint8_t *at = saved.at + 3;
    for (size_t i = 0; i < entries; i++, at += TL_REVOKED_ENTRY) {
        const uint32_t left = left_s(tl_u64(at + TL_GRANT_ID), wall_s);
        if (left == 0) {
            continue;
        }
        if (i < known) {
            tl_revoked_add(r, at, now_s + left);
        } else {
            (void)add_unseen(r, at, now_s + left, tl_u32(at + TL_GRANT_ID + 8));
        }
    }
    return true;
}
