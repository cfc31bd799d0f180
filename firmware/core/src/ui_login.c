/* The LAN's login. Through the tunnel there is none: the grant is it. */
#include "towline/bytes.h"
#include "ui_parts.h"

enum { NO_CONTENT = 204, BAD = 400, WRONG = 401, NOT_FOUND = 404 };

#define SET_COOKIE_MAX 112u /* towline=22 characters and the attributes */

uint16_t tl_ui_login_begin(tl_exchange *x)
{
    return x->origin.by_tunnel ? NOT_FOUND : 0;
}

uint16_t tl_ui_login_body(tl_exchange *x, tl_span body, bool last)
{
    const tl_ui *ui = tl_ui_of(x);
    tl_json json, pin;
    unsigned place = 0;
    (void)last; /* it came whole */
    if (tl_json_check(body, &json) != TL_JSON_FINE || !tl_json_member(&json, "pin", &pin) || pin.kind != TL_JSON_STRING) {
        return BAD;
    }
    const uint16_t status = tl_login_try(ui->login, pin.text, ui->now_ms, &place);
    x->progress = place;
    return status == 0 ? 0 : tl_ui_no(x, status, status == WRONG ? "That is not the PIN." : "Too many tries: wait a minute.");
}

static tl_fill answer(const tl_exchange *x, tl_out *out, tl_span cookie)
{
    const tl_answer head = {.status = NO_CONTENT, .close = x->close};
    tl_answer_head(out, &head);
    tl_answer_header(out, "Set-Cookie", cookie);
    tl_answer_head_end(out);
    return TL_FILL_END;
}

tl_fill tl_ui_login_fill(tl_exchange *x, tl_out *out)
{
    uint8_t room[SET_COOKIE_MAX];
    tl_out cookie = {room, 0, sizeof room, false};
    tl_login_cookie(tl_ui_of(x)->login, (unsigned)x->progress, &cookie);
    out->full = out->full || cookie.full;
    return answer(x, out, (tl_span){room, cookie.n});
}

tl_fill tl_ui_logout_fill(tl_exchange *x, tl_out *out)
{
    tl_login_end(tl_ui_of(x)->login, x->origin.request->header[TL_H_COOKIE]);
    return answer(x, out, tl_text("towline=; Path=/; Max-Age=0"));
}
