/* The envelope of what the device says (docs/protocol/device-v1.md, section 3), written piece by piece: what is
 * stored has no number yet, so an entry is numbered anew without being written anew. */
#ifndef TOWLINE_ENVELOPE_H
#define TOWLINE_ENVELOPE_H

#include "towline/device_line.h"
#include "towline/json.h"

#define TL_UUID 16u

typedef struct {
    const char *type; /* a token: the kind's name, or what it is of the kind */
    int64_t ts_ms;    /* Unix time when it was made; < 0: the device had no clock then */
    uint64_t up_ms;   /* since the boot */
    uint8_t random[10];
} tl_envelope;

/* A UUID as 36 characters. */
void tl_put_uuid(tl_out *out, const uint8_t id[TL_UUID]);
/* One of version 7 in lower case (RFC 9562, section 5.7). */
bool tl_uuid7_read(const tl_json *text, uint8_t id[TL_UUID]);

#define TL_ENVELOPE_ID_AT 7u /* where the id's characters stand */

/* {"id":…,"v":1,"type":…,"ts":…,"up":… */
void tl_envelope_put_head(tl_out *out, const tl_envelope *envelope);
/* ,"boot":…,"seq":…,"payload": */
void tl_envelope_put_number(tl_out *out, tl_number number);
/* ,"floor":[…],"prev":[…]} with prev left out where a reader knows it. */
void tl_envelope_put_line(tl_out *out, tl_number number, tl_number floor, tl_number prev);

#endif
