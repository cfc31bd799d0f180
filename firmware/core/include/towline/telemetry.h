/* What the device measures: summed up over the time of a report, since raw samples never leave it; and what is
 * added once to the next health report (docs/protocol/device-v1.md, section 6). */
#ifndef TOWLINE_TELEMETRY_H
#define TOWLINE_TELEMETRY_H

#include "towline/json.h"

#define TL_READINGS 16u    /* numbers that are measured */
#define TL_SENSORS_MAX 512u /* bytes of all that one health report gets, as JSON */

typedef struct {
    const char *name; /* [a-zA-Z0-9_.-]{1,64}, stays where it is */
    int64_t sum;
    uint32_t n; /* 0: nothing since the last report */
    int32_t least, most, last;
    uint8_t decimals; /* values are counted in 10^-decimals */
} tl_reading;

typedef struct {
    int64_t from_ms; /* Unix, of the first sample; < 0: the device had no clock then */
    uint8_t count;
    tl_reading readings[TL_READINGS];
} tl_telemetry;

/* One sample. False: no such name may be, or there are too many. */
bool tl_telemetry_add(tl_telemetry *, const char *name, int32_t value, uint8_t decimals, int64_t wall_ms);
/* Appends a payload of what was measured, and begins anew; false: there was nothing, or it does not fit, and stays
 * for the next call. `first`: of the readings, moved on to the one that found no room; 0 when all are told. */
bool tl_telemetry_report(tl_telemetry *, int64_t wall_ms, uint8_t *first, tl_out *out);

typedef struct {
    uint16_t n;
    uint8_t text[TL_SENSORS_MAX]; /* members, without the braces around them */
} tl_sensors;

/* Added once to the next health report; a name that is there already gets the new value. `value`: JSON, a number, a
 * text of at most 256 characters, true or false. False: it is not that, or there is no room. */
bool tl_sensors_set(tl_sensors *, const char *name, tl_span value);

#endif
