/* Compact JWS (RFC 7515) as strictly as the tunnel's specification asks (section 7): one issuer, one shape.
 *
 * A reason is a literal that may be logged: it names the rule and holds nothing of the token. NULL: it holds.
 */
#ifndef TOWLINE_JWS_H
#define TOWLINE_JWS_H

#include "towline/crypto.h"
#include "towline/json.h"
#include "towline/span.h"

#define TL_GRANT_TOKEN_MAX 1536u    /* specification, section 2 (GRANT) */
#define TL_KEY_LIST_TEXT_MAX 2040u  /* what the gateway promises for HELLO, and this link takes */
#define TL_KID_MAX 64u              /* the gateway's are RFC 7638 thumbprints: 43 */
#define TL_TOKEN_SCRATCH 1536u      /* three quarters of the longer text, and then some */

/* A token whose form and header hold. Nothing in it may be believed before its signature was checked. */
typedef struct {
    bool has_kid;
    uint8_t kid_n;
    uint8_t kid[TL_KID_MAX];
    tl_span signed_part; /* header.payload, as they came */
    tl_span payload;     /* in base64url still */
    tl_span signature;   /* in base64url still */
} tl_jws;

/* `scratch`: room for the decoded header; a header that does not fit is refused. */
const char *tl_jws_parse(tl_span token, const char *alg, const char *typ, size_t longest, tl_out scratch,
                         tl_jws *jws);
/* The payload as a checked JSON object; it lies in `scratch`. Call it once the signature was checked. */
const char *tl_jws_payload(const tl_jws *jws, tl_out scratch, tl_json *payload);
/* A claim that is a whole number of 0 to 2^53 − 1 (RFC 8259, section 6). */
bool tl_jws_whole(const tl_json *claims, const char *name, int64_t *value);

#endif
