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

typedef struct {
    struct lws_context *context;
    SSL_CTX *tls; /* ours: libwebsockets 4.1 finds no more what it made itself when a second context was made since */
} tl_lws;

/* Trusts the address's CA, or the system's where it names none. `user`: for lws_context_user. False: no memory, or
 * no certificate in the CA's text. */
bool tl_lws_begin(tl_lws *, const struct lws_protocols *protocols, const tl_lws_address *to, void *user);
void tl_lws_end(tl_lws *);
/* Adds the certificates of this text; -1 where there are none, since then nobody would be trusted. */
int tl_lws_trust(void *ssl_context, tl_span ca);

#endif
