/* Between the files of web_mhd.h. */
#ifndef TOWLINE_POSIX_WEB_PARTS_H
#define TOWLINE_POSIX_WEB_PARTS_H

#include <microhttpd.h>

#include "web_mhd.h"

/* A request as libmicrohttpd's thread has it. Everything of it and of its place is under the lock. */
typedef enum { AT_HEAD, IN_BODY, AT_END } tl_web_phase;

typedef struct {
    tl_web *web;
    struct MHD_Connection *connection;
    tl_web_place *place; /* NULL: it waits for one */
    tl_web_phase phase;
    bool suspended;
    size_t drained;
    char target[TL_WEB_HEAD_MAX]; /* empty: longer than that */
} tl_web_request;

/* All under the lock. */
static inline void tl_web_suspend(tl_web_request *r)
{
    r->suspended = true;
    MHD_suspend_connection(r->connection);
}

static inline void tl_web_resume(tl_web_request *r)
{
    if (r != NULL && r->suspended) {
        r->suspended = false;
        MHD_resume_connection(r->connection);
    }
}

void tl_web_resume_waiting(tl_web *);
/* The place is free when neither the core nor the client has anything more to do with it. */
void tl_web_free_if_over(tl_web *, tl_web_place *);

/* web_core.c: what the core calls */
void tl_web_core_side(tl_web *);

#endif
