#include "towline/envelope.h"

#include "towline/bytes.h"

/* Hyphens stand before these bytes of a UUID. */
static bool hyphen_before(size_t i)
{
    return i == 4 || i == 6 || i == 8 || i == 10;
}

void tl_put_uuid(tl_out *out, const uint8_t id[TL_UUID])
{
    for (size_t i = 0; i < TL_UUID; i++) {
        if (hyphen_before(i)) {
            tl_put_u8(out, '-');
        }
        tl_put_hex(out, (tl_span){&id[i], 1});
    }
}

bool tl_uuid7_read(const tl_json *text, uint8_t id[TL_UUID])
{
    uint8_t raw[36];
    tl_out out = {raw, 0, sizeof raw, false};
    if (!tl_json_unescape(text, &out) || out.n != sizeof raw) {
        return false;
    }
    const uint8_t *at = raw;
    for (size_t i = 0; i < TL_UUID; i++) {
        if (hyphen_before(i) && *at++ != '-') {
            return false;
        }
        if (!tl_hex(at, &id[i])) {
            return false;
        }
        at += 2;
    }
    return id[6] >> 4 == 7 && id[8] >> 6 == 2;
}

static void put_uuid7(tl_out *out, const tl_envelope *envelope)
{
    uint8_t id[TL_UUID];
    const uint64_t ms = envelope->ts_ms < 0 ? 0 : (uint64_t)envelope->ts_ms;
    for (size_t i = 0; i < 6; i++) {
        id[i] = (uint8_t)(ms >> (40 - 8 * i));
    }
    for (size_t i = 6; i < TL_UUID; i++) {
        id[i] = envelope->random[i - 6];
    }
    id[6] = (uint8_t)(0x70 | (id[6] & 15));
    id[8] = (uint8_t)(0x80 | (id[8] & 63));
    tl_put_uuid(out, id);
}

static void put_whole(tl_out *out, const char *before, uint64_t value)
{
    tl_json_writer w = tl_json_to(out);
    tl_put_text(out, before);
    tl_json_put_whole(&w, (int64_t)value);
}

static void put_pair(tl_out *out, const char *before, tl_number number)
{
    put_whole(out, before, number.boot);
    put_whole(out, ",", number.seq);
    tl_put_u8(out, ']');
}

void tl_envelope_put_head(tl_out *out, const tl_envelope *envelope)
{
    tl_put_text(out, "{\"id\":\"");
    put_uuid7(out, envelope);
    tl_put_text(out, "\",\"v\":1,\"type\":\"");
    tl_put_text(out, envelope->type);
    tl_put_text(out, "\",\"ts\":");
    if (envelope->ts_ms < 0) {
        tl_put_text(out, "null");
    } else {
        put_whole(out, "", (uint64_t)envelope->ts_ms);
    }
    put_whole(out, ",\"up\":", envelope->up_ms);
}

void tl_envelope_put_number(tl_out *out, tl_number number)
{
    put_whole(out, ",\"boot\":", number.boot);
    put_whole(out, ",\"seq\":", number.seq);
    tl_put_text(out, ",\"payload\":");
}

void tl_envelope_put_line(tl_out *out, tl_number number, tl_number floor, tl_number prev)
{
    put_pair(out, ",\"floor\":[", floor);
    if (number.seq == 1 || prev.boot != number.boot || prev.seq != number.seq - 1) {
        put_pair(out, ",\"prev\":[", prev);
    }
    tl_put_u8(out, '}');
}
