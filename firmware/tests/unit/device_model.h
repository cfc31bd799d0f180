/* Whoever takes a device's numbered messages, as docs/protocol/device-v1.md, section 4 has it: for tests. */
#ifndef TOWLINE_DEVICE_MODEL_H
#define TOWLINE_DEVICE_MODEL_H

#include "towline/device_line.h"

typedef enum { PLACE_TAKE, PLACE_SEEN, PLACE_GAP } place;

typedef struct {
    tl_number have;
    bool passed; /* by the last offer: another line took some */
} line;

static inline place line_offer(line *l, tl_number number, tl_number before, tl_number floor)
{
    l->passed = false;
    if (!tl_number_above(number, l->have)) {
        return PLACE_SEEN;
    }
    if (tl_number_above(floor, l->have)) {
        l->passed = true;
        l->have = floor;
    }
    if (tl_number_above(before, l->have)) {
        return PLACE_GAP;
    }
    l->have = number;
    return PLACE_TAKE;
}

#endif
