#include "towline/telemetry.h"

#include <string.h>

#include "towline/bodies.h"
#include "towline/bytes.h"

#define TEXT_CHARACTERS_MAX 256u

static bool is_reading_name(const char *name)
{
    const tl_span text = tl_text(name);
    for (size_t i = 0; i < text.n; i++) {
        const uint8_t c = text.at[i];
        const uint8_t letter = c | 0x20;
        if (!(letter >= 'a' && letter <= 'z') && !(c >= '0' && c <= '9') && c != '_' && c != '.' && c != '-') {
            return false;
        }
    }
    return text.n > 0 && text.n <= TL_MAX_NAME;
}

bool tl_telemetry_add(tl_telemetry *t, const char *name, int32_t value, uint8_t decimals, int64_t wall_ms)
{
    uint8_t at = 0;
    while (at < t->count && strcmp(t->readings[at].name, name) != 0) {
        at++;
    }
    if (at == t->count) {
        if (at == TL_READINGS || !is_reading_name(name)) {
            return false;
        }
        t->readings[t->count++] = (tl_reading){.name = name};
    }
    bool first = true;
    for (uint8_t i = 0; i < t->count; i++) {
        first = first && t->readings[i].n == 0;
    }
    if (first) {
        t->from_ms = wall_ms;
    }
    tl_reading *r = &t->readings[at];
    if (r->n == 0 || r->decimals != decimals) {
        *r = (tl_reading){.name = name, .least = value, .most = value, .decimals = decimals};
    }
    r->n += r->n < UINT32_MAX;
    r->sum += value;
    r->last = value;
    r->least = value < r->least ? value : r->least;
    r->most = value > r->most ? value : r->most;
    return true;
}

static void put_value(tl_json_writer *w, const char *name, int64_t value, uint8_t decimals)
{
    tl_json_put_name(w, name);
    tl_json_put_fixed(w, value, decimals);
}

static void put_reading(tl_json_writer *w, const tl_reading *r)
{
    tl_json_put_name(w, r->name);
    tl_json_open(w, '{');
    tl_json_put_member(w, "n", r->n);
    put_value(w, "min", r->least, r->decimals);
    put_value(w, "max", r->most, r->decimals);
    put_value(w, "mean", r->sum / (int64_t)r->n, r->decimals);
    put_value(w, "last", r->last, r->decimals);
    tl_json_close(w, '}');
}

bool tl_telemetry_report(tl_telemetry *t, int64_t wall_ms, uint8_t *first, tl_out *out)
{
    tl_json_writer w = tl_json_to(out);
    bool any = false;
    tl_json_open(&w, '{');
    if (t->from_ms >= 0 && wall_ms >= t->from_ms) {
        tl_json_put_member(&w, "from", t->from_ms);
        tl_json_put_member(&w, "to", wall_ms);
    }
    tl_json_put_name(&w, "values");
    tl_json_open(&w, '{');
    out->cap -= 2; /* the brackets that close */
    for (; *first < t->count; ++*first) {
        tl_reading *r = &t->readings[*first];
        const tl_json_writer before = w;
        const size_t n = out->n;
        if (r->n == 0) {
            continue;
        }
        put_reading(&w, r);
        if (out->full) { /* the next report has room for it */
            out->full = false;
            out->n = n;
            w = before;
            break;
        }
        any = true;
        r->n = 0;
        r->sum = 0;
    }
    out->cap += 2;
    if (*first == t->count) {
        *first = 0;
    }
    tl_json_close(&w, '}');
    tl_json_close(&w, '}');
    return any && tl_json_complete(&w);
}

/* --- sensors --- */

static bool is_sensor_value(tl_span value)
{
    tl_json json;
    return tl_json_check(value, &json) == TL_JSON_FINE && json.kind != TL_JSON_NULL && json.kind < TL_JSON_LIST &&
           (json.kind != TL_JSON_STRING || tl_json_length(&json) <= TEXT_CHARACTERS_MAX);
}

/* Takes the member out, with the comma that parts it from others. */
static void take_out(tl_sensors *s, const char *name)
{
    tl_span rest = {s->text, s->n};
    tl_json found, value;
    for (;;) {
        const uint8_t *from = rest.at;
        if (!tl_json_next_member(&rest, &found, &value)) {
            return;
        }
        if (tl_json_says(&found, tl_text(name))) {
            size_t at = (size_t)(from - s->text), behind = (size_t)(rest.at - s->text);
            if (at == 0 && behind < s->n) {
                behind++; /* the first: the comma behind it goes */
            }
            memmove(s->text + at, s->text + behind, s->n - behind);
            s->n = (uint16_t)(s->n - (behind - at));
            return;
        }
    }
}

bool tl_sensors_set(tl_sensors *s, const char *name, tl_span value)
{
    tl_sensors next = *s;
    if (!is_reading_name(name) || !is_sensor_value(value)) {
        return false;
    }
    take_out(&next, name);
    tl_out out = {next.text, next.n, sizeof next.text - 2, false}; /* the braces count */
    tl_json_writer w = tl_json_to(&out);
    w.comma = next.n > 0;
    tl_json_put_name(&w, name);
    tl_json_put_raw(&w, value);
    if (out.full) {
        return false;
    }
    next.n = (uint16_t)out.n;
    *s = next;
    return true;
}
