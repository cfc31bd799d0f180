#include "towline/frame.h"

#include "towline/bytes.h"

enum { CONNECTION = 1, STREAM = 2, EITHER = CONNECTION | STREAM }; /* where a type may stand */

#define MAX_AUTH_PAYLOAD (1024u - TL_HEADER_SIZE)

typedef struct {
    uint8_t where;
    uint8_t shortest; /* payload bytes, as is `longest` */
    uint16_t longest;
} shape;

static const shape shapes[] = {
    [TL_CHALLENGE] = {CONNECTION, TL_NONCE_SIZE + 1, TL_MAX_CONTROL_PAYLOAD},
    [TL_AUTH] = {CONNECTION, 0, MAX_AUTH_PAYLOAD},
    [TL_HELLO] = {CONNECTION, 0, TL_MAX_HELLO_PAYLOAD},
    [TL_GRANT] = {CONNECTION, TL_GRANT_ID_SIZE + 1, TL_MAX_CONTROL_PAYLOAD},
    [TL_REVOKE] = {CONNECTION, TL_GRANT_ID_SIZE, TL_GRANT_ID_SIZE},
    [TL_OPEN] = {STREAM, TL_GRANT_ID_SIZE + 4, TL_MAX_CONTROL_PAYLOAD},
    [TL_OPENED] = {STREAM, 0, 0},
    [TL_REFUSED] = {STREAM, 2, TL_MAX_CONTROL_PAYLOAD},
    [TL_DATA] = {STREAM, 1, UINT16_MAX}, /* and at most the receiver's max_frame */
    [TL_FIN] = {STREAM, 0, 0},
    [TL_RESET] = {STREAM, 2, 2},
    [TL_CREDIT] = {EITHER, 8, 8},
    [TL_PING] = {CONNECTION, TL_PING_SIZE, TL_PING_SIZE},
    [TL_PONG] = {CONNECTION, TL_PING_SIZE, TL_PING_SIZE},
    [TL_GOAWAY] = {CONNECTION, 10, TL_MAX_CONTROL_PAYLOAD},
};

static tl_wrong check_shape(uint8_t type, size_t length, uint32_t stream, uint32_t max_frame)
{
    if (type >= sizeof shapes / sizeof shapes[0] || shapes[type].where == 0) {
        return "an unknown frame type";
    }
    if (length < shapes[type].shortest || length > shapes[type].longest ||
        (type == TL_DATA && length > max_frame)) {
        return "a frame has a wrong length";
    }
    if ((shapes[type].where & (stream != 0 ? STREAM : CONNECTION)) == 0) {
        return "a frame has a wrong stream id";
    }
    return NULL;
}

tl_frame_result tl_frame_next(tl_span *message, uint32_t max_frame, tl_frame *out)
{
    *out = (tl_frame){0};
    if (message->n == 0) {
        return TL_FRAME_END;
    }
    if (message->n < TL_HEADER_SIZE) {
        out->wrong = "a frame header is cut short";
        return TL_FRAME_BAD;
    }
    const uint8_t *header = tl_take(message, TL_HEADER_SIZE).at;
    size_t length = tl_u16(header + 2);
    if (length > message->n) {
        out->wrong = "a frame is longer than its message";
        return TL_FRAME_BAD;
    }
    if (header[1] != 0) {
        out->wrong = "flags are not 0";
        return TL_FRAME_BAD;
    }
    out->type = header[0];
    out->stream = tl_u32(header + 4);
    out->payload = tl_take(message, length);
    out->wrong = check_shape(out->type, length, out->stream, max_frame);
    return out->wrong != NULL ? TL_FRAME_BAD : TL_FRAME_OK;
}

tl_wrong tl_challenge_parse(tl_span payload, tl_challenge *out)
{
    out->nonce = tl_take(&payload, TL_NONCE_SIZE).at;
    out->server_name = payload;
    if (payload.n < 1 || payload.n > TL_MAX_SERVER_NAME || !tl_is_utf8(payload)) {
        return "CHALLENGE: malformed";
    }
    return NULL;
}

