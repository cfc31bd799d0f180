/* Numbers of messages, kinds and topics (docs/protocol/device-v1.md, sections 1 and 4). */
#ifndef TOWLINE_DEVICE_LINE_H
#define TOWLINE_DEVICE_LINE_H

#include "towline/span.h"

#define TL_NUMBER_MAX ((UINT64_C(1) << 53) - 1) /* what every JSON parser keeps exactly */
#define TL_PREFIX_MAX (4u * 64u + 3u)
#define TL_TOPIC_MAX (TL_PREFIX_MAX + 10u) /* with the longest kind */

/* Ordered by boot, then seq; 0.0 is before all. */
typedef struct {
    uint64_t boot, seq;
} tl_number;

/* Of kinds up to HEARTBEAT each message is numbered; records in the flash name them so: none is ever renamed. */
typedef enum {
    TL_KIND_NONE,
    TL_KIND_STATE = 1,
    TL_KIND_TELEMETRY = 2,
    TL_KIND_EVENT = 3,
    TL_KIND_HEARTBEAT = 4,
    TL_KIND_HELLO,
    TL_KIND_ACK,
    TL_KIND_CMD,
    TL_KIND_CONFIG,
    TL_KIND_ACCEPTED
} tl_kind;

bool tl_number_above(tl_number one, tl_number other);
/* The counter went back: the other side knows a number above the highest that can be (section 5). */
static inline bool tl_went_back(tl_number highest, tl_number told)
{
    return tl_number_above(told, highest);
}

const char *tl_kind_name(tl_kind kind);
/* Four tokens with / between them. */
bool tl_is_prefix(tl_span text);
/* The last of a prefix's tokens: whose topics they are. */
tl_span tl_prefix_device(tl_span prefix);
/* TL_KIND_NONE: it is no topic. `prefix` may be NULL. */
tl_kind tl_topic_kind(tl_span topic, tl_span *prefix);
void tl_put_topic(tl_out *out, tl_span prefix, tl_kind kind);

#endif
