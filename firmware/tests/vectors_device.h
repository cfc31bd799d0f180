/* device-v1.json as C values. What a case does not say is 0, or NULL. */
#ifndef TOWLINE_VECTORS_DEVICE_H
#define TOWLINE_VECTORS_DEVICE_H

#include "towline/device_line.h"

typedef struct {
    tl_span text;
    const char *tokens; /* with commas; NULL: it is no topic */
} vector_topic;

typedef struct {
    const char *name;
    tl_span stored, sent;
    tl_number floor, prev;
    bool tells_prev;
} vector_sending;

typedef struct {
    const char *name, *kind, *what; /* what NULL: it is not to be believed */
    tl_span raw;
    tl_number number;  /* of accepted; of an answer: what is known */
    const char *reason, *id, *prefix, *command, *params, *body, *sha256;
    uint64_t hello, time, ttl_ms, expires, timeout_ms, version;
} vector_told;

typedef struct {
    const char *name, *kind;
    tl_span raw;
    uint64_t boot, config, at, version, told;
    const char *instance, *software, *type, *commands; /* commands with commas */
    uint32_t outbox[4];
    bool has_outbox, gone, has_at, ok;
    const char *command, *stage, *result, *error, *sha256;
} vector_body;

typedef struct {
    tl_number number, before, floor, have;
    const char *place;
    bool passed;
} vector_line_step;

typedef struct {
    const char *name;
    tl_number have;
    const vector_line_step *steps;
    size_t step_count;
} vector_line;

typedef struct {
    const char *name;
    tl_number highest, told;
    bool went_back;
    uint64_t next_boot; /* 0: it stays */
} vector_counter;

extern const vector_topic vector_topics[];
extern const size_t vector_topics_count;
extern const vector_sending vector_sendings[];
extern const size_t vector_sendings_count;
extern const vector_told vector_tolds[];
extern const size_t vector_tolds_count;
extern const vector_body vector_bodies[];
extern const size_t vector_bodies_count;
extern const vector_line vector_lines[];
extern const size_t vector_lines_count;
extern const vector_counter vector_counters[];
extern const size_t vector_counters_count;
/* Messages for whoever reads what devices say: no device does. */
extern const size_t vector_messages_for_readers;

#endif
