/* The one large piece of memory, lent to whoever reads a document of the gateway, one at a time. */
#ifndef TOWLINE_WORKSPACE_H
#define TOWLINE_WORKSPACE_H

#include "towline/span.h"

/* The largest of them is a configuration with its envelope; the answer to an enrolment has 6 KB. */
#define TL_WORKSPACE 9216u

typedef struct {
    const void *holder; /* NULL: free */
    uint8_t bytes[TL_WORKSPACE];
} tl_workspace;

/* False: somebody else has it; ask again later. */
static inline bool tl_workspace_take(tl_workspace *workspace, const void *holder)
{
    if (workspace->holder != NULL) {
        return false;
    }
    workspace->holder = holder;
    return true;
}

/* Of someone who does not hold it: nothing happens. */
static inline void tl_workspace_give_back(tl_workspace *workspace, const void *holder)
{
    if (workspace->holder == holder) {
        workspace->holder = NULL;
    }
}

#endif
