/* One byte stream to a service of this device, as its owner uses it (docs/protocol/tunnel-v1.md, 6 and 8). */
#ifndef TOWLINE_STREAM_H
#define TOWLINE_STREAM_H

#include "towline/frame.h"
#include "towline/stream_fill.h"

typedef struct tl_mux tl_mux;

/* epoch << 8 | index. An epoch is used once, so a late caller of a stream that is over does nothing. 0: none. */
typedef uint32_t tl_stream_ref;

#define TL_MAX_STREAMS 64u /* slots; an index has 8 bits */

static inline unsigned tl_stream_index(tl_stream_ref ref)
{
    return ref & 0xFFu;
}

typedef enum { /* HERE and THERE say whose FIN has passed */
    TL_STREAM_FREE,
    TL_STREAM_REQUESTED, /* OPEN waits for our answer */
    TL_STREAM_REQUESTED_FINISHED_THERE,
    TL_STREAM_OPEN,
    TL_STREAM_FINISHED_HERE,
    TL_STREAM_FINISHED_THERE
} tl_stream_state;

/* Private to the mux. Offsets count DATA payload bytes since the stream began. */
typedef struct {
    uint64_t sent;
    uint64_t send_limit;
    uint64_t received;
    uint64_t receive_limit;
    uint64_t consumed;
    uint64_t return_at; /* `consumed` at which the peer gets new credit */
    uint32_t id;
    tl_stream_ref ref;
    uint32_t head;  /* where in the ring the first byte lies that is not consumed */
    uint8_t state;  /* a tl_stream_state */
    bool ready;     /* its owner has something to send, as far as is known */
    bool finishing; /* nothing but FIN is still to leave */
} tl_stream;

typedef enum {
    TL_OVER_FINISHED, /* both sides had FIN */
    TL_OVER_RESET,    /* by the peer: see the code */
    TL_OVER_LOST      /* with the connection */
} tl_over;

/* Answers OPENED. False: the stream is over, or was answered. What came before is there for peek, and
 * tl_stream_peer_finished says whether the FIN was behind it: neither is told again by an event. */
bool tl_stream_accept(tl_mux *mux, tl_stream_ref ref);
/* Answers REFUSED: the stream is over, without an event. `message`: a literal, at most TL_MAX_REASON bytes. */
void tl_stream_refuse(tl_mux *mux, tl_stream_ref ref, tl_refused_code code, const char *message);
/* Cuts both directions; the stream is over, without an event. */
void tl_stream_reset(tl_mux *mux, tl_stream_ref ref, tl_reset_code code);

/* There is something to send: the owner's `fill` is asked when a message leaves that has room for it. */
void tl_stream_wake(tl_mux *mux, tl_stream_ref ref);
/* FIN without more bytes; the same as answering `fill` with TL_FILL_END. */
void tl_stream_finish(tl_mux *mux, tl_stream_ref ref);
/* Bytes that the peer's credit allows now. */
size_t tl_stream_room(const tl_mux *mux, tl_stream_ref ref);

/* Bytes that came and are not consumed: those that lie in one piece. After consuming them look again. */
tl_span tl_stream_peek(const tl_mux *mux, tl_stream_ref ref);
/* The owner is done with the first `n` bytes; each half of a window gives the peer new credit. */
void tl_stream_consumed(tl_mux *mux, tl_stream_ref ref, size_t n);
/* Its FIN came: behind what peek gives nothing follows. */
bool tl_stream_peer_finished(const tl_mux *mux, tl_stream_ref ref);

#endif
