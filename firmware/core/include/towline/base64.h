/* Writing base64: the URL's alphabet without padding (RFC 4648 section 5), and PEM's (section 4). Reading
 * stands in bytes.h. */
#ifndef TOWLINE_BASE64_H
#define TOWLINE_BASE64_H

#include "towline/span.h"

void tl_put_base64url(tl_out *out, tl_span raw);
void tl_put_base64(tl_out *out, tl_span raw); /* padded, in one line */

#endif
