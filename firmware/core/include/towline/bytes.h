/* Big-endian numbers, text rules and base64url (RFC 4648 section 5). */
#ifndef TOWLINE_BYTES_H
#define TOWLINE_BYTES_H

#include "towline/span.h"

#define TL_MAX_NAME 64u /* bytes of a device id or a service name */

uint16_t tl_u16(const uint8_t *at);
uint32_t tl_u32(const uint8_t *at);
uint64_t tl_u64(const uint8_t *at);

void tl_put(tl_out *out, const void *bytes, size_t n);
void tl_put_span(tl_out *out, tl_span bytes);
void tl_put_text(tl_out *out, const char *text); /* without its NUL */
void tl_put_u8(tl_out *out, uint8_t value);
void tl_put_u16(tl_out *out, uint16_t value);
void tl_put_u32(tl_out *out, uint32_t value);
void tl_put_u64(tl_out *out, uint64_t value);

tl_span tl_text(const char *text);            /* a C string's bytes; NULL: empty */
tl_span tl_take(tl_span *from, size_t n);     /* the first n bytes, fewer where there are fewer */
tl_span tl_split(tl_span *from, uint8_t end); /* up to `end`, which is dropped; all when it stands nowhere */
bool tl_same(tl_span one, tl_span other);
bool tl_is(tl_span bytes, const char *text);

void tl_put_hex(tl_out *out, tl_span bytes); /* two digits each, in lower case */
/* The two digits at `text`, in lower case. */
bool tl_hex(const uint8_t *text, uint8_t *byte);

bool tl_is_ascii(tl_span bytes);
bool tl_is_utf8(tl_span bytes); /* strict: RFC 3629, no surrogates, nothing overlong */
bool tl_is_name(tl_span bytes); /* [a-z0-9_-]{1,64}: a device id or a service */

/* DNS names have no case (RFC 4343); ASCII alone. */
bool tl_same_host(tl_span one, tl_span other);

/* Canonical base64url without padding: one text for each value, so unused bits must be 0. False when `text` is
 * anything else, or does not fit. */
bool tl_base64url_decode(tl_span text, tl_out *out);

#endif
