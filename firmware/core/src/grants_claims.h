/* One grant token against every rule of section 7. */
#ifndef TOWLINE_GRANTS_CLAIMS_H
#define TOWLINE_GRANTS_CLAIMS_H

#include "towline/grants.h"

/* Fills `grant` except for its digest; `wall_s` must be a time the device may believe. */
tl_verdict tl_grants_verify(tl_grants *, const uint8_t id[TL_GRANT_ID], tl_span token, int64_t wall_s,
                            uint64_t now_ms, tl_grant *grant);

static inline tl_verdict tl_refusal(uint8_t code, const char *reason)
{
    return (tl_verdict){code, reason, NULL};
}

#endif
