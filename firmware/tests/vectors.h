/* The shared byte vectors as C values: what vectors_to_c.py writes out of docs/protocol/vectors. The same arrays run
 * on the host and on the target, so no test reads JSON. */
#ifndef TOWLINE_VECTORS_H
#define TOWLINE_VECTORS_H

#include "towline/http_parse.h"
#include "towline/span.h"
#include "vectors_device.h"
#include "vectors_grants.h"

typedef struct {
    const char *name;
    const char *kind;
    bool preserve;
    bool forwarded;
    const char *upstream;
} vector_service;

/* Members that a type of frame does not have are 0. */
typedef struct {
    const char *name;
    tl_span raw; /* the whole frame */
    const char *type;
    uint32_t stream;
    const char *device, *service, *server_name, *token, *message, *reason;
    tl_span nonce, instance, key_id, signature, grant_id, data, opaque;
    uint16_t code;
    uint32_t last_id, retry_after_ms;
    uint64_t offset;
    uint32_t max_frame, max_message, stream_window, connection_window, max_streams, keepalive_ms;
    const char *features, *software, *key_list; /* features with commas; key_list NULL: none */
    const vector_service *services;
    size_t service_count;
    const char *children; /* with commas */
} vector_frame;

typedef struct {
    const char *name, *side, *state;
    const tl_span *before;
    size_t before_count;
    bool accept;
    tl_span raw;
    int close_code;
} vector_bad_frame;

typedef enum { STEP_RECEIVE, STEP_CONSUMED, STEP_SEND } vector_step_kind;

typedef struct {
    vector_step_kind kind;
    tl_span bytes; /* of RECEIVE and SEND */
    uint32_t stream;
    size_t consumed;
    tl_span answers; /* all frames, one behind the other */
    int close_code;  /* -1: it stays open */
} vector_step;

typedef struct {
    const char *name;
    uint32_t peer_stream_window, peer_connection_window; /* 0: as in the server's HELLO of frames.json */
    const vector_step *steps;
    size_t step_count;
} vector_credit;

typedef struct {
    bool from_server;
    tl_span raw;
    const char *events; /* with commas */
} vector_message;

typedef struct {
    const char *name;
    tl_span transcript;
} vector_wrong_transcript;

typedef struct {
    tl_span private_scalar, public_key_spki, key_id, nonce, instance, transcript, signature;
    const char *server_name, *device;
    const vector_wrong_transcript *must_not_verify;
    size_t must_not_verify_count;
} vector_auth;

/* Texts that the head does not have are NULL. */
typedef struct {
    const char *name;
    tl_span head;
    const char *method, *path, *query;
    const char *header[TL_H_COUNT];
    uint64_t content_length;
    bool chunked, expect_continue, upgrade;
} vector_http_request;

typedef struct {
    const char *name;
    tl_span head;
    uint16_t status; /* 0: it is taken */
} vector_http_head;

typedef struct {
    tl_span keys[2];
    const char *hardware;
    uint32_t target, version[3], security, floor, largest;
} vector_image_device;

typedef struct {
    const char *name;
    tl_span head;
    bool force;
    const char *why; /* NULL: it is taken */
} vector_image;

extern const vector_image_device vector_image_runs;
extern const vector_image vector_images[];
extern const size_t vector_images_count;
extern const vector_http_request vector_http_requests[];
extern const size_t vector_http_requests_count;
extern const vector_http_head vector_http_heads[];
extern const size_t vector_http_heads_count;
extern const vector_frame vector_frames[];
extern const size_t vector_frames_count;
extern const vector_bad_frame vector_bad_frames[];
extern const size_t vector_bad_frames_count;
extern const vector_credit vector_credits[];
extern const size_t vector_credits_count;
extern const vector_message vector_messages[];
extern const size_t vector_messages_count;
extern const vector_auth vector_auth_case;

#endif
