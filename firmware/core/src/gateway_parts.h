/* Between the files of gateway.h. */
#ifndef TOWLINE_GATEWAY_PARTS_H
#define TOWLINE_GATEWAY_PARTS_H

#include "towline/gateway.h"

/* What the call that is under way is for. */
enum {
    STEP_NONE,
    STEP_ENROL,
    STEP_LOOK,
    STEP_CHALLENGE_TO_RENEW,
    STEP_RENEW,
    STEP_CHALLENGE_TO_CONNECT,
    STEP_CONNECT,
    STEP_OUTDATED /* something else was asked for meanwhile: its answer is nobody's */
};

/* Each begins a call; false: not now, something that is needed is in use. */
bool tl_enrolment_begin(tl_gateway *);
bool tl_challenge_begin(tl_gateway *, uint8_t step);
/* A call of that step has ended, and is closed behind it; a step that follows may begin. */
void tl_enrolment_ended(tl_gateway *, uint8_t step, tl_call_state);
void tl_challenge_ended(tl_gateway *, uint8_t step, tl_call_state);
void tl_renewal_ended(tl_gateway *, tl_call_state);
void tl_connection_ended(tl_gateway *, tl_call_state);

/* When to ask for a new certificate, monotonic. */
uint64_t tl_renewal_due(tl_gateway *, uint64_t now_ms);

static inline uint64_t tl_gateway_now(const tl_gateway *g)
{
    const tl_port_sys *sys = g->parts.port->sys;
    return sys->now_ms(sys->with);
}

/* Puts the next try off: twice as long with each failure, half of it by chance. */
void tl_gateway_later(tl_gateway *, uint32_t first_ms, uint32_t most_ms);
/* A member of the call's answer: a text of at most `cap` letters of base64url, as it may stand in an address or a
 * header. Its length; 0: there is none. */
size_t tl_gateway_word(const tl_gateway *, const char *name, uint8_t *to, size_t cap);

#endif
