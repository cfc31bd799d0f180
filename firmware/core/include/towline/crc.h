/* CRC-32 (ISO-HDLC: reflected 0x04C11DB7, as zlib's). It finds what a power cut or a worn cell did; against a person
 * it protects nothing. */
#ifndef TOWLINE_CRC_H
#define TOWLINE_CRC_H

#include "towline/span.h"

/* `before`: the CRC of what stands in front of these bytes; 0 for nothing. */
uint32_t tl_crc32(uint32_t before, tl_span bytes);

#endif
