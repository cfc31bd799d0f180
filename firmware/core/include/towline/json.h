/* JSON of which all parsers make the same (RFC 8259 and no more), read where it lies: no tree, no copies.
 *
 * First `tl_json_check` looks at the whole text once; what it passed is walked by the readers below, which
 * take nothing else. It refuses what device_protocol.strict_json refuses: a member that is there twice, bytes
 * that are no UTF-8, NaN, 1e400, a NUL or half a surrogate pair in a string, more than 16 levels.
 */
#ifndef TOWLINE_JSON_H
#define TOWLINE_JSON_H

#include "towline/span.h"

/* Levels of lists and objects, as everywhere in Towline. */
#define TL_JSON_DEPTH_MAX 16
/* Members of one object: each is compared with those before it, so this bounds what a text may cost. */
#define TL_JSON_MEMBERS_MAX 128
/* An integer of more characters may be beyond the largest double. */
#define TL_JSON_INTEGER_MAX 308

typedef enum {
    TL_JSON_FINE,
    TL_JSON_NO_UTF8,
    TL_JSON_NO_JSON,
    TL_JSON_TWICE,    /* a member is in its object twice */
    TL_JSON_TOO_DEEP,
    TL_JSON_TOO_MANY, /* members of one object */
    TL_JSON_ODD_TEXT  /* an escape that writes NUL or half a surrogate pair */
} tl_json_fault;

typedef enum {
    TL_JSON_NULL,
    TL_JSON_FALSE,
    TL_JSON_TRUE,
    TL_JSON_NUMBER, /* text: its digits as they stand */
    TL_JSON_STRING, /* text: between the quotes, escapes as they stand */
    TL_JSON_LIST,   /* text: between the brackets */
    TL_JSON_OBJECT
} tl_json_kind;

typedef struct {
    tl_json_kind kind;
    tl_span text;
} tl_json;

/* The whole text is one value. `value` is set for TL_JSON_FINE alone. */
tl_json_fault tl_json_check(tl_span text, tl_json *value);

/* Walks a list or an object: set `rest` to its text, then call until false. */
bool tl_json_next_item(tl_span *rest, tl_json *item);
bool tl_json_next_member(tl_span *rest, tl_json *name, tl_json *value);
/* The member of this name; false where there is none, and where `object` is no object. */
bool tl_json_member(const tl_json *object, const char *name, tl_json *value);

/* Whether it is a string that says exactly this, however it is escaped. */
bool tl_json_says(const tl_json *string, tl_span text);
/* Whether two strings say the same, however each is escaped. */
bool tl_json_alike(const tl_json *one, const tl_json *other);
/* What a string says, in UTF-8; false where it is no string, or does not fit. Writes all of it or nothing. */
bool tl_json_unescape(const tl_json *string, tl_out *out);
/* The number of characters (code points) of a string, as JSON schemas count; 0 for anything else. */
size_t tl_json_length(const tl_json *string);
/* A whole number written without fraction or exponent, from `least` to `most`. */
bool tl_json_whole(const tl_json *number, int64_t least, int64_t most, int64_t *value);

/* --- writing: compact, members in the order of the calls --- */

typedef struct {
    tl_out *out;
    uint8_t depth;
    bool comma; /* a value stands before the next one */
} tl_json_writer;

static inline tl_json_writer tl_json_to(tl_out *out)
{
    return (tl_json_writer){out, 0, false};
}

void tl_json_open(tl_json_writer *, char bracket); /* '{' or '[' */
void tl_json_close(tl_json_writer *, char bracket);
void tl_json_put_name(tl_json_writer *, const char *name);
/* Bytes that are no UTF-8, and NUL, become U+FFFD: a strange log line must not stop what stands around it. */
void tl_json_put_text(tl_json_writer *, tl_span text);
void tl_json_put_whole(tl_json_writer *, int64_t value);
/* `value` / 10^decimals, decimals ≤ 9: 2150, 2 is 21.50. The core knows no floating point. */
void tl_json_put_fixed(tl_json_writer *, int64_t value, unsigned decimals);
void tl_json_put_bool(tl_json_writer *, bool value);
void tl_json_put_null(tl_json_writer *);
/* A value that is JSON already. */
void tl_json_put_raw(tl_json_writer *, tl_span json);
/* Whether all of it was written, and every bracket closed. */
bool tl_json_complete(const tl_json_writer *);

#endif
