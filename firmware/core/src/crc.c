#include "towline/crc.h"

#define POLYNOMIAL 0xEDB88320u

/* Bit by bit: a table would be 1 KiB, and opening the whole outbox takes some 20 ms this way. */
uint32_t tl_crc32(uint32_t before, tl_span bytes)
{
    uint32_t crc = ~before;
    for (size_t i = 0; i < bytes.n; i++) {
        crc ^= bytes.at[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? POLYNOMIAL : 0);
        }
    }
    return ~crc;
}
