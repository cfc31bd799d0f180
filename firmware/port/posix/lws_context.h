/* A libwebsockets context for one connection: made, served and ended by that connection's own thread. */
#ifndef TOWLINE_POSIX_LWS_CONTEXT_H
#define TOWLINE_POSIX_LWS_CONTEXT_H

#include <libwebsockets.h>

#include "towline_port.h"

#define TL_HOST_MAX 253u /* a DNS name's greatest length */
#define TL_PATH_MAX 1023u

/* An address as libwebsockets wants it. */
typedef struct {
    char host[TL_HOST_MAX + 1];
    char authority[TL_HOST_MAX + 11]; /* for Host: with the port where it is not the usual one */
    char path[TL_PATH_MAX + 1];
    uint16_t port;
    bool secure;
    tl_span ca;
} tl_lws_address;

/* False: longer than an address may be, or in the clear to another machine. */
bool tl_lws_address_read(tl_lws_address *, const tl_address *);

/* `user`: for lws_context_user. NULL: no memory, or no certificate in `ca`. */
struct lws_context *tl_lws_begin(const struct lws_protocols *protocols, tl_span ca, void *user);
/* To be handed LWS_CALLBACK_OPENSSL_LOAD_EXTRA_CLIENT_VERIFY_CERTS by the first protocol; what it answers is the
 * callback's answer. */
int tl_lws_trust(void *ssl_context, tl_span ca);
void tl_lws_end(struct lws_context *);

#endif
