/* AUTH and HELLO: sequences of tag u8, length u16, value (docs/protocol/tunnel-v1.md, sections 4 and 5). */
#ifndef TOWLINE_FIELDS_H
#define TOWLINE_FIELDS_H

#include "towline/bytes.h"
#include "towline/frame.h"

#define TL_INSTANCE_SIZE 16u
#define TL_KEY_ID_SIZE 16u
#define TL_SIGNATURE_SIZE 64u

/* Of auth_transcript's text: 15 of context, nonce, two lengths, the longest names, instance. */
#define TL_MAX_TRANSCRIPT (15u + TL_NONCE_SIZE + 2u + TL_MAX_SERVER_NAME + 2u + TL_MAX_NAME + TL_INSTANCE_SIZE)

typedef struct {
    char device[TL_MAX_NAME];
    uint8_t device_n;
    uint8_t instance[TL_INSTANCE_SIZE];
    uint8_t key_id[TL_KEY_ID_SIZE];
    uint8_t signature[TL_SIGNATURE_SIZE]; /* r ‖ s */
} tl_auth;

/* What one side allows the other; told in HELLO. Sizes in bytes. */
typedef struct {
    uint32_t max_frame;   /* largest DATA payload that the sender of the HELLO accepts, 256..65535 */
    uint32_t max_message; /* ≥ 2048 */
    uint32_t stream_window;
    uint32_t connection_window;
    uint32_t max_streams;
    uint32_t keepalive_ms; /* 4000..300000 */
} tl_limits;

typedef struct {
    tl_span name;
    tl_span kind;     /* "web" or "tcp" */
    bool preserve;    /* host=preserve: the server leaves the public name; else it rewrites to `upstream` */
    bool forwarded;   /* the server adds X-Forwarded-* */
    tl_span upstream; /* Host value for rewriting; empty: not told */
} tl_service;

typedef struct {
    tl_limits limits;
    tl_span features; /* comma-separated */
    tl_span software;
    /* Only in ours. A server announces no services or children, and a device has no use for them. */
    const tl_service *services;
    size_t service_count;
    /* Only in one that was read; the spans point into its message. */
    tl_span key_list;
    bool has_key_list;
} tl_hello;

/* What the device signs (section 4). */
void tl_auth_transcript(tl_out *out, const uint8_t nonce[TL_NONCE_SIZE], tl_span server_name, tl_span device,
                        const uint8_t instance[TL_INSTANCE_SIZE]);
size_t tl_auth_size(const tl_auth *auth); /* of the payload */
void tl_auth_put(tl_out *out, const tl_auth *auth);

/* A server's. Fields of a device's HELLO (service, child) are skipped like unknown ones. */
tl_wrong tl_hello_parse(tl_span payload, tl_hello *out);
/* The payload of ours. The values come from the program and its settings, which have checked them. */
void tl_hello_put(tl_out *out, const tl_hello *hello);

#endif
