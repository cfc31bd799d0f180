#include "towline/reconnect.h"

#define SECOND 1000u
#define MAX_BACKOFF_MS (60 * SECOND)
#define MAX_EXPONENT 6u /* 2⁶ s already exceeds MAX_BACKOFF_MS */
#define MAX_SLOW_EXPONENT 16u
#define MAX_FAILURES 64u
#define STABLE_AFTER_MS (30 * SECOND) /* open for so long: the next failure starts a new count */
/* A server may not send us away for longer than this, whatever its clock or its mood. */
#define MAX_RETRY_AFTER_MS (600 * SECOND)
/* So many times in a row a server may call us back as early as it likes; one that goes on would have the device
 * sign handshakes without an end. */
#define QUICK_GOAWAYS 3u

/* Where only a person, or time, can help. Revoked: each try costs the server a signature check. Replaced: the pace
 * of a fight with a clone is ours to keep low. Refused: a restored database or a mended DNS entry may help. */
static const struct {
    uint32_t first_ms, most_ms;
} slow[] = {
    [TL_ENDING_REFUSED] = {15 * SECOND, 300 * SECOND},
    [TL_ENDING_REPLACED] = {30 * SECOND, 600 * SECOND},
    [TL_ENDING_REVOKED] = {600 * SECOND, 6 * 3600 * SECOND},
};

tl_ending tl_ending_of(const tl_close *why)
{
    if (!why->has_code) {
        return TL_ENDING_LOST;
    }
    switch (why->code) {
    case TL_CLOSE_REVOKED:
        return TL_ENDING_REVOKED;
    case TL_CLOSE_REPLACED:
        return TL_ENDING_REPLACED;
    case TL_CLOSE_AUTH_FAILED:
    case TL_CLOSE_WRONG_SERVER_NAME:
        return TL_ENDING_REFUSED;
    case TL_CLOSE_NORMAL:
    case TL_CLOSE_TRY_LATER:
    case TL_CLOSE_IDS_EXHAUSTED:
        return TL_ENDING_GOAWAY;
    default:
        return TL_ENDING_LOST;
    }
}

void tl_reconnect_opened(tl_reconnect *reconnect, uint64_t now_ms)
{
    reconnect->is_open = true;
    reconnect->opened_at = now_ms;
}

/* A random part of `most`, evenly spread. */
static uint32_t part_of(uint32_t most, uint32_t random)
{
    return (uint32_t)(((uint64_t)most * random) >> 32);
}

/* first × 2ⁿ, at most `most`. */
static uint32_t doubled(uint32_t first, uint32_t most, unsigned n)
{
    uint64_t value = (uint64_t)first << n;
    return value < most ? (uint32_t)value : most;
}

uint32_t tl_reconnect_ended(tl_reconnect *reconnect, tl_ending ending, uint64_t now_ms, uint32_t random,
                            uint32_t retry_after_ms)
{
    if (reconnect->is_open && now_ms - reconnect->opened_at >= STABLE_AFTER_MS) {
        reconnect->failures = 0;
    }
    reconnect->is_open = false;
    unsigned n = reconnect->failures;
    if (n < MAX_FAILURES) {
        reconnect->failures++;
    }
    if (ending >= TL_ENDING_REFUSED) {
        unsigned exponent = n < MAX_SLOW_EXPONENT ? n : MAX_SLOW_EXPONENT;
        uint32_t wait = doubled(slow[ending].first_ms, slow[ending].most_ms, exponent);
        /* Half of the wait is certain: full jitter would give a revoked device quick tries now and then. */
        return wait / 2 + part_of(wait / 2, random);
    }
    uint32_t spread = part_of(doubled(SECOND, MAX_BACKOFF_MS, n < MAX_EXPONENT ? n : MAX_EXPONENT), random);
    if (ending == TL_ENDING_GOAWAY && retry_after_ms > 0) {
        uint32_t asked = retry_after_ms < MAX_RETRY_AFTER_MS ? retry_after_ms : MAX_RETRY_AFTER_MS;
        asked += part_of(asked, random);
        return n < QUICK_GOAWAYS || asked > spread ? asked : spread;
    }
    return spread;
}
