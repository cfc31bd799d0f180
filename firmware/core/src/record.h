/* Fields of a record in the key-value store: a length of two bytes, then the bytes. */
#ifndef TOWLINE_RECORD_H
#define TOWLINE_RECORD_H

#include "towline/span.h"

void tl_record_put(tl_out *out, tl_span field);
/* False: the record is cut, or the field is longer than `cap`. */
bool tl_record_take(tl_span *rest, uint8_t *to, size_t cap, size_t *n);

#endif
