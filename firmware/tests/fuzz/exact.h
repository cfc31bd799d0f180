/* What the fuzz targets share: memory of exactly the input's size, and the way to fail. */
#ifndef TOWLINE_FUZZ_EXACT_H
#define TOWLINE_FUZZ_EXACT_H

#include <stdlib.h>
#include <string.h>

#include "towline/span.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static inline void must(bool holds)
{
    if (!holds) {
        abort();
    }
}

/* A copy of which the sanitizers see each byte that is read beside it; to be freed. */
static inline uint8_t *exact(const uint8_t *data, size_t n)
{
    uint8_t *copy = malloc(n > 0 ? n : 1);
    must(copy != NULL);
    if (n > 0) {
        memcpy(copy, data, n);
    }
    return copy;
}

#endif
