/* The port's web group by libmicrohttpd, in its own thread. */
#ifndef TOWLINE_POSIX_WEB_MHD_H
#define TOWLINE_POSIX_WEB_MHD_H

#include <netinet/in.h>

#include "queue.h"

#define TL_WEB_CONNECTIONS 16u      /* a browser opens six; whoever finds no slot free waits for one */
#define TL_WEB_HEAD_MAX 1536u       /* as through the tunnel */
#define TL_WEB_BODY_PIECE 1024u
#define TL_WEB_IDLE_S 30u           /* of a connection that nobody uses */
#define TL_WEB_CONNECTION_BYTES 8192u
#define TL_WEB_DRAIN_MAX (4u << 20) /* of a refused body: an answer may come behind it alone */

typedef struct tl_web tl_web;

typedef struct {
    tl_web_ref ref; /* 0: free */
    void *request;  /* whom it serves; NULL: the client's part is over */
    void *response; /* libmicrohttpd's; NULL: no head came yet */
    unsigned status;
    bool queued;    /* the response is on its way */
    bool chunked;
    bool core_done;
    bool wants_body, wants_room;
    tl_fill how; /* of the last piece */
    size_t answer_at, answer_n;
    size_t head_n;
    uint8_t head[TL_WEB_HEAD_MAX];
    uint8_t body[TL_WEB_BODY_PIECE];
    uint8_t answer[TL_WEB_ANSWER_ROOM];
} tl_web_place;

struct tl_web {
    tl_port_web port;
    tl_queue *queue;
    struct sockaddr_in listen;
    void *daemon; /* NULL: not started */
    pthread_mutex_t lock;
    uint32_t count; /* of requests, for references */
    bool stopping;
    void *waiting[TL_WEB_CONNECTIONS]; /* connections without a place, suspended */
    tl_web_place place[TL_WEB_SLOTS];
};

void tl_web_init(tl_web *, tl_queue *, const struct sockaddr_in *listen);
/* Where it listens; 0 before it does. */
uint16_t tl_web_bound_port(const tl_web *);
/* The queue was closed. */
void tl_web_end(tl_web *);

#endif
