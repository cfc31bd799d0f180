#include <string.h>

#include "gateway_parts.h"

void tl_gateway_init(tl_gateway *g, const tl_gateway_parts *parts)
{
    memset(g, 0, sizeof *g);
    g->parts = *parts;
    tl_call_init(&g->call, parts->port, parts->workspace);
    parts->port->crypto->random(&g->spread, 1);
}

void tl_gateway_later(tl_gateway *g, uint32_t first_ms, uint32_t most_ms)
{
    uint8_t chance;
    uint32_t wait_ms = first_ms;
    for (unsigned i = 0; i < g->failures && wait_ms < most_ms; i++) {
        wait_ms *= 2;
    }
    if (wait_ms > most_ms) {
        wait_ms = most_ms;
    }
    g->failures = (uint8_t)(g->failures + (g->failures < UINT8_MAX));
    g->parts.port->crypto->random(&chance, 1);
    g->due_ms = tl_gateway_now(g) + wait_ms / 2 + wait_ms / 512 * chance;
}

static bool is_word(tl_span text)
{
    for (size_t i = 0; i < text.n; i++) {
        const uint8_t c = text.at[i];
        if (!(c >= 'a' && c <= 'z') && !(c >= 'A' && c <= 'Z') && !(c >= '0' && c <= '9') && c != '-' && c != '_') {
            return false;
        }
    }
    return true;
}

size_t tl_gateway_word(const tl_gateway *g, const char *name, uint8_t *to, size_t cap)
{
    tl_json value;
    tl_out out = {to, 0, cap, false};
    const bool found = tl_json_member(&g->call.answer, name, &value) && tl_json_unescape(&value, &out);
    return found && is_word((tl_span){to, out.n}) ? out.n : 0;
}

void tl_gateway_ask_connection(tl_gateway *g)
{
    g->connection_wanted = true;
}

void tl_gateway_stop(tl_gateway *g)
{
    tl_call_close(&g->call);
    g->step = STEP_NONE;
    g->asked = g->connection_wanted = g->renew_now = false;
}

uint64_t tl_gateway_run(tl_gateway *g)
{
    const uint64_t now = tl_gateway_now(g);
    const bool enrolled = g->parts.identity->enrolled;
    uint64_t due = UINT64_MAX;
    bool begun = true;
    if (g->step != STEP_NONE) {
        return due; /* the port ends it in time, and says so */
    }
    if (!enrolled && g->asked) {
        due = g->due_ms;
        begun = now < due || tl_enrolment_begin(g);
    } else if (enrolled && g->connection_wanted) {
        due = now;
        begun = tl_challenge_begin(g, STEP_CHALLENGE_TO_CONNECT);
    } else if (enrolled) {
        due = tl_renewal_due(g, now);
        begun = now < due || tl_challenge_begin(g, STEP_CHALLENGE_TO_RENEW);
    }
    if (!begun) {
        return now + TL_BUSY_MS;
    }
    return g->step != STEP_NONE ? UINT64_MAX : due;
}

bool tl_gateway_event(tl_gateway *g, const tl_event *event)
{
    const tl_call_state state = tl_call_event(&g->call, event);
    const uint8_t step = g->step;
    if (state == TL_CALL_NOT_OURS || state == TL_CALL_UNDER_WAY) {
        return state == TL_CALL_UNDER_WAY;
    }
    g->step = STEP_NONE;
    switch (step) {
    case STEP_OUTDATED:
        break;
    case STEP_ENROL:
    case STEP_LOOK:
        tl_enrolment_ended(g, step, state);
        break;
    case STEP_RENEW:
        tl_renewal_ended(g, state);
        break;
    case STEP_CONNECT:
        tl_connection_ended(g, state);
        break;
    default:
        tl_challenge_ended(g, step, state);
        break;
    }
    if (g->step == STEP_NONE) {
        tl_call_close(&g->call);
    }
    return true;
}
