/* Answers in HTTP/1.1: heads with their length told, and chunks for what has none. */
#ifndef TOWLINE_HTTP_ANSWER_H
#define TOWLINE_HTTP_ANSWER_H

#include "towline/http_parse.h"
#include "towline/span.h"

#define TL_LENGTH_UNKNOWN UINT64_MAX /* chunked */
#define TL_CHUNK_FRAME 8u            /* bytes around a chunk: four digits, two line ends */
#define TL_CHUNK_MAX 0xFFFFu
#define TL_WHY_MAX 80u /* a line on a phone */

/* Everything is a literal of ours: nothing that came from outside gets into a head, except through
 * `tl_answer_header`. */
typedef struct {
    uint16_t status;
    bool gzip, close;
    const char *policy;       /* of a page: what a browser may do with it (CSP); NULL: no page */
    uint64_t length;          /* ignored for 1xx, 204 and 304, which have no body */
    const char *content_type; /* NULL: none */
    const char *etag;         /* with its quotes; NULL: none, and not to be kept by anybody */
} tl_answer;

/* The status line and headers; further ones may follow, then `tl_answer_head_end`. */
void tl_answer_head(tl_out *out, const tl_answer *answer);
/* A value with a control character in it, or an empty name, makes `out` full: half a head is never sent. */
void tl_answer_header(tl_out *out, const char *name, tl_span value);
void tl_answer_head_end(tl_out *out);

/* A whole answer whose body says what the status means: `404 Not Found`. `head_only`: the request was HEAD. */
void tl_answer_plain(tl_out *out, uint16_t status, bool head_only, bool close);
/* The same, with `why` instead where it is not NULL: a literal of at most TL_WHY_MAX bytes. */
void tl_answer_refusal(tl_out *out, uint16_t status, const char *why, bool head_only, bool close);
void tl_answer_continue(tl_out *out);

/* A chunk is written in place: begin, write to `out`, end. One of no bytes would end the answer, so it is taken
 * back. `room`: how many bytes of content may be written in between. */
size_t tl_chunk_begin(tl_out *out, size_t *room);
void tl_chunk_end(tl_out *out, size_t begin);
void tl_chunk_last(tl_out *out);

/* Whether the request's If-None-Match holds this entity tag (RFC 9110 section 13.1.2: compared weakly). */
bool tl_etag_matches(tl_span if_none_match, const char *etag);

#endif
