/* Frames of the tunnel protocol, version 1 (docs/protocol/tunnel-v1.md, sections 2 and 6): bytes to values and
 * back. Spans point into the message that was read. */
#ifndef TOWLINE_FRAME_H
#define TOWLINE_FRAME_H

#include "towline/span.h"

#define TL_HEADER_SIZE 8u
#define TL_MAX_CONTROL_PAYLOAD 4096u
#define TL_MAX_HELLO_PAYLOAD 16384u
#define TL_MAX_MESSAGE_BEFORE_HELLO 4096u
#define TL_MAX_TOKEN 1536u
#define TL_MAX_REASON 256u
#define TL_MAX_SERVER_NAME 253u /* a DNS name's greatest length */
#define TL_NONCE_SIZE 32u
#define TL_GRANT_ID_SIZE 16u
#define TL_PING_SIZE 8u
#define TL_MAX_STREAM_ID (1u << 30)

typedef enum {
    TL_CHALLENGE = 0x01,
    TL_AUTH = 0x02,
    TL_HELLO = 0x03,
    TL_GRANT = 0x04,
    TL_REVOKE = 0x05,
    TL_OPEN = 0x06,
    TL_OPENED = 0x07,
    TL_REFUSED = 0x08,
    TL_DATA = 0x09,
    TL_FIN = 0x0A,
    TL_RESET = 0x0B,
    TL_CREDIT = 0x0C,
    TL_PING = 0x0D,
    TL_PONG = 0x0E,
    TL_GOAWAY = 0x0F
} tl_frame_type;

typedef enum { /* why a stream was not opened */
    TL_REFUSED_NO_GRANT = 1,
    TL_REFUSED_GRANT_INVALID = 2,
    TL_REFUSED_GRANT_EXPIRED = 3,
    TL_REFUSED_GRANT_REVOKED = 4,
    TL_REFUSED_NO_TIME = 5,
    TL_REFUSED_UNKNOWN_SERVICE = 6,
    TL_REFUSED_UNREACHABLE = 7,
    TL_REFUSED_TOO_MANY_STREAMS = 8,
    TL_REFUSED_NOT_HERE = 9,
    TL_REFUSED_DRAINING = 10,
    TL_REFUSED_INTERNAL = 11
} tl_refused_code;

typedef enum { /* why a stream was cut */
    TL_RESET_CANCELLED = 1,
    TL_RESET_UPSTREAM_RESET = 2,
    TL_RESET_GRANT_ENDED = 3,
    TL_RESET_TIMEOUT = 4,
    TL_RESET_INTERNAL = 5
} tl_reset_code;

typedef enum { /* why a connection ends: GOAWAY's code, and the WebSocket status minus 4000 */
    TL_CLOSE_NORMAL = 0,
    TL_CLOSE_PROTOCOL_ERROR = 1,
    TL_CLOSE_HANDSHAKE_TIMEOUT = 2,
    TL_CLOSE_AUTH_FAILED = 3,
    TL_CLOSE_REVOKED = 4,
    TL_CLOSE_REPLACED = 5,
    TL_CLOSE_KEEPALIVE_TIMEOUT = 6,
    TL_CLOSE_FLOW_CONTROL = 7,
    TL_CLOSE_OVERFLOW = 8,
    TL_CLOSE_IDS_EXHAUSTED = 9,
    TL_CLOSE_WRONG_SERVER_NAME = 10,
    TL_CLOSE_TRY_LATER = 11,
    TL_CLOSE_INTERNAL = 12
} tl_close_code;

/* What is wrong with something that came; NULL: nothing. Literals alone, so they can be kept and sent. */
typedef const char *tl_wrong;

typedef struct {
    uint8_t type; /* a tl_frame_type */
    uint32_t stream;
    tl_span payload;
    tl_wrong wrong; /* set with TL_FRAME_BAD */
} tl_frame;

typedef enum { TL_FRAME_OK, TL_FRAME_END, TL_FRAME_BAD } tl_frame_result;

/* Takes the next frame off `message`. TL_FRAME_OK says that type, flags, length and stream id fit each other;
 * whether the frame may stand here, and what its payload says, is the caller's to check. `max_frame`: the
 * largest DATA payload that this side takes. */
tl_frame_result tl_frame_next(tl_span *message, uint32_t max_frame, tl_frame *out);

typedef struct {
    const uint8_t *nonce; /* TL_NONCE_SIZE bytes */
    tl_span server_name;
} tl_challenge;

typedef struct {
    const uint8_t *grant_id; /* TL_GRANT_ID_SIZE bytes */
    tl_span token;
} tl_grant_frame;

typedef struct {
    const uint8_t *grant_id; /* TL_GRANT_ID_SIZE bytes */
    tl_span device;
    tl_span service;
} tl_open;

typedef struct {
    uint16_t code; /* as it came */
    tl_span message;
} tl_refused;

typedef struct {
    uint32_t last_id;
    uint32_t retry_after_ms;
    uint16_t code; /* as it came */
    tl_span reason;
} tl_goaway;

tl_wrong tl_challenge_parse(tl_span payload, tl_challenge *out);
tl_wrong tl_grant_parse(tl_span payload, tl_grant_frame *out);
tl_wrong tl_open_parse(tl_span payload, tl_open *out);
tl_wrong tl_refused_parse(tl_span payload, tl_refused *out);
tl_wrong tl_goaway_parse(tl_span payload, tl_goaway *out);

/* Numbers from the wire; one that is not known reads as internal, so that codes can be added. */
tl_reset_code tl_reset_code_of(uint16_t number);
tl_close_code tl_close_code_of(uint16_t number);

void tl_frame_put(tl_out *out, tl_frame_type type, uint32_t stream, tl_span payload);
void tl_refused_put(tl_out *out, uint32_t stream, tl_refused_code code, const char *message);
void tl_reset_put(tl_out *out, uint32_t stream, tl_reset_code code);
/* CREDIT, PING, PONG: eight bytes. */
void tl_number_put(tl_out *out, tl_frame_type type, uint32_t stream, uint64_t number);
void tl_goaway_put(tl_out *out, uint32_t last_id, uint32_t retry_after_ms, tl_close_code code, const char *reason);

/* The header alone, for a payload that is written, or was written, behind it. */
void tl_header_put(tl_out *out, tl_frame_type type, uint32_t stream, size_t length);

#endif
