/* What an owner says who was asked for more bytes to send. */
#ifndef TOWLINE_STREAM_FILL_H
#define TOWLINE_STREAM_FILL_H

typedef enum {
    TL_FILL_MORE,  /* it has more to say as soon as there is room */
    TL_FILL_AGAIN, /* nothing now: whoever has news wakes the stream */
    TL_FILL_END,   /* that was all: FIN follows */
    TL_FILL_BROKEN /* it cannot be finished: the stream is cut, so that nobody takes it for whole */
} tl_fill;

#endif
