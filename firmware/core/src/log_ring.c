#include "towline/log_ring.h"

#include <string.h>

#include "towline/bytes.h"

#define AT_BYTES 8u
#define HEAD (AT_BYTES + 2u) /* when, level, length of the text */

void tl_log_init(tl_log_ring *ring, const tl_port_sys *sys, tl_log_level level)
{
    ring->sys = sys;
    ring->first = 1;
    ring->count = ring->used = 0;
    ring->level = (uint8_t)level;
}

static size_t size_of(const uint8_t *line)
{
    return HEAD + line[HEAD - 1];
}

static void drop_oldest(tl_log_ring *ring)
{
    const size_t n = size_of(ring->bytes);
    ring->used = (uint16_t)(ring->used - n);
    memmove(ring->bytes, ring->bytes + n, ring->used);
    ring->first++;
    ring->count--;
}

/* As much of the text as fits, cut between characters; what could steer a terminal becomes a question mark. */
static void put_clean(tl_out *out, tl_span text)
{
    const bool is_text = tl_is_utf8(text);
    size_t n = text.n < out->cap - out->n ? text.n : out->cap - out->n;
    while (n > 0 && n < text.n && (text.at[n] & 0xC0) == 0x80) {
        n--;
    }
    for (size_t i = 0; i < n; i++) {
        const uint8_t c = text.at[i];
        /* U+0080 to U+009F, two bytes each: some terminals take them for escape sequences. */
        const bool control = c == 0xC2 ? i + 1 < n && text.at[i + 1] < 0xA0
                                       : i > 0 && text.at[i - 1] == 0xC2 && c < 0xA0;
        tl_put_u8(out, c < ' ' || c == 0x7F || control || (c > 0x7F && !is_text) ? '?' : c);
    }
}

void tl_log(tl_log_ring *ring, tl_log_level level, const char *text, tl_span detail)
{
    if (level > ring->level) {
        return;
    }
    while (ring->used + HEAD + TL_LOG_TEXT_MAX > TL_LOG_BYTES) {
        drop_oldest(ring);
    }
    uint8_t *line = ring->bytes + ring->used;
    tl_out head = {line, 0, HEAD, false}, out = {line + HEAD, 0, TL_LOG_TEXT_MAX, false};
    put_clean(&out, tl_text(text));
    if (detail.n > 0) {
        put_clean(&out, tl_text(": "));
        put_clean(&out, detail);
    }
    tl_put_u64(&head, ring->sys->now_ms(ring->sys->with));
    tl_put_u8(&head, (uint8_t)level);
    tl_put_u8(&head, (uint8_t)out.n);
    ring->used = (uint16_t)(ring->used + HEAD + out.n);
    ring->count++;
    ring->sys->log(ring->sys->with, level, (tl_span){out.at, out.n});
}

void tl_log_text(tl_log_ring *ring, tl_log_level level, const char *text, const char *detail)
{
    tl_log(ring, level, text, tl_text(detail));
}

bool tl_log_after(const tl_log_ring *ring, uint32_t number, tl_log_line *line)
{
    const uint8_t *at = ring->bytes;
    for (uint32_t i = 0; i < ring->count; i++, at += size_of(at)) {
        if (ring->first + i > number) {
            *line = (tl_log_line){ring->first + i, tl_u64(at), (tl_log_level)at[AT_BYTES], {at + HEAD, at[HEAD - 1]}};
            return true;
        }
    }
    return false;
}
