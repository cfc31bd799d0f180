/* Who may open a stream: the device's own check of every grant (specification, section 7).
 *
 * A tunnel server that was taken over speaks the protocol perfectly and holds no key of the gateway. What it can
 * do here is bounded by this file: it opens exactly the services that unexpired, unrevoked grants for this device
 * name.
 *
 * `wall_s` is Unix seconds, -1 while it is not known, and is used once: to turn a grant's `exp` into a monotonic
 * end. `now_ms` is monotonic. So a clock that is set neither ends nor lengthens what is already accepted.
 */
#ifndef TOWLINE_GRANTS_H
#define TOWLINE_GRANTS_H

#include "towline/key_list.h"
#include "towline/revoked.h"

#define TL_GRANT_LEEWAY_S 30
#define TL_GRANTS_MAX 8u         /* in force at once */
#define TL_GRANTS_WAITING 2u     /* kept until the device knows the time; each is a whole token */
#define TL_GRANTS_REFUSED 8u     /* refused ids a connection remembers, for a better answer than no_grant */
#define TL_GRANT_CHECKS_MAX 32u  /* signatures checked at once: each takes a chip some 10 ms in which it does nothing else */
#define TL_GRANT_CHECK_MS 250u   /* and one more after so long */
#define TL_GRANT_SERVICE_MAX 14u /* the device's own services are shorter: a grant for another is refused */
#define TL_CLAIM_TEXT_MAX 256u   /* characters of sub and iss */

/* REFUSED's codes (section 6); 0: the grant holds. */
enum {
    TL_GRANT_HOLDS = 0,
    TL_GRANT_NONE = 1,
    TL_GRANT_INVALID = 2,
    TL_GRANT_EXPIRED = 3,
    TL_GRANT_REVOKED = 4,
    TL_GRANT_NO_TIME = 5
};

typedef struct {
    uint8_t id[TL_GRANT_ID];
    uint8_t session[16];
    uint8_t digest[TL_SHA256]; /* of the token: the same one again costs a hash */
    uint64_t ends_at_ms;       /* monotonic; 0: the place is free */
    uint32_t used;             /* the book's count of uses at the last one: the least is given up first */
    uint8_t key;               /* which of the list signed it; TL_KEYS_MAX: one that is withdrawn */
    uint8_t streams;           /* open by it; the owner of the streams counts */
    bool acting;               /* a support engineer acts */
    bool here;                 /* it came on this connection */
    uint8_t service_n;
    uint8_t service[TL_GRANT_SERVICE_MAX];
} tl_grant;

typedef struct {
    uint8_t code;       /* TL_GRANT_HOLDS, or why not, for the peer */
    const char *reason; /* for the log; NULL when it holds */
    tl_grant *grant;    /* when it holds; until the next call */
} tl_verdict;

typedef struct {
    uint8_t id[TL_GRANT_ID];
    uint16_t n; /* 0: the place is free */
    uint8_t token[TL_GRANT_TOKEN_MAX];
} tl_waiting_grant;

typedef struct {
    uint8_t id[TL_GRANT_ID];
    uint8_t code; /* 0: the place is free */
} tl_refused_grant;

/* Lent memory, used within a call alone. */
typedef struct {
    tl_key_list list;
    uint8_t decoded[TL_TOKEN_SCRATCH];
} tl_grants_scratch;

typedef struct {
    const tl_crypto *crypto;
    tl_grants_scratch *scratch;
    tl_span device; /* the id; the caller's memory */
    uint8_t root[TL_P256_POINT];
    int64_t earliest_s; /* before it this device's clock is certainly wrong */
    uint64_t checked_to_ms; /* each signature moves it on by TL_GRANT_CHECK_MS */
    uint32_t uses;
    uint8_t refused_next;
    tl_key_list keys;
    tl_grant accepted[TL_GRANTS_MAX];
    tl_waiting_grant waiting[TL_GRANTS_WAITING];
    tl_refused_grant refused[TL_GRANTS_REFUSED];
    tl_revoked revoked;
} tl_grants;

typedef enum { TL_REVOKE_ENDED, TL_REVOKE_NEWS, TL_REVOKE_KNOWN } tl_revocation;

/* `earliest_s`: when this device's certificate begins. */
void tl_grants_init(tl_grants *, const tl_crypto *, tl_grants_scratch *, tl_span device,
                    const uint8_t root[TL_P256_POINT], int64_t earliest_s);
/* Takes a list with a higher number; NULL, or why not. Grants whose key is not in it any more end now:
 * `tl_grants_expire` hands them out. `newer`: the list was taken, and is to be stored; one of the same or a lower
 * number is no error, and not taken. */
const char *tl_grants_take_keys(tl_grants *, tl_span text, uint64_t now_ms, bool *newer);

/* A new connection: nothing came on it yet. */
void tl_grants_connected(tl_grants *);
/* A GRANT frame came. A token that is already accepted costs a hash; a forged repeat displaces nothing. */
tl_verdict tl_grants_offer(tl_grants *, const uint8_t id[TL_GRANT_ID], tl_span token, int64_t wall_s,
                           uint64_t now_ms);
/* An OPEN came: the grant that allows it, or why not. */
tl_verdict tl_grants_open(tl_grants *, tl_span device, tl_span service, const uint8_t id[TL_GRANT_ID],
                          int64_t wall_s, uint64_t now_ms);
/* A REVOKE came from `server` (see revoked.h). */
tl_revocation tl_grants_revoke(tl_grants *, const uint8_t id[TL_GRANT_ID], uint64_t now_ms, uint32_t server);
/* Drops a grant that is over, and tells its id: its streams must end. Call until false. */
bool tl_grants_expire(tl_grants *, uint64_t now_ms, uint8_t id[TL_GRANT_ID]);
/* When the first accepted grant ends; UINT64_MAX: none will. */
uint64_t tl_grants_next_expiry(const tl_grants *);

#endif
