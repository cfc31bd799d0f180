/* What the files of the mux share. Not for owners. */
#ifndef TOWLINE_MUX_PARTS_H
#define TOWLINE_MUX_PARTS_H

#include "towline/mux.h"

static inline bool tl_mux_is_live(const tl_mux *mux)
{
    return mux->state == TL_MUX_OPEN || mux->state == TL_MUX_DRAINING;
}

static inline const tl_limits *tl_mux_limits(const tl_mux *mux)
{
    return &mux->config.hello->limits;
}

/* mux.c: ends */
void tl_mux_violation(tl_mux *mux, tl_close_code code, tl_wrong reason); /* the peer broke a rule */
void tl_mux_end(tl_mux *mux, tl_close why);                              /* no GOAWAY */
void tl_mux_end_if_drained(tl_mux *mux);

/* mux_send.c */
void tl_control_add(tl_mux *mux, tl_control entry); /* may end the connection with an overflow */
void tl_control_append(tl_mux *mux, tl_control entry); /* where there is room */
void tl_control_purge(tl_mux *mux);

/* stream.c */
tl_stream *tl_stream_with_id(tl_mux *mux, uint32_t id);              /* NULL: none is live */
tl_stream *tl_stream_of(const tl_mux *mux, tl_stream_ref ref);       /* NULL: over */
tl_stream *tl_stream_new(tl_mux *mux, uint32_t id);                  /* NULL: all slots are taken */
void tl_stream_keep(tl_mux *mux, tl_stream *stream, tl_span data);   /* the caller has checked credit */
bool tl_stream_fin_came(tl_stream *stream);                          /* false: not allowed in its state */
bool tl_stream_may_send(const tl_stream *stream);                    /* accepted, and no FIN has left */
bool tl_stream_may_receive(const tl_stream *stream);                 /* accepted, and no FIN came */
void tl_stream_fin_left(tl_mux *mux, tl_stream *stream);
void tl_stream_end(tl_mux *mux, tl_stream *stream, tl_over how, tl_reset_code code); /* tells the owner */

#endif
