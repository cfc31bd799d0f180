/* The port's link group by libwebsockets: a thread for each connection. */
#ifndef TOWLINE_POSIX_LINK_LWS_H
#define TOWLINE_POSIX_LINK_LWS_H

#include "lws_context.h"
#include "queue.h"

#define TL_LINK_RX_SLOTS 2u       /* one is read by the core while the next one comes */
#define TL_LINK_CLOSE_MS 1000u    /* for the peer's part of the closing handshake */
#define TL_LINK_REASON_MAX 123u   /* RFC 6455 section 5.5.1: two of 125 bytes are the status */
#define TL_LINK_WHY_MAX 96u

typedef struct {
    size_t n;
    bool lent;
    uint8_t bytes[TL_LINK_MESSAGE_MAX];
} tl_link_slot;

typedef struct {
    tl_port_link port;
    tl_queue *queue;
    int socket_buffer; /* bytes, as a chip's network stack has them; 0: the system's */
    /* Of the connection; by its thread alone. */
    tl_lws_address to;
    struct lws *wsi;
    tl_link_slot *filling; /* the message that is under way; NULL: none */
    bool paused;           /* no slot is free */
    bool close_said;
    bool over;
    uint16_t status;
    const char *why;
    char error[TL_LINK_WHY_MAX];
    lws_sorted_usec_list_t deadline;
    /* Both sides', under the lock. */
    pthread_mutex_t lock;
    pthread_t thread;
    bool has_thread;
    struct lws_context *context; /* NULL: not yet, or not any more */
    uint32_t number;
    bool opened;
    bool wants_room; /* the core asked in vain */
    size_t tx_n;     /* 0: the room is free */
    bool closing;
    uint16_t close_status;
    size_t close_reason_n;
    uint8_t close_reason[TL_LINK_REASON_MAX];
    tl_link_slot rx[TL_LINK_RX_SLOTS];
    uint8_t tx[LWS_PRE + TL_LINK_MESSAGE_MAX];
} tl_link;

void tl_link_init(tl_link *, tl_queue *, int socket_buffer);
/* The queue was closed: ends the connection, if there is one. */
void tl_link_end(tl_link *);

#endif
