#include "towline/call.h"

#include <string.h>

#define BODY_AND_ANSWER (TL_WORKSPACE - TL_CALL_ROOM)
#define PATH_MAX (TL_URL_MAX + TL_MAX_NAME + 48u)

void tl_call_init(tl_call *c, const tl_port *port, tl_workspace *workspace)
{
    memset(c, 0, sizeof *c);
    c->port = port;
    c->workspace = workspace;
}

bool tl_call_open(tl_call *c, tl_out *body)
{
    *body = (tl_out){c->workspace->bytes, 0, BODY_AND_ANSWER, false};
    return tl_workspace_take(c->workspace, c);
}

tl_out tl_call_room(const tl_call *c)
{
    return (tl_out){c->workspace->bytes + BODY_AND_ANSWER, 0, TL_CALL_ROOM, false};
}

void tl_call_close(tl_call *c)
{
    const tl_port_fetch *fetch = c->port->fetch;
    if (c->number != 0) {
        fetch->stop(fetch->with);
        c->number = 0;
    }
    tl_workspace_give_back(c->workspace, c);
}

/* The CA that whoever set the device up put there; empty: the system's roots. */
static tl_span gateway_ca(const tl_call *c)
{
    const tl_port_kv *kv = c->port->kv;
    tl_out ca = tl_call_room(c);
    ca.cap--; /* for the NUL */
    if (!kv->get(kv->with, "gateway_ca", &ca)) {
        return (tl_span){NULL, 0};
    }
    ca.at[ca.n] = 0;
    return (tl_span){ca.at, ca.n};
}

bool tl_call_send(tl_call *c, tl_span gateway, tl_span path, tl_span bearer, const tl_out *body)
{
    const tl_port_fetch *fetch = c->port->fetch;
    uint8_t room[PATH_MAX];
    tl_out whole = {room, 0, sizeof room, false};
    tl_url url;
    c->status = c->answer_n = 0;
    c->body_n = (uint16_t)body->n;
    if (!body->full && tl_url_read(gateway, TL_URL_GATEWAY, &url) == NULL) {
        while (url.path.n > 0 && url.path.at[url.path.n - 1] == '/') {
            url.path.n--;
        }
        tl_put_span(&whole, url.path);
        tl_put_span(&whole, path);
        const tl_fetch_request request = {
            .to = {url.host, url.port, url.secure, {room, whole.n}, gateway_ca(c)},
            .method = body->n > 0 ? "POST" : "GET",
            .bearer = bearer,
            .body = {body->at, body->n},
        };
        c->number = whole.full ? 0 : fetch->start(fetch->with, &request);
    }
    if (c->number == 0) {
        tl_call_close(c);
    }
    return c->number != 0;
}

/* The problem's code, or a word of ours. */
static const char *problem_of(tl_call *c, bool is_json)
{
    tl_json code;
    tl_out out = {(uint8_t *)c->problem, 0, TL_PROBLEM_MAX, false};
    if (!is_json || !tl_json_member(&c->answer, "code", &code) || !tl_json_unescape(&code, &out) ||
        !tl_is_name((tl_span){out.at, out.n})) {
        return "the gateway refused it";
    }
    c->problem[out.n] = 0;
    return c->problem;
}

static tl_call_state ended(tl_call *c)
{
    const tl_span text = {c->workspace->bytes + c->body_n, c->answer_n};
    const bool is_json = tl_json_check(text, &c->answer) == TL_JSON_FINE && c->answer.kind == TL_JSON_OBJECT;
    if (c->status >= 500 || c->status == 429 || c->status < 200) {
        c->why = c->status == 429 ? "the gateway asks for patience" : "the gateway is in trouble";
        return TL_CALL_UNREACHABLE;
    }
    if (c->status >= 300) {
        c->why = problem_of(c, is_json);
        return TL_CALL_REFUSED;
    }
    c->why = is_json ? NULL : "the address does not answer as a gateway does";
    return is_json ? TL_CALL_ANSWERED : TL_CALL_REFUSED;
}

static bool add(tl_call *c, tl_span part)
{
    const size_t from = (size_t)c->body_n + c->answer_n;
    if (part.n > BODY_AND_ANSWER - from) {
        return false;
    }
    memcpy(c->workspace->bytes + from, part.at, part.n);
    c->answer_n = (uint16_t)(c->answer_n + part.n);
    return true;
}

tl_call_state tl_call_event(tl_call *c, const tl_event *event)
{
    const tl_port_fetch *fetch = c->port->fetch;
    if (c->number == 0 || event->number != c->number) {
        return TL_CALL_NOT_OURS;
    }
    switch (event->kind) {
    case TL_EVENT_FETCH_HEAD:
        c->status = event->status;
        return TL_CALL_UNDER_WAY;
    case TL_EVENT_FETCH_DATA: {
        const bool fits = add(c, event->bytes);
        fetch->release(fetch->with, event->bytes);
        if (fits) {
            return TL_CALL_UNDER_WAY;
        }
        fetch->stop(fetch->with);
        c->why = "the gateway's answer is too long";
        break;
    }
    case TL_EVENT_FETCH_END:
        c->number = 0;
        return ended(c);
    case TL_EVENT_FETCH_FAILED:
        c->why = event->why;
        break;
    default:
        return TL_CALL_NOT_OURS;
    }
    c->number = 0;
    return TL_CALL_UNREACHABLE;
}
