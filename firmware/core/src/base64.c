#include "towline/base64.h"

#include "towline/bytes.h"

static uint8_t character(uint32_t value, bool url)
{
    if (value < 26) {
        return (uint8_t)('A' + value);
    }
    if (value < 52) {
        return (uint8_t)('a' + (value - 26));
    }
    if (value < 62) {
        return (uint8_t)('0' + (value - 52));
    }
    return (uint8_t)(value == 62 ? (url ? '-' : '+') : (url ? '_' : '/'));
}

static void put_group(tl_out *out, tl_span raw, bool url)
{
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; i++) {
        bits = bits << 8 | (i < raw.n ? raw.at[i] : 0u);
    }
    for (size_t i = 0; i < 4; i++, bits <<= 6) {
        if (i <= raw.n) {
            tl_put_u8(out, character(bits >> 18 & 63, url));
        } else if (!url) {
            tl_put_u8(out, '=');
        }
    }
}

static void put_all(tl_out *out, tl_span raw, bool url)
{
    while (raw.n > 0) {
        put_group(out, tl_take(&raw, 3), url);
    }
}

void tl_put_base64url(tl_out *out, tl_span raw)
{
    put_all(out, raw, true);
}

void tl_put_base64(tl_out *out, tl_span raw)
{
    put_all(out, raw, false);
}
