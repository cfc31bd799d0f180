/* What the page's routes share: answers in pieces. */
#ifndef TOWLINE_UI_PARTS_H
#define TOWLINE_UI_PARTS_H

#include "towline/json.h"
#include "towline/ui.h"

/* Writes the piece at `*progress` and moves that on; false: it was the last. What does not fit is asked for again
 * where there is more room. None may be longer than 480 bytes: TL_FILL_ROOM_MIN leaves them between a chunk's frame and
 * the last chunk. */
typedef bool (*tl_ui_piece)(tl_exchange *, tl_out *, uint64_t *progress);

static inline tl_ui *tl_ui_of(const tl_exchange *x)
{
    return x->owner;
}

/* A chunked answer with status 200: its head, then as many pieces as there is room for. */
tl_fill tl_ui_pieces(tl_exchange *, tl_out *, const char *content_type, tl_ui_piece, bool ends);
/* Says no, and why. */
uint16_t tl_ui_no(tl_exchange *, uint16_t status, const char *why);
/* An answer without a body. */
tl_fill tl_ui_done(tl_exchange *, tl_out *);
/* At most `most` bytes of a text that stands in a piece. */
tl_span tl_ui_cut(tl_span text, size_t most);

/* ui_status.c */
tl_fill tl_ui_status_fill(tl_exchange *, tl_out *);
uint16_t tl_ui_live_begin(tl_exchange *);
tl_fill tl_ui_live_fill(tl_exchange *, tl_out *);
void tl_ui_live_over(tl_exchange *);
/* ui_logs.c */
uint16_t tl_ui_logs_begin(tl_exchange *);
tl_fill tl_ui_logs_fill(tl_exchange *, tl_out *);
/* ui_settings.c */
tl_fill tl_ui_settings_fill(tl_exchange *, tl_out *);
uint16_t tl_ui_settings_body(tl_exchange *, tl_span, bool last);
/* ui_firmware.c */
uint16_t tl_ui_firmware_begin(tl_exchange *);
uint16_t tl_ui_firmware_body(tl_exchange *, tl_span, bool last);
void tl_ui_firmware_over(tl_exchange *);
/* ui_login.c */
uint16_t tl_ui_login_begin(tl_exchange *);
uint16_t tl_ui_login_body(tl_exchange *, tl_span, bool last);
tl_fill tl_ui_login_fill(tl_exchange *, tl_out *);
tl_fill tl_ui_logout_fill(tl_exchange *, tl_out *);

#endif
