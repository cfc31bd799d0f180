/* What a device is told (docs/protocol/device-v1.md, sections 5, 7 and 8). What lacks a member of its form, or has
 * one that is none, is not believed at all: each reader says false then. */
#ifndef TOWLINE_TOLD_H
#define TOWLINE_TOLD_H

#include "towline/envelope.h"

typedef enum { TL_TOLD_KEPT, TL_TOLD_ANSWER, TL_TOLD_REFUSED } tl_told_what;

typedef struct {
    tl_told_what what;
    tl_number number;    /* of KEPT and ANSWER */
    uint64_t hello_boot; /* of ANSWER */
    int64_t time_ms;
    uint8_t prefix[TL_PREFIX_MAX];
    size_t prefix_n;
    bool has_id;         /* of REFUSED: which message */
    uint8_t id[TL_UUID];
    bool by_itself;      /* the message itself is at fault, not where the device stands */
} tl_told;

typedef struct {
    uint8_t id[TL_UUID];
    tl_json name;   /* a token */
    tl_json params; /* an object */
    uint64_t ttl_ms, expires_ms, timeout_ms;
} tl_command;

#define TL_CONFIG_SHA 32u

typedef struct {
    uint64_t version; /* from 1 */
    uint8_t sha256[TL_CONFIG_SHA];
    tl_json body; /* an object */
} tl_desired;

bool tl_told_accepted(tl_span raw, tl_told *told);
/* `command` and `desired` point into `raw`. */
bool tl_told_command(tl_span raw, tl_command *command);
bool tl_told_desired(tl_span raw, tl_desired *desired);

#endif
