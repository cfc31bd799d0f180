#include "web_answer.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "towline/bytes.h"

#define LINE_MAX 512u /* the longest header of ours is the page's policy */

/* The next line without its end, as a C string; false: it is longer than any of ours, or not there. */
static bool take_line(tl_span *text, char line[LINE_MAX])
{
    const uint8_t *end = memmem(text->at, text->n, "\r\n", 2);
    const size_t n = end != NULL ? (size_t)(end - text->at) : 0;
    if (end == NULL || n >= LINE_MAX) {
        return false;
    }
    memcpy(line, text->at, n);
    line[n] = '\0';
    tl_take(text, n + 2);
    return true;
}

bool tl_web_take_head(tl_span *answer, tl_web_head *head, tl_web_header each, void *to)
{
    char line[LINE_MAX];
    if (!take_line(answer, line) || strncmp(line, "HTTP/1.1 ", 9) != 0) {
        return false;
    }
    *head = (tl_web_head){.status = (unsigned)strtoul(line + 9, NULL, 10)};
    while (take_line(answer, line)) {
        char *value = strstr(line, ": ");
        if (line[0] == '\0') {
            return true;
        }
        if (value == NULL) {
            return false;
        }
        *value = '\0';
        value += 2;
        if (strcasecmp(line, "Content-Length") == 0) {
            head->length = strtoull(value, NULL, 10);
        } else if (strcasecmp(line, "Transfer-Encoding") == 0) {
            head->length = TL_WEB_LENGTH_CHUNKED;
        } else if (!each(to, line, value)) {
            return false;
        }
    }
    return false;
}

size_t tl_web_unchunk(uint8_t *piece, size_t n)
{
    char line[LINE_MAX];
    tl_span rest = {piece, n};
    size_t content = 0;
    while (take_line(&rest, line)) {
        const tl_span chunk = tl_take(&rest, strtoul(line, NULL, 16));
        memmove(piece + content, chunk.at, chunk.n);
        content += chunk.n;
        tl_take(&rest, 2);
    }
    return content;
}
