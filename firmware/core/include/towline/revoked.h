/* Grants that must not come back: what servers revoked, until each grant would have ended by itself.
 *
 * A hostile server may have kept a grant from before, shown or not: so an id is remembered whether its grant
 * came here or not, over a restart too. All of it is bounded, since whoever serves a tunnel can invent ids.
 * Times are whole seconds: `now_s` monotonic since the start, `wall_s` Unix, -1 while it is not known.
 */
#ifndef TOWLINE_REVOKED_H
#define TOWLINE_REVOKED_H

#include "towline/span.h"

#define TL_GRANT_ID 16u
#define TL_REVOKED_KNOWN 16u  /* revoked grants that were in force here: twice as many as may be at once */
#define TL_REVOKED_UNSEEN 64u /* ids that named no grant of ours */
/* Of a grant that never came the end is unknown: sessions are shorter than a day. */
#define TL_REVOKED_UNKNOWN_S (24u * 3600u)
#define TL_REVOKED_ENTRY (TL_GRANT_ID + 8u + 4u) /* bytes of one entry when saved */
#define TL_REVOKED_SAVED_MAX (3u + (TL_REVOKED_KNOWN + TL_REVOKED_UNSEEN) * TL_REVOKED_ENTRY)

typedef struct {
    uint8_t id[TL_GRANT_ID];
    uint32_t until_s; /* 0: the place is free */
    uint32_t server;  /* who told it; 0 in `known` */
} tl_revoked_entry;

/* Each part is in the order of coming, the free places last. */
typedef struct {
    tl_revoked_entry known[TL_REVOKED_KNOWN];
    tl_revoked_entry unseen[TL_REVOKED_UNSEEN];
} tl_revoked;

void tl_revoked_init(tl_revoked *);
bool tl_revoked_holds(const tl_revoked *, const uint8_t id[TL_GRANT_ID]);
/* A grant of ours was revoked, which would have ended at `until_s`. */
void tl_revoked_add(tl_revoked *, const uint8_t id[TL_GRANT_ID], uint32_t until_s);
/* `server` (a number that stays its own over restarts, not 0) revoked what never came; false when that is no
 * news. A server that invents ids pushes out those of whoever told most: its own. */
bool tl_revoked_add_unseen(tl_revoked *, const uint8_t id[TL_GRANT_ID], uint32_t now_s, uint32_t server);
void tl_revoked_expire(tl_revoked *, uint32_t now_s);

/* For `tl_revoked_restore`: ≤ TL_REVOKED_SAVED_MAX bytes. */
void tl_revoked_save(const tl_revoked *, int64_t wall_s, uint32_t now_s, tl_out *out);
/* Adds what was saved; false, and nothing is added, when it is something else. While the time is not known, or
 * was not when it was saved, each entry is kept for a day. */
bool tl_revoked_restore(tl_revoked *, tl_span saved, int64_t wall_s, uint32_t now_s);

#endif
