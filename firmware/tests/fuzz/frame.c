/* A message of any bytes: what is read as a frame is written as the same bytes, and its payload is read too. */
#include "exact.h"

#include "towline/fields.h"
#include "towline/frame.h"

enum { MAX_FRAME = 2040, MESSAGE_MAX = 1 << 17 };

static void read_payload(const tl_frame *frame)
{
    union {
        tl_challenge challenge;
        tl_grant_frame grant;
        tl_open open;
        tl_refused refused;
        tl_goaway goaway;
        tl_hello hello;
    } read;
    switch (frame->type) {
    case TL_CHALLENGE:
        must(tl_challenge_parse(frame->payload, &read.challenge) != NULL ||
             read.challenge.server_name.n <= TL_MAX_SERVER_NAME);
        break;
    case TL_HELLO:
        must(tl_hello_parse(frame->payload, &read.hello) != NULL ||
             (read.hello.limits.max_frame >= 256 && read.hello.limits.keepalive_ms >= 4000));
        break;
    case TL_GRANT:
        must(tl_grant_parse(frame->payload, &read.grant) != NULL || read.grant.token.n <= TL_MAX_TOKEN);
        break;
    case TL_OPEN:
        must(tl_open_parse(frame->payload, &read.open) != NULL || tl_is_name(read.open.service));
        break;
    case TL_REFUSED:
        must(tl_refused_parse(frame->payload, &read.refused) != NULL || tl_is_utf8(read.refused.message));
        break;
    case TL_GOAWAY:
        must(tl_goaway_parse(frame->payload, &read.goaway) != NULL || tl_is_utf8(read.goaway.reason));
        break;
    default:
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t written[MESSAGE_MAX];
    uint8_t *copy = exact(data, size);
    tl_span message = {copy, size};
    tl_frame frame;
    const uint8_t *at = copy;
    while (tl_frame_next(&message, MAX_FRAME, &frame) == TL_FRAME_OK) {
        tl_out out = {written, 0, sizeof written, false};
        tl_frame_put(&out, (tl_frame_type)frame.type, frame.stream, frame.payload);
        must(out.n == TL_HEADER_SIZE + frame.payload.n && memcmp(written, at, out.n) == 0);
        at += out.n;
        read_payload(&frame);
    }
    free(copy);
    return 0;
}