tl_wrong tl_grant_parse(tl_span payload, tl_grant_frame *out)
{
    out->grant_id = tl_take(&payload, TL_GRANT_ID_SIZE).at;
    out->token = payload;
    if (payload.n < 1 || payload.n > TL_MAX_TOKEN || !tl_is_ascii(payload)) {
        return "GRANT: malformed";
    }
    return NULL;
}

/* A length byte and so many bytes of a name. */
static bool take_name(tl_span *from, tl_span *name)
{
    tl_span length = tl_take(from, 1);
    if (length.n == 0 || length.at[0] > from->n) {
        return false;
    }
    *name = tl_take(from, length.at[0]);
    return tl_is_name(*name);
}

tl_wrong tl_open_parse(tl_span payload, tl_open *out)
{
    out->grant_id = tl_take(&payload, TL_GRANT_ID_SIZE).at;
    if (!take_name(&payload, &out->device) || !take_name(&payload, &out->service) || payload.n > 0) {
        return "OPEN: malformed";
    }
    return NULL;
}

tl_wrong tl_refused_parse(tl_span payload, tl_refused *out)
{
    out->code = tl_u16(tl_take(&payload, 2).at);
    out->message = payload;
    return payload.n > TL_MAX_REASON || !tl_is_utf8(payload) ? "REFUSED: malformed message" : NULL;
}

tl_wrong tl_goaway_parse(tl_span payload, tl_goaway *out)
{
    const uint8_t *fixed = tl_take(&payload, 10).at;
    out->last_id = tl_u32(fixed);
    out->retry_after_ms = tl_u32(fixed + 4);
    out->code = tl_u16(fixed + 8);
    out->reason = payload;
    return payload.n > TL_MAX_REASON || !tl_is_utf8(payload) ? "GOAWAY: malformed reason" : NULL;
}

tl_reset_code tl_reset_code_of(uint16_t number)
{
    return number >= TL_RESET_CANCELLED && number <= TL_RESET_INTERNAL ? (tl_reset_code)number : TL_RESET_INTERNAL;
}

tl_close_code tl_close_code_of(uint16_t number)
{
    return number <= TL_CLOSE_INTERNAL ? (tl_close_code)number : TL_CLOSE_INTERNAL;
}

void tl_header_put(tl_out *out, tl_frame_type type, uint32_t stream, size_t length)
{
    uint8_t header[TL_HEADER_SIZE] = {
        (uint8_t)type,           0, (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)(stream >> 24),
        (uint8_t)(stream >> 16), (uint8_t)(stream >> 8),    (uint8_t)stream,
    };
    tl_put(out, header, sizeof header);
}

void tl_frame_put(tl_out *out, tl_frame_type type, uint32_t stream, tl_span payload)
{
    tl_header_put(out, type, stream, payload.n);
    tl_put_span(out, payload);
}

void tl_refused_put(tl_out *out, uint32_t stream, tl_refused_code code, const char *message)
{
    tl_span text = tl_text(message);
    tl_header_put(out, TL_REFUSED, stream, 2 + text.n);
    tl_put_u16(out, (uint16_t)code);
    tl_put_span(out, text);
}

void tl_reset_put(tl_out *out, uint32_t stream, tl_reset_code code)
{
    tl_header_put(out, TL_RESET, stream, 2);
    tl_put_u16(out, (uint16_t)code);
}

void tl_number_put(tl_out *out, tl_frame_type type, uint32_t stream, uint64_t number)
{
    tl_header_put(out, type, stream, 8);
    tl_put_u64(out, number);
}

void tl_goaway_put(tl_out *out, uint32_t last_id, uint32_t retry_after_ms, tl_close_code code, const char *reason)
{
    tl_span text = tl_text(reason);
    tl_header_put(out, TL_GOAWAY, 0, 10 + text.n);
    tl_put_u32(out, last_id);
    tl_put_u32(out, retry_after_ms);
    tl_put_u16(out, (uint16_t)code);
    tl_put_span(out, text);
}
