/* SRP-6a (RFC 5054, RFC 2945) as ESP-IDF's protocomm security 2 has it: the 3072-bit group, SHA-512. The device's half.
 *
 * Whoever listens learns nothing of the password, and whoever guesses has one guess a handshake.
 */
#ifndef TOWLINE_SRP6A_H
#define TOWLINE_SRP6A_H

#include "towline/span.h"

#define TL_SRP_NUMBER 384u /* bytes of the group's numbers */
#define TL_SRP_HASH 64u
#define TL_SRP_SALT 16u
#define TL_SRP_SECRET 32u
#define TL_SRP_RECORD (TL_SRP_SALT + TL_SRP_NUMBER) /* what is kept of a password: salt, verifier */

typedef struct {
    uint8_t client[TL_SRP_NUMBER]; /* A */
    uint8_t device[TL_SRP_NUMBER]; /* B, without leading zeros: as many bytes as `device_n` says */
    size_t device_n;
    uint8_t salt[TL_SRP_SALT];
    uint8_t key[TL_SRP_HASH]; /* K; its first 32 bytes encrypt */
} tl_srp;

/* False, here and below: out of memory. */
bool tl_srp_new_record(tl_span user, tl_span password, uint8_t record[TL_SRP_RECORD]);
/* The same with this salt. */
bool tl_srp_record(tl_span user, tl_span password, uint8_t record[TL_SRP_RECORD]);
/* The client's number came: ours is in `device`. False as well for a number that would make the key known to all. */
bool tl_srp_answer(tl_srp *, const uint8_t record[TL_SRP_RECORD], const uint8_t client[TL_SRP_NUMBER]);
/* Whether the client knows the password; then what proves to it that this device knows the verifier. */
bool tl_srp_prove(const tl_srp *, tl_span user, const uint8_t proof[TL_SRP_HASH], uint8_t ours[TL_SRP_HASH]);

#endif
