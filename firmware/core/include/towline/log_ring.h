/* The last lines that this device said, for its page and for a console.
 *
 * Lines lie one behind the other in 4 KiB; the oldest make room. A text may hold what a server or a visitor sent,
 * so nothing but printable ASCII and whole UTF-8 gets in.
 */
#ifndef TOWLINE_LOG_RING_H
#define TOWLINE_LOG_RING_H

#include "towline_port.h"

#define TL_LOG_BYTES 4096u     /* some sixty lines */
#define TL_LOG_TEXT_MAX 200u   /* bytes of one line; a longer one is cut */

typedef struct {
    const tl_port_sys *sys;
    uint32_t first; /* number of the oldest line that is kept, from 1 */
    uint16_t count;
    uint16_t used;
    uint8_t level; /* a tl_log_level: what matters less is not kept */
    uint8_t bytes[TL_LOG_BYTES];
} tl_log_ring;

typedef struct {
    uint32_t number;
    uint64_t at_ms; /* monotonic */
    tl_log_level level;
    tl_span text; /* until the next line is written */
} tl_log_line;

void tl_log_init(tl_log_ring *, const tl_port_sys *, tl_log_level);
/* `detail`: empty, or what stands behind a colon. */
void tl_log(tl_log_ring *, tl_log_level, const char *text, tl_span detail);
void tl_log_text(tl_log_ring *, tl_log_level, const char *text, const char *detail);
/* The first line with a higher number; false: none. */
bool tl_log_after(const tl_log_ring *, uint32_t number, tl_log_line *line);

#endif
