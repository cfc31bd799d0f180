#include "towline/sending.h"

#include <string.h>

#include "towline/bytes.h"
#include "towline/envelope.h"

void tl_sending_init(tl_sending *s)
{
    memset(s, 0, sizeof *s);
    s->again_at = TL_NEVER_DUE;
    s->patience_ms = TL_PATIENCE_FIRST_MS;
}

static void go_back(tl_sending *s, const tl_outbox *o)
{
    s->next = o->gone;
    s->again_at = TL_NEVER_DUE;
}

void tl_sending_connected(tl_sending *s, const tl_outbox *o, uint64_t now_ms)
{
    s->connected = true;
    go_back(s, o);
    if (!s->was_connected) {
        s->was_connected = true;
        s->hold_until = now_ms + TL_HOLD_MS;
    }
}

void tl_sending_lost(tl_sending *s, const tl_outbox *o)
{
    s->connected = false;
    go_back(s, o);
}

void tl_sending_answered(tl_sending *s)
{
    s->hold_until = 0;
}

/* In the outbox as it is now: entries may have left since. */
static uint32_t place(tl_sending *s, const tl_outbox *o)
{
    if ((int32_t)(s->next - o->gone) < 0) {
        s->next = o->gone;
    }
    return s->next - o->gone;
}

bool tl_sending_next(tl_sending *s, const tl_outbox *o, uint64_t now_ms, uint16_t *index)
{
    if (!s->connected || !o->counting || now_ms < s->hold_until) {
        return false;
    }
    if (now_ms >= s->again_at) {
        s->patience_ms = s->patience_ms < TL_PATIENCE_MAX_MS / 2 ? 2 * s->patience_ms : TL_PATIENCE_MAX_MS;
        go_back(s, o);
    }
    const uint32_t at = place(s, o);
    *index = (uint16_t)at;
    return at < o->count && at < TL_WINDOW;
}

static void be_patient(tl_sending *s, uint64_t now_ms, uint32_t random)
{
    s->again_at = now_ms + s->patience_ms + (((uint64_t)s->patience_ms / 2 * random) >> 32);
}

void tl_sending_sent(tl_sending *s, const tl_outbox *o, uint16_t index, uint64_t now_ms, uint32_t random)
{
    const tl_number number = tl_outbox_number(o, index);
    s->next = o->gone + index + 1;
    if (tl_number_above(number, s->said)) {
        s->said = number;
    }
    if (s->again_at == TL_NEVER_DUE) {
        be_patient(s, now_ms, random);
    }
}

uint64_t tl_sending_due(const tl_sending *s, const tl_outbox *o, uint64_t now_ms)
{
    if (!s->connected || !o->counting || o->count == 0) {
        return TL_NEVER_DUE;
    }
    if (now_ms < s->hold_until) {
        return s->hold_until;
    }
    const uint32_t at = s->next - o->gone;
    const bool more = (int32_t)at < 0 || (at < o->count && at < TL_WINDOW);
    return more ? now_ms : s->again_at;
}

tl_taken tl_sending_accepted(tl_sending *s, tl_outbox *o, tl_number number, uint64_t now_ms, uint32_t random)
{
    const uint64_t boot = tl_outbox_boot(o);
    const tl_number highest = {boot, s->said.boot == boot ? s->said.seq : 0};
    if (tl_went_back(highest, number)) {
        if (now_ms < s->renumber_after) {
            return TL_TAKEN_OLD;
        }
        s->renumber_after = now_ms + TL_RENUMBER_EVERY_MS;
        const bool done = tl_outbox_renumber(o, number); /* where it fails, it is told again */
        go_back(s, o);
        return done ? TL_TAKEN_RENUMBERED : TL_TAKEN_OLD;
    }
    if (!tl_number_above(number, o->floor)) {
        return TL_TAKEN_OLD;
    }
    const uint32_t gone = o->gone;
    tl_outbox_accept(o, number);
    s->patience_ms = TL_PATIENCE_FIRST_MS;
    if (o->gone != gone) {
        s->refusals = 0;
    }
    s->again_at = TL_NEVER_DUE;
    if (place(s, o) > 0) {
        be_patient(s, now_ms, random);
    }
    return TL_TAKEN_NEWS;
}

bool tl_sending_refused(tl_sending *s, tl_outbox *o, const uint8_t id[16], tl_out *scratch)
{
    uint8_t text[36];
    tl_out wanted = {text, 0, sizeof text, false};
    tl_put_uuid(&wanted, id);
    scratch->n = 0;
    if (o->count == 0 || place(s, o) == 0 || tl_outbox_message(o, 0, scratch) == TL_KIND_NONE ||
        memcmp(scratch->at + TL_ENVELOPE_ID_AT, text, sizeof text) != 0 || ++s->refusals < TL_REFUSALS) {
        return false;
    }
    s->refusals = 0;
    tl_outbox_let_go(o, true);
    if (place(s, o) == 0) {
        s->again_at = TL_NEVER_DUE;
    }
    return true;
}
