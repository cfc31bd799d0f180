/* Between the files of tunnel.h. */
#ifndef TOWLINE_TUNNEL_PARTS_H
#define TOWLINE_TUNNEL_PARTS_H

#include "towline/tunnel.h"

/* The key list and the revocations that were stored. */
void tl_tunnel_load_trust(tl_tunnel *);
void tl_tunnel_take_keys(tl_tunnel *, tl_span text);
void tl_tunnel_granted(tl_tunnel *, const uint8_t *id, tl_span token);
void tl_tunnel_revoked(tl_tunnel *, const uint8_t *id);
/* What lets this stream in; NULL: it was refused. */
tl_grant *tl_tunnel_admit(tl_tunnel *, tl_stream_ref, const tl_open *);
/* Ends what grants no longer hold, stores what servers revoked; when it wants to be called again. */
uint64_t tl_tunnel_keep_trust(tl_tunnel *, uint64_t now_ms);

#endif
