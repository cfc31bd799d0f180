#include "towline/bytes.h"

#include <string.h>

uint16_t tl_u16(const uint8_t *at)
{
    return (uint16_t)((at[0] << 8) | at[1]);
}

uint32_t tl_u32(const uint8_t *at)
{
    return ((uint32_t)tl_u16(at) << 16) | tl_u16(at + 2);
}

uint64_t tl_u64(const uint8_t *at)
{
    return ((uint64_t)tl_u32(at) << 32) | tl_u32(at + 4);
}

void tl_put(tl_out *out, const void *bytes, size_t n)
{
    if (out->full || n > out->cap - out->n) {
        out->full = true;
        return;
    }
    if (n > 0) { /* memcpy may not be given NULL, whatever the length */
        memcpy(out->at + out->n, bytes, n);
        out->n += n;
    }
}

void tl_put_span(tl_out *out, tl_span bytes)
{
    tl_put(out, bytes.at, bytes.n);
}

void tl_put_text(tl_out *out, const char *text)
{
    tl_put_span(out, tl_text(text));
}

void tl_put_u8(tl_out *out, uint8_t value)
{
    tl_put(out, &value, 1);
}

void tl_put_u16(tl_out *out, uint16_t value)
{
    uint8_t raw[2] = {(uint8_t)(value >> 8), (uint8_t)value};
    tl_put(out, raw, sizeof raw);
}

void tl_put_u32(tl_out *out, uint32_t value)
{
    uint8_t raw[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    tl_put(out, raw, sizeof raw);
}

void tl_put_u64(tl_out *out, uint64_t value)
{
    uint8_t raw[8];
    for (unsigned i = 0; i < sizeof raw; i++) {
        raw[i] = (uint8_t)(value >> (56 - 8 * i));
    }
    tl_put(out, raw, sizeof raw); /* in one: half a number must never leave */
}

tl_span tl_text(const char *text)
{
    return (tl_span){(const uint8_t *)text, text != NULL ? strlen(text) : 0};
}

tl_span tl_take(tl_span *from, size_t n)
{
    tl_span taken = {from->at, n < from->n ? n : from->n};
    if (taken.n > 0) {
        from->at += taken.n;
        from->n -= taken.n;
    }
    return taken;
}

tl_span tl_split(tl_span *from, uint8_t end)
{
    size_t n = 0;
    while (n < from->n && from->at[n] != end) {
        n++;
    }
    tl_span head = tl_take(from, n);
    (void)tl_take(from, 1);
    return head;
}

bool tl_same(tl_span one, tl_span other)
{
    return one.n == other.n && (one.n == 0 || memcmp(one.at, other.at, one.n) == 0);
}

bool tl_is(tl_span bytes, const char *text)
{
    return tl_same(bytes, tl_text(text));
}

void tl_put_hex(tl_out *out, tl_span bytes)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < bytes.n; i++) {
        tl_put_u8(out, (uint8_t)digits[bytes.at[i] >> 4]);
        tl_put_u8(out, (uint8_t)digits[bytes.at[i] & 15]);
    }
}

bool tl_hex(const uint8_t *text, uint8_t *byte)
{
    unsigned value = 0;
    for (int i = 0; i < 2; i++) {
        const uint8_t c = text[i];
        const bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f')) {
            return false;
        }
        value = value << 4 | (unsigned)(digit ? c - '0' : c - 'a' + 10);
    }
    *byte = (uint8_t)value;
    return true;
}

bool tl_is_ascii(tl_span bytes)
{
    for (size_t i = 0; i < bytes.n; i++) {
        if (bytes.at[i] > 0x7F) {
            return false;
        }
    }
    return true;
}

/* How many continuation bytes follow `lead`, and the bounds of the first of them (RFC 3629 section 4); -1: none
 * may lead so. */
static int continuations(uint8_t lead, uint8_t *low, uint8_t *high)
{
    *low = 0x80;
    *high = 0xBF;
    if (lead < 0x80) {
        return 0;
    }
    if (lead >= 0xC2 && lead <= 0xDF) {
        return 1;
    }
    if (lead >= 0xE0 && lead <= 0xEF) {
        *low = lead == 0xE0 ? 0xA0 : 0x80;  /* shorter forms exist below */
        *high = lead == 0xED ? 0x9F : 0xBF; /* surrogates above */
        return 2;
    }
    if (lead >= 0xF0 && lead <= 0xF4) {
        *low = lead == 0xF0 ? 0x90 : 0x80;
        *high = lead == 0xF4 ? 0x8F : 0xBF; /* beyond U+10FFFF above */
        return 3;
    }
    return -1;
}

bool tl_is_utf8(tl_span bytes)
{
    while (bytes.n > 0) {
        uint8_t low, high;
        int more = continuations(bytes.at[0], &low, &high);
        if (more < 0 || (size_t)more >= bytes.n) {
            return false;
        }
        for (int i = 1; i <= more; i++) {
            if (bytes.at[i] < low || bytes.at[i] > high) {
                return false;
            }
            low = 0x80;
            high = 0xBF;
        }
        (void)tl_take(&bytes, (size_t)more + 1);
    }
    return true;
}

bool tl_is_name(tl_span bytes)
{
    if (bytes.n < 1 || bytes.n > TL_MAX_NAME) {
        return false;
    }
    for (size_t i = 0; i < bytes.n; i++) {
        uint8_t c = bytes.at[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-')) {
            return false;
        }
    }
    return true;
}

static uint8_t lower(uint8_t c)
{
    return c >= 'A' && c <= 'Z' ? (uint8_t)(c + ('a' - 'A')) : c;
}

bool tl_same_host(tl_span one, tl_span other)
{
    if (one.n != other.n) {
        return false;
    }
    for (size_t i = 0; i < one.n; i++) {
        if (lower(one.at[i]) != lower(other.at[i])) {
            return false;
        }
    }
    return true;
}

static int base64url_value(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (c >= '0' && c <= '9') {
        return c - '0' + 52;
    }
    return c == '-' ? 62 : c == '_' ? 63 : -1;
}

bool tl_base64url_decode(tl_span text, tl_out *out)
{
    uint32_t held = 0; /* bits that are not written yet: at most 6 of them */
    unsigned bits = 0;
    for (size_t i = 0; i < text.n; i++) {
        int value = base64url_value(text.at[i]);
        if (value < 0) {
            return false;
        }
        held = (held << 6) | (uint32_t)value;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            tl_put_u8(out, (uint8_t)(held >> bits));
            held &= (1u << bits) - 1;
        }
    }
    return held == 0 && bits < 6 && !out->full; /* 6 bits: a single character, which holds no byte */
}
