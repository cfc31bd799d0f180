/* Settings as JSON: shown without their secrets, changed member by member. */
#include "towline/bytes.h"
#include "ui_parts.h"

enum { FORBIDDEN = 403, UNPROCESSABLE = 422 };

#define URL_MAX 160u /* with the rest a piece; longer ones are shown cut, and stay whole where they are kept */

static bool settings_piece(tl_exchange *x, tl_out *out, uint64_t *progress)
{
    const tl_ui *ui = tl_ui_of(x);
    const bool first = (*progress)++ == 0;
    tl_json_writer w = tl_json_to(out);
    tl_ui_settings s;
    ui->calls->settings(ui->device, &s);
    if (first) {
        tl_json_open(&w, '{');
        tl_json_put_name(&w, "name");
        tl_json_put_text(&w, tl_ui_cut(s.name, TL_UI_NAME_MAX));
        tl_json_put_name(&w, "ssid");
        tl_json_put_text(&w, tl_ui_cut(s.ssid, TL_UI_NAME_MAX));
        return true;
    }
    w.comma = true;
    tl_json_put_name(&w, "gateway");
    tl_json_put_text(&w, tl_ui_cut(s.gateway, URL_MAX));
    tl_json_put_name(&w, "has_password");
    tl_json_put_bool(&w, s.has_password);
    tl_json_put_name(&w, "support");
    tl_json_put_bool(&w, s.support == 1);
    tl_put_u8(out, '}');
    return false;
}

tl_fill tl_ui_settings_fill(tl_exchange *x, tl_out *out)
{
    return tl_ui_pieces(x, out, "application/json", settings_piece, true);
}

/* --- changes --- */

static tl_span *place_of(tl_ui_settings *s, const tl_json *name)
{
    static const struct {
        char name[9];
        uint8_t at; /* in tl_ui_settings */
    } texts[] = {
        {"name", offsetof(tl_ui_settings, name)},         {"ssid", offsetof(tl_ui_settings, ssid)},
        {"password", offsetof(tl_ui_settings, password)}, {"gateway", offsetof(tl_ui_settings, gateway)},
        {"token", offsetof(tl_ui_settings, token)},
    };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        if (tl_json_says(name, tl_text(texts[i].name))) {
            return (tl_span *)(void *)((uint8_t *)s + texts[i].at);
        }
    }
    return NULL;
}

/* `body` was checked and can be written to: a string is unescaped where it lies, since that never makes it longer. */
static bool read_changes(tl_exchange *x, tl_span members, tl_ui_settings *s)
{
    tl_json name, value;
    while (tl_json_next_member(&members, &name, &value)) {
        tl_span *place = place_of(s, &name);
        if (place == NULL) {
            if (!tl_json_says(&name, tl_text("support")) || (value.kind != TL_JSON_TRUE && value.kind != TL_JSON_FALSE)) {
                return false;
            }
            s->support = value.kind == TL_JSON_TRUE;
            continue;
        }
        tl_out text = {x->small.at + (value.text.at - x->small.at), 0, value.text.n, false};
        if (!tl_json_unescape(&value, &text)) {
            return false;
        }
        *place = (tl_span){text.at, text.n};
    }
    return true;
}

uint16_t tl_ui_settings_body(tl_exchange *x, tl_span body, bool last)
{
    const tl_ui *ui = tl_ui_of(x);
    tl_ui_settings changes = {.support = TL_UI_UNKNOWN};
    tl_json json;
    (void)last; /* it came whole */
    if (tl_json_check(body, &json) != TL_JSON_FINE || json.kind != TL_JSON_OBJECT || !read_changes(x, json.text, &changes)) {
        return tl_ui_no(x, UNPROCESSABLE, "These are no settings.");
    }
    const tl_grant *grant = x->origin.grant;
    if (grant != NULL && grant->acting && changes.support != TL_UI_UNKNOWN) {
        return tl_ui_no(x, FORBIDDEN, "A support session cannot let support in.");
    }
    const char *why = ui->calls->change(ui->device, &changes);
    return why != NULL ? tl_ui_no(x, UNPROCESSABLE, why) : 0;
}
