#include "towline/ui.h"

#include "towline/bytes.h"
#include "ui_parts.h"

enum { ACCEPTED = 202, NO_CONTENT = 204, NOT_MODIFIED = 304, FORBIDDEN = 403 };

/* --- the clock of live answers --- */

void tl_ui_init(tl_ui *ui, const tl_ui_device *calls, void *device, tl_login *login, unsigned max_streams)
{
    *ui = (tl_ui){.calls = calls, .device = device, .login = login, .live_tunnel_max = (uint8_t)(max_streams - 1)};
}

bool tl_ui_tick(tl_ui *ui, uint64_t now_ms)
{
    ui->now_ms = now_ms;
    if (now_ms < tl_ui_timer(ui)) {
        return false;
    }
    ui->next_ms = now_ms + TL_LIVE_EACH_MS;
    ui->round++;
    return true;
}

uint64_t tl_ui_timer(const tl_ui *ui)
{
    return ui->live[0] + ui->live[1] > 0 ? ui->next_ms : UINT64_MAX;
}

/* --- answers --- */

uint16_t tl_ui_no(tl_exchange *x, uint16_t status, const char *why)
{
    x->why = why;
    return status;
}

tl_fill tl_ui_done(tl_exchange *x, tl_out *out)
{
    tl_answer_plain(out, NO_CONTENT, x->head_only, x->close);
    return TL_FILL_END;
}

tl_span tl_ui_cut(tl_span text, size_t most)
{
    return tl_take(&text, most);
}

tl_fill tl_ui_pieces(tl_exchange *x, tl_out *out, const char *content_type, tl_ui_piece piece, bool ends)
{
    const bool first = !x->started;
    if (first) {
        const tl_answer head = {.status = 200, .close = x->close, .length = TL_LENGTH_UNKNOWN, .content_type = content_type};
        tl_answer_head(out, &head);
        tl_answer_head_end(out);
        if (x->head_only) {
            return TL_FILL_END;
        }
    }
    static const size_t last_chunk = 5;
    size_t room;
    const size_t begin = tl_chunk_begin(out, &room);
    tl_out in = {out->at + out->n, 0, room > last_chunk ? room - last_chunk : 0, false};
    bool more = true;
    while (more) {
        const size_t before = in.n;
        uint64_t next = x->progress;
        more = piece(x, &in, &next);
        if (in.full) {
            in.n = before;
            break;
        }
        x->progress = next;
    }
    out->n += in.n;
    tl_chunk_end(out, begin);
    if (in.full) {
        return in.n > 0 || first ? TL_FILL_MORE : TL_FILL_BROKEN;
    }
    if (ends) {
        tl_chunk_last(out);
    }
    return TL_FILL_END;
}

/* --- the page --- */

/* Every browser takes gzip, and the page lies here in no other form. */
static tl_fill page_fill(tl_exchange *x, tl_out *out)
{
    if (!x->started) {
        const bool known = tl_etag_matches(x->origin.request->header[TL_H_IF_NONE_MATCH], tl_page_etag);
        const tl_answer head = {.status = known ? NOT_MODIFIED : 200, .gzip = true, .close = x->close,
                                .policy = tl_page_policy, .length = tl_page_size,
                                .content_type = "text/html; charset=utf-8", .etag = tl_page_etag};
        tl_answer_head(out, &head);
        tl_answer_head_end(out);
        if (known || x->head_only) {
            return TL_FILL_END;
        }
    }
    tl_span rest = {tl_page + x->progress, tl_page_size - (size_t)x->progress};
    const tl_span now = tl_take(&rest, out->cap - out->n);
    tl_put_span(out, now);
    x->progress += now.n;
    return rest.n > 0 ? TL_FILL_MORE : TL_FILL_END;
}

/* --- what ends this run --- */

static tl_fill ending_fill(tl_exchange *x, tl_out *out, void (*end)(void *))
{
    end(tl_ui_of(x)->device);
    tl_answer_plain(out, ACCEPTED, false, x->close);
    return TL_FILL_END;
}

static tl_fill restart_fill(tl_exchange *x, tl_out *out)
{
    return ending_fill(x, out, tl_ui_of(x)->calls->restart);
}

/* Whoever helps the owner may not take the device from them. */
static uint16_t reset_begin(tl_exchange *x)
{
    const tl_grant *grant = x->origin.grant;
    return grant != NULL && grant->acting ? tl_ui_no(x, FORBIDDEN, "A support session cannot reset the device.") : 0;
}

static tl_fill reset_fill(tl_exchange *x, tl_out *out)
{
    return ending_fill(x, out, tl_ui_of(x)->calls->reset);
}

/* --- the table --- */

static const tl_route TABLE[] = {
    {"GET", "/", TL_ANYONE, TL_BODY_NONE, NULL, NULL, page_fill, NULL},
    {"POST", "/api/login", TL_ANYONE, TL_BODY_SMALL, tl_ui_login_begin, tl_ui_login_body, tl_ui_login_fill, NULL},
    {"POST", "/api/logout", TL_LOGGED_IN, TL_BODY_NONE, NULL, NULL, tl_ui_logout_fill, NULL},
    {"GET", "/api/status", TL_LOGGED_IN, TL_BODY_NONE, NULL, NULL, tl_ui_status_fill, NULL},
    {"GET", "/api/live", TL_LOGGED_IN, TL_BODY_NONE, tl_ui_live_begin, NULL, tl_ui_live_fill, tl_ui_live_over},
    {"GET", "/api/logs", TL_LOGGED_IN, TL_BODY_NONE, tl_ui_logs_begin, NULL, tl_ui_logs_fill, NULL},
    {"GET", "/api/settings", TL_LOGGED_IN, TL_BODY_NONE, NULL, NULL, tl_ui_settings_fill, NULL},
    {"POST", "/api/settings", TL_LOGGED_IN, TL_BODY_SMALL, NULL, tl_ui_settings_body, tl_ui_done, NULL},
    {"POST", "/api/firmware", TL_LOGGED_IN, TL_BODY_STREAMED, tl_ui_firmware_begin, tl_ui_firmware_body, tl_ui_done,
     tl_ui_firmware_over},
    {"POST", "/api/restart", TL_LOGGED_IN, TL_BODY_NONE, NULL, NULL, restart_fill, NULL},
    {"POST", "/api/reset", TL_LOGGED_IN, TL_BODY_NONE, reset_begin, NULL, reset_fill, NULL},
};

const tl_routes TL_UI_ROUTES = {TABLE, sizeof TABLE / sizeof *TABLE};
