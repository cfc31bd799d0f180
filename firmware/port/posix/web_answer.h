/* Takes apart the core's answers, which stand as on the line, for a web server that writes heads and chunks itself. */
#ifndef TOWLINE_POSIX_WEB_ANSWER_H
#define TOWLINE_POSIX_WEB_ANSWER_H

#include "towline/span.h"

#define TL_WEB_LENGTH_CHUNKED UINT64_MAX

typedef struct {
    unsigned status;
    uint64_t length; /* of the body; TL_WEB_LENGTH_CHUNKED */
} tl_web_head;

/* One header of it. False: the rest is not wanted. */
typedef bool (*tl_web_header)(void *to, const char *name, const char *value);

/* Takes the head off `answer`, which holds all of it, and hands out its headers, without those that tell a body's
 * length. False: it is none. */
bool tl_web_take_head(tl_span *answer, tl_web_head *head, tl_web_header each, void *to);
/* Leaves the chunks' contents alone of `piece`, in place; how many bytes. Chunks stand whole in each piece of an
 * answer. */
size_t tl_web_unchunk(uint8_t *piece, size_t n);

#endif
