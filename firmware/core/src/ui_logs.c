/* Log lines as text, `number milliseconds level text` each: a browser splits them, and so does a person's grep. */
#include "towline/bytes.h"
#include "ui_parts.h"

#define LINES_MAX 256u /* an answer has an end, even where its own making is logged */
#define DIGITS_MAX 9u  /* of a line's number in a query */

/* ?after=N: lines behind that one. */
uint16_t tl_ui_logs_begin(tl_exchange *x)
{
    static const char name[] = "after=";
    tl_span query = x->origin.request->query;
    if (!tl_is(tl_take(&query, sizeof name - 1), name) || query.n > DIGITS_MAX) {
        return 0;
    }
    for (size_t i = 0; i < query.n; i++) {
        const uint8_t digit = (uint8_t)(query.at[i] - '0');
        if (digit > 9) {
            x->progress = 0;
            return 0;
        }
        x->progress = x->progress * 10 + digit;
    }
    return 0;
}

static void put_number(tl_out *out, uint64_t value)
{
    tl_json_writer w = tl_json_to(out);
    tl_json_put_whole(&w, (int64_t)value);
    tl_put_u8(out, ' ');
}

/* Progress: how many lines were written, and the number of the last one. */
static bool logs_piece(tl_exchange *x, tl_out *out, uint64_t *progress)
{
    const tl_ui *ui = tl_ui_of(x);
    const uint32_t written = (uint32_t)(*progress >> 32);
    tl_ui_line line;
    if (written == LINES_MAX || !ui->calls->line(ui->device, (uint32_t)*progress, &line)) {
        return false;
    }
    *progress = (uint64_t)(written + 1) << 32 | line.number;
    put_number(out, line.number);
    put_number(out, line.at_ms);
    tl_put_u8(out, (uint8_t)line.level);
    tl_put_u8(out, ' ');
    const tl_span text = tl_ui_cut(line.text, TL_UI_LINE_MAX);
    for (size_t i = 0; i < text.n; i++) {
        tl_put_u8(out, text.at[i] < ' ' ? ' ' : text.at[i]); /* one line stays one */
    }
    tl_put_u8(out, '\n');
    return true;
}

tl_fill tl_ui_logs_fill(tl_exchange *x, tl_out *out)
{
    return tl_ui_pieces(x, out, "text/plain; charset=utf-8", logs_piece, true);
}
