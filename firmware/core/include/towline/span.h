/* Bytes that are read where they lie, and room that is written into. Neither owns memory. */
#ifndef TOWLINE_SPAN_H
#define TOWLINE_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *at;
    size_t n;
} tl_span;

/* After the first write that does not fit nothing more is written and `full` is set: a writer looks once, at
 * its end. */
typedef struct {
    uint8_t *at;
    size_t n;
    size_t cap;
    bool full;
} tl_out;

#endif
