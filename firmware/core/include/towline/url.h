/* Which addresses the device talks to: TLS everywhere, plain text only to this machine's own loopback (a test, or
 * the simulator). */
#ifndef TOWLINE_URL_H
#define TOWLINE_URL_H

#include "towline/span.h"

#define TL_URL_MAX 200u /* bytes of one address that is kept */

typedef enum { TL_URL_GATEWAY, TL_URL_TUNNEL, TL_URL_BROKER } tl_url_kind; /* https, wss, mqtts */

/* Parts of the text that was read. */
typedef struct {
    bool secure; /* false: plain, to loopback alone */
    uint16_t port;
    tl_span host; /* without the brackets of an IPv6 address */
    tl_span path; /* empty, or from its slash on */
} tl_url;

/* NULL, or what is wrong with the address. */
const char *tl_url_read(tl_span text, tl_url_kind kind, tl_url *url);

#endif
