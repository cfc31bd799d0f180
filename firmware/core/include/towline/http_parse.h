/* HTTP/1.1 requests as they come through a tunnel stream (RFC 9112), read piece by piece.
 *
 * The head is collected, the body never is. It takes what the tunnel's server writes and less than HTTP allows:
 * no HTTP/1.0, no continued lines, no bare CR or LF, no chunk extensions, no
 * trailers, one way to tell a body's length. Two readings of one head
 * would be a way past the checks of whoever stands before us.
 */
#ifndef TOWLINE_HTTP_PARSE_H
#define TOWLINE_HTTP_PARSE_H

#include "towline/span.h"

#define TL_HTTP_HEAD_MAX 1536u
#define TL_HTTP_CHUNK_DIGITS 7u /* of a chunk's size: beyond 256 MiB no chunk is ours */

typedef enum {
    TL_H_HOST,
    TL_H_ORIGIN,
    TL_H_COOKIE,
    TL_H_CONTENT_TYPE,
    TL_H_IF_NONE_MATCH,
    TL_H_ACCEPT_ENCODING,
    TL_H_X_TOWLINE,
    TL_H_COUNT
} tl_http_header;

/* Spans into the parser's head: they hold until the next request begins. A header that is not there has no `at`. */
typedef struct tl_http_request {
    tl_span method, target, path, query; /* query: behind the `?`, empty without one */
    tl_span header[TL_H_COUNT];
    uint64_t content_length;
    bool chunked, expect_continue, close, upgrade;
} tl_http_request;

typedef enum {
    TL_HTTP_MORE, /* all was taken, more must come */
    TL_HTTP_HEAD, /* `request` is set */
    TL_HTTP_BODY, /* `body` is a piece of the body, in what was given */
    TL_HTTP_END,  /* the request is over; the next may begin */
    TL_HTTP_BAD   /* `status` says why; nothing more can be read */
} tl_http_result;

typedef struct {
    tl_http_request request;
    tl_span body;
    uint64_t left; /* of the body, or of the chunk */
    uint16_t status;
    uint16_t head_n;
    uint8_t state;
    uint8_t digits; /* of a chunk's size so far */
    uint8_t head[TL_HTTP_HEAD_MAX];
} tl_http_parser;

void tl_http_init(tl_http_parser *);
/* Reads on until something is to be told; `taken` of `in` are read then. Call it again with the rest until MORE,
 * even when the rest is empty: an END may be due. */
tl_http_result tl_http_feed(tl_http_parser *, tl_span in, size_t *taken);
/* Whether a request has begun that has not ended: the stream is not idle. */
bool tl_http_busy(const tl_http_parser *);

/* Reads one whole head, `CRLF CRLF` included, into `request`; 0, or the status to answer. For the parser, and for
 * web servers that read heads themselves and must be held to the same rules. */
uint16_t tl_http_read_head(tl_span head, tl_http_request *request);
/* Whether a list of tokens (RFC 9110 section 5.6.1) holds this lower-case one, in any case and without parameters:
 * `gzip;q=0` does not name gzip, nor does `gzip;q=1`. */
bool tl_http_names(tl_span list, const char *token);

#endif
