/* The little of Protocol Buffers (encoding of proto3) that provisioning speaks: numbers and bytes. */
#ifndef TOWLINE_PROTOBUF_H
#define TOWLINE_PROTOBUF_H

#include "towline/span.h"

typedef struct {
    uint32_t number;
    bool is_bytes;
    uint64_t value; /* of a number */
    tl_span bytes;
} tl_pb_field;

/* The next field; false at the end, and for what is no message: then `broken` is set. */
bool tl_pb_next(tl_span *rest, tl_pb_field *field, bool *broken);
/* The last field of this number, as proto3 has it. False: there is none, or it is of another kind, or `message` is
 * none. */
bool tl_pb_bytes(tl_span message, uint32_t number, tl_span *bytes);
/* The same of a number; 0 where there is none. */
bool tl_pb_number(tl_span message, uint32_t number, uint64_t *value);

void tl_pb_put_number(tl_out *out, uint32_t number, uint64_t value);
void tl_pb_put_bytes(tl_out *out, uint32_t number, tl_span bytes);

#endif
