/* Payloads that a device makes (docs/protocol/device-v1.md, sections 6 to 8), each appended to `out` as JSON. */
#ifndef TOWLINE_BODIES_H
#define TOWLINE_BODIES_H

#include "towline/envelope.h"

/* What waits, and what had to be let go since the outbox was made. */
typedef struct {
    uint32_t entries, bytes, dropped, refused;
} tl_outbox_report;

typedef struct {
    uint64_t boot;             /* 0: it has no counter yet */
    const char *instance;      /* a token, new at each start */
    const char *software, *type;
    const char *const *commands;
    size_t command_count;
    uint64_t config;           /* version; 0: none */
    const tl_outbox_report *outbox; /* NULL: not told */
} tl_hello_body;

typedef enum { TL_STAGE_RECEIVED, TL_STAGE_DONE, TL_STAGE_REFUSED } tl_stage;

typedef struct {
    const uint8_t *command; /* its id */
    tl_stage stage;
    int64_t at_ms; /* Unix; < 0: the device has no clock */
    bool ok;       /* of DONE */
    tl_span result; /* JSON; empty: none */
    tl_span error;  /* empty: none */
} tl_ack_body;

typedef struct {
    uint64_t version; /* that it runs with; 0: none */
    const uint8_t *sha256; /* of that; NULL: not told */
    uint64_t told;    /* the last; 0: none */
    tl_span error;    /* why not that one; empty: it is */
} tl_reported_body;

void tl_put_outbox_report(tl_json_writer *, const tl_outbox_report *);
void tl_put_hello_body(tl_out *, const tl_hello_body *);
void tl_put_gone_body(tl_out *, const char *instance);
void tl_put_ack_body(tl_out *, const tl_ack_body *);
void tl_put_reported_body(tl_out *, const tl_reported_body *);

/* A member, in the order of the calls. */
void tl_json_put_member(tl_json_writer *, const char *name, int64_t value);
void tl_json_put_member_text(tl_json_writer *, const char *name, tl_span text);

#endif
