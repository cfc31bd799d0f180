/* One JSON call to the gateway at a time, by the port's HTTPS: the body is written into the workspace, the answer
 * comes behind it. The port has the deadlines; redirects are not followed, since a secret would go wherever they
 * point.
 */
#ifndef TOWLINE_CALL_H
#define TOWLINE_CALL_H

#include "towline/identity.h"
#include "towline/workspace.h"

/* Behind body and answer: while the call is under way the gateway's CA, then room for whoever reads the answer. */
#define TL_CALL_ROOM (TL_CA_MAX + 1u) /* with a NUL */
#define TL_PROBLEM_MAX 40u /* of a problem's code (RFC 9457): gateway/problem_codes.py has none longer than 32 */

typedef enum {
    TL_CALL_NOT_OURS,
    TL_CALL_UNDER_WAY,
    TL_CALL_ANSWERED,   /* `answer` holds, an object */
    TL_CALL_REFUSED,    /* by this gateway, and as it seems for good; `why` */
    TL_CALL_UNREACHABLE /* worth another try; `why` */
} tl_call_state;

typedef struct {
    const tl_port *port;
    tl_workspace *workspace;
    uint32_t number; /* the port's; 0: none under way */
    uint16_t status;
    uint16_t body_n, answer_n;
    const char *why; /* a literal, or `problem` */
    tl_json answer;
    char problem[TL_PROBLEM_MAX + 1];
} tl_call;

void tl_call_init(tl_call *, const tl_port *, tl_workspace *);
/* Room for the body; false: the workspace is lent to somebody else. */
bool tl_call_open(tl_call *, tl_out *body);
/* POSTs the body, or GETs when it is empty; `path` goes behind the gateway's address. False: the port has a fetch
 * under way already, or the address is none; the call is closed. */
bool tl_call_send(tl_call *, tl_span gateway, tl_span path, tl_span bearer, const tl_out *body);
/* FETCH_*. What comes after UNDER_WAY ends the call; then it must be closed. */
tl_call_state tl_call_event(tl_call *, const tl_event *);
/* Of TL_CALL_ROOM bytes, once the call has ended. */
tl_out tl_call_room(const tl_call *);
void tl_call_close(tl_call *);

#endif
