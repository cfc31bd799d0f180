#include "towline/mux_allowance.h"

enum {
    BURST = 4096,     /* frames that may come at once without having been earned */
    PER_SECOND = 500, /* keepalives and refusals */
    PER_STREAM = 8,   /* FIN, RESET, and CREDITs for its first bytes */
    BYTES_PER_CREDIT = 256,
};

/* Beyond these more is earned than BURST allows; with them 32 bits hold all that follows. */
#define MOST_MS (1u << 14)
#define MOST_BYTES (1u << 20)
#define MOST_CAME (1u << 10)

void tl_allowance_init(tl_allowance *allowance, uint64_t now_ms)
{
    *allowance = (tl_allowance){
        .at_ms = now_ms,
        .left = BURST,
        .bytes_per_credit = BYTES_PER_CREDIT,
        .came = 1, /* the other machine counts its own first stream id as one at the first filling */
    };
}

void tl_allowance_open(tl_allowance *allowance, uint32_t stream_window, uint32_t connection_window)
{
    uint32_t half = (stream_window < connection_window ? stream_window : connection_window) / 2;
    allowance->bytes_per_credit = (uint16_t)(half < 1 ? 1 : half < BYTES_PER_CREDIT ? half : BYTES_PER_CREDIT);
}

static uint32_t at_most(uint64_t value, uint32_t most)
{
    return value < most ? (uint32_t)value : most;
}

bool tl_allowance_spend(tl_allowance *allowance, uint64_t now_ms, uint64_t sent)
{
    if (allowance->left > 0) {
        allowance->left--;
        return true;
    }
    uint32_t by_time = at_most(now_ms - allowance->at_ms, MOST_MS) * PER_SECOND / 1000;
    uint32_t by_streams = at_most(allowance->came, MOST_CAME) * PER_STREAM;
    /* The stream's credit and the connection's. */
    uint32_t by_bytes = 2 * at_most(sent - allowance->sent, MOST_BYTES) / allowance->bytes_per_credit;
    uint32_t earned = by_time + by_streams + by_bytes;
    if (earned < 1) {
        return false;
    }
    allowance->left = (uint16_t)(at_most(earned, BURST) - 1);
    allowance->at_ms = now_ms;
    allowance->sent = sent;
    allowance->came = 0;
    return true;
}
