/* The device's state, once or each second: the same document, in pieces of a bounded size. */
#include "towline/bytes.h"
#include "ui_parts.h"

enum { BUSY = 503 };

typedef struct {
    char name[13];
    uint8_t at; /* in tl_ui_facts */
} fact;

/* Texts, then numbers. A text of ours has no character that grows in JSON; what a person chose may grow sixfold. */
static const fact FACTS[] = {
    {"device", offsetof(tl_ui_facts, device)},
    {"name", offsetof(tl_ui_facts, name)},
    {"hardware", offsetof(tl_ui_facts, hardware)},
    {"version", offsetof(tl_ui_facts, version)},
    {"reset", offsetof(tl_ui_facts, reset_reason)},
    {"firmware", offsetof(tl_ui_facts, firmware)},
    {"ssid", offsetof(tl_ui_facts, ssid)},
    {"address", offsetof(tl_ui_facts, address)},
    {"tunnel", offsetof(tl_ui_facts, tunnel)},
    {"messages", offsetof(tl_ui_facts, messages)},
    {"uptime_s", offsetof(tl_ui_facts, uptime_s)},
    {"time_s", offsetof(tl_ui_facts, time_s)},
    {"rssi", offsetof(tl_ui_facts, rssi)},
    {"memory_free", offsetof(tl_ui_facts, memory_free)},
    {"memory_least", offsetof(tl_ui_facts, memory_least)},
    {"memory_block", offsetof(tl_ui_facts, memory_block)},
    {"outbox", offsetof(tl_ui_facts, outbox)},
    {"streams", offsetof(tl_ui_facts, streams)},
    {"received", offsetof(tl_ui_facts, received)},
};
#define FACTS_COUNT (sizeof FACTS / sizeof *FACTS)
#define TEXTS_COUNT 10u
#define TEXT_MAX TL_MAX_NAME

static void put_number(tl_json_writer *w, int64_t value, unsigned decimals)
{
    if (value == TL_UI_UNKNOWN) {
        tl_json_put_null(w);
    } else {
        tl_json_put_fixed(w, value, decimals);
    }
}

/* A tl_span, or behind the texts an int64_t. */
static const void *place_of(const tl_ui_facts *facts, size_t index)
{
    return (const uint8_t *)facts + FACTS[index].at;
}

static void put_truth(tl_json_writer *w, const char *name, bool value)
{
    tl_json_put_name(w, name);
    tl_json_put_bool(w, value);
}

static void put_numbers(const tl_exchange *x, const tl_ui_facts *facts, tl_json_writer *w)
{
    const tl_grant *grant = x->origin.grant;
    for (size_t i = TEXTS_COUNT; i < FACTS_COUNT; i++) {
        tl_json_put_name(w, FACTS[i].name);
        put_number(w, *(const int64_t *)place_of(facts, i), 0);
    }
    put_truth(w, "by_tunnel", x->origin.by_tunnel);
    put_truth(w, "support", grant != NULL && grant->acting);
    tl_json_put_name(w, "sensors");
    tl_json_open(w, '[');
}

/* One text, or behind them all numbers. */
static void put_facts(const tl_exchange *x, size_t index, tl_json_writer *w)
{
    const tl_ui *ui = tl_ui_of(x);
    tl_ui_facts facts;
    ui->calls->facts(ui->device, &facts);
    if (index == TEXTS_COUNT) {
        put_numbers(x, &facts, w);
        return;
    }
    tl_json_put_name(w, FACTS[index].name);
    tl_json_put_text(w, tl_ui_cut(*(const tl_span *)place_of(&facts, index), TEXT_MAX));
}

static bool put_sensor(tl_exchange *x, unsigned index, tl_json_writer *w)
{
    const tl_ui *ui = tl_ui_of(x);
    tl_ui_sensor sensor;
    if (!ui->calls->sensor(ui->device, index, &sensor)) {
        return false;
    }
    w->comma = index > 0;
    tl_json_open(w, '[');
    tl_json_put_text(w, tl_ui_cut(sensor.name, TL_UI_NAME_MAX));
    put_number(w, sensor.value, sensor.decimals);
    tl_json_close(w, ']');
    return true;
}

/* The facts, then sensor by sensor. */
static bool status_piece(tl_exchange *x, tl_out *out, uint64_t *progress)
{
    const size_t index = (size_t)(*progress)++;
    tl_json_writer w = tl_json_to(out);
    w.comma = index > 0;
    if (index == 0) {
        tl_json_open(&w, '{');
    }
    if (index <= TEXTS_COUNT) {
        put_facts(x, index, &w);
    } else if (!put_sensor(x, (unsigned)(index - TEXTS_COUNT - 1), &w)) {
        tl_put_text(out, "]}");
        return false;
    }
    return true;
}

tl_fill tl_ui_status_fill(tl_exchange *x, tl_out *out)
{
    return tl_ui_pieces(x, out, "application/json", status_piece, true);
}

/* --- live: server-sent events (WHATWG HTML, section 9.2) --- */

uint16_t tl_ui_live_begin(tl_exchange *x)
{
    tl_ui *ui = tl_ui_of(x);
    const bool by_tunnel = x->origin.by_tunnel;
    if (ui->live[by_tunnel] >= (by_tunnel ? ui->live_tunnel_max : TL_LIVE_LAN_MAX)) {
        return BUSY;
    }
    if (ui->live[0] + ui->live[1] == 0) {
        ui->next_ms = ui->now_ms + TL_LIVE_EACH_MS;
    }
    ui->live[by_tunnel]++;
    return 0;
}

void tl_ui_live_over(tl_exchange *x)
{
    tl_ui_of(x)->live[x->origin.by_tunnel]--;
}

static bool live_piece(tl_exchange *x, tl_out *out, uint64_t *progress)
{
    if (*progress == 0) {
        tl_put_text(out, "data:");
    }
    if (status_piece(x, out, progress)) {
        return true;
    }
    tl_put_text(out, "\n\n");
    return false;
}

/* An event a round: between two the upper half of `progress` is not 0, and the lower one the round it had. */

tl_fill tl_ui_live_fill(tl_exchange *x, tl_out *out)
{
    const tl_ui *ui = tl_ui_of(x);
    if (x->progress >> 32 != 0) {
        if ((uint32_t)x->progress == ui->round) {
            return TL_FILL_AGAIN;
        }
        if (!x->origin.by_tunnel && !tl_login_holds(ui->login, x->origin.request->header[TL_H_COOKIE], ui->now_ms)) {
            tl_chunk_last(out);
            return TL_FILL_END;
        }
        x->progress = 0;
    }
    const tl_fill filled = tl_ui_pieces(x, out, "text/event-stream", live_piece, false);
    if (filled != TL_FILL_END || x->head_only) {
        return filled;
    }
    x->progress = 1ull << 32 | ui->round;
    return TL_FILL_AGAIN;
}
