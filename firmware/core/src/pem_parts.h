/* PEM's armour, and the bytes around a P-256 point. */
#ifndef TOWLINE_PEM_PARTS_H
#define TOWLINE_PEM_PARTS_H

#include "towline/pem.h"

/* SEQUENCE { SEQUENCE { ecPublicKey, prime256v1 }, BIT STRING { the point follows (RFC 5480) */
#define TL_SPKI_HEAD 26u
extern const uint8_t tl_spki_head[TL_SPKI_HEAD];
#define TL_SPKI (TL_SPKI_HEAD + TL_P256_POINT)

void tl_pem_put(tl_out *out, const char *label, tl_span der);
/* The DER of the text's first block, which must have this label; written to the begin of `scratch`. False when
 * there is none. */
bool tl_pem_read(tl_span pem, const char *label, tl_out scratch, tl_span *der);

#endif
