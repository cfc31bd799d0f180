/* When to dial again (docs/protocol/tunnel-v1.md, section 10; GOAWAY codes in section 6). The same rules as
 * tunnel_agent/policy/reconnect.py. */
#ifndef TOWLINE_RECONNECT_H
#define TOWLINE_RECONNECT_H

#include "towline/mux.h"

typedef enum { /* why a connection ended, as far as dialling again is concerned */
    TL_ENDING_LOST,     /* unplanned: network, timeout, crash, a rule broken on either side */
    TL_ENDING_GOAWAY,   /* the server asked us to come back later */
    TL_ENDING_REFUSED,  /* auth_failed, wrong_server_name */
    TL_ENDING_REPLACED, /* another instance has our key */
    TL_ENDING_REVOKED
} tl_ending;

typedef struct {
    uint64_t opened_at;
    uint8_t failures; /* the n of section 10 */
    bool is_open;
} tl_reconnect;

tl_ending tl_ending_of(const tl_close *why);
/* The handshake is complete. */
void tl_reconnect_opened(tl_reconnect *reconnect, uint64_t now_ms);
/* Milliseconds to sleep before the next dial; `random`: 32 uniform bits. `retry_after_ms`: the GOAWAY's, or 0. */
uint32_t tl_reconnect_ended(tl_reconnect *reconnect, tl_ending ending, uint64_t now_ms, uint32_t random,
                            uint32_t retry_after_ms);

#endif
