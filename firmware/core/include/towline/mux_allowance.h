/* How many control frames a peer may send (docs/protocol/tunnel-v1.md, section 9): what is moved earns them, a
 * little comes with time. The same arithmetic as tunnel_protocol/allowance.py. */
#ifndef TOWLINE_MUX_ALLOWANCE_H
#define TOWLINE_MUX_ALLOWANCE_H

#include <stdbool.h>
#include <stdint.h>

typedef struct {
    uint64_t at_ms; /* of the last filling, as is `sent` */
    uint64_t sent;
    uint32_t came; /* streams that the peer opened since */
    uint16_t left;
    uint16_t bytes_per_credit;
} tl_allowance;

void tl_allowance_init(tl_allowance *allowance, uint64_t now_ms);
/* The peer's HELLO came: it returns credit at half of these windows. */
void tl_allowance_open(tl_allowance *allowance, uint32_t stream_window, uint32_t connection_window);
/* One frame came that carries nothing anybody takes; `sent`: DATA bytes that left so far. False: the peer had
 * not earned it. */
bool tl_allowance_spend(tl_allowance *allowance, uint64_t now_ms, uint64_t sent);

#endif
