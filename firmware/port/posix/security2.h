/* ESP-IDF's protocomm security 2 (scheme 2, patch 1), the device's side: SRP-6a, then AES-256-GCM.
 *
 * One session at a time. The nonce's last four bytes count each message of both directions, so none is read twice or
 * out of its turn.
 */
#ifndef TOWLINE_SECURITY2_H
#define TOWLINE_SECURITY2_H

#include "srp6a.h"

#include <mbedtls/gcm.h>

#define TL_SECURITY2_USER_MAX 64u
#define TL_SECURITY2_NONCE 12u
#define TL_SECURITY2_TAG 16u

typedef enum { TL_SECURITY2_NEW, TL_SECURITY2_ASKED, TL_SECURITY2_OPEN } tl_security2_state;

typedef struct {
    tl_security2_state state;
    const uint8_t *record; /* TL_SRP_RECORD bytes */
    tl_srp srp;
    uint8_t user[TL_SECURITY2_USER_MAX];
    size_t user_n;
    uint8_t nonce[TL_SECURITY2_NONCE];
    unsigned wrong; /* proofs that did not hold, over all sessions */
    mbedtls_gcm_context cipher; /* while OPEN */
} tl_security2;

void tl_security2_init(tl_security2 *, const uint8_t record[TL_SRP_RECORD]);
/* The session ends; `wrong` stays. */
void tl_security2_end(tl_security2 *);
/* A SessionData message and its answer; false: the session is over, and nothing is answered. */
bool tl_security2_handshake(tl_security2 *, tl_span message, tl_out *answer);
/* False: no session is open, or it is not what the client sent now; then the session is over. */
bool tl_security2_read(tl_security2 *, tl_span sealed, tl_out *plain);
bool tl_security2_write(tl_security2 *, tl_span plain, tl_out *sealed);

#endif
