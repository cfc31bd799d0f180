/* Who may use the page on the LAN: whoever knows the device's PIN, which stands on its label.
 *
 * Through the tunnel the grant is the login, and nothing of this file is asked. The LAN is served in the clear, so
 * a login there is worth what the LAN's own walls are worth: it keeps the neighbour on the same Wi-Fi out, not
 * somebody who records the air of an open one.
 */
#ifndef TOWLINE_LOGIN_H
#define TOWLINE_LOGIN_H

#include "towline/crypto.h"
#include "towline/span.h"

#define TL_PIN_DIGITS 8u
#define TL_LOGIN_SALT 16u
#define TL_LOGIN_RECORD (TL_LOGIN_SALT + TL_SHA256) /* what is kept of a PIN: its salt and digest */
#define TL_LOGIN_TRIES 5u                           /* wrong ones, then everybody waits: all PINs take 38 years */
#define TL_LOGIN_WAIT_MS 60000u
#define TL_LOGIN_LIFE_MS (12u * 3600000u) /* a working day; a restart ends all logins */
#define TL_LOGINS_MAX 4u                  /* at once; the oldest gives way */
#define TL_LOGIN_TOKEN 16u

typedef struct {
    uint64_t until_ms; /* past: the place is free */
    uint8_t token[TL_LOGIN_TOKEN];
} tl_login_place;

typedef struct {
    const tl_crypto *crypto;
    uint64_t shut_until_ms;
    uint8_t record[TL_LOGIN_RECORD]; /* zeros: no PIN has that digest */
    uint8_t wrong;
    tl_login_place place[TL_LOGINS_MAX];
} tl_login;

/* `record`: as `tl_login_new_pin` wrote it; NULL: the device has no PIN yet. */
void tl_login_init(tl_login *, const tl_crypto *, const uint8_t record[TL_LOGIN_RECORD]);
/* A PIN by chance, in digits, for the label or the console alone; its record, to be kept, is in `login->record`.
 * All logins end. */
void tl_login_new_pin(tl_login *, char pin[TL_PIN_DIGITS + 1]);
/* The same for a PIN that was chosen elsewhere: in production, or by a test. False: it is none. */
bool tl_login_set_pin(tl_login *, tl_span pin);

/* 0 and the place of the new login, or the status: 401 for a wrong PIN, 429 while nobody may try. */
uint16_t tl_login_try(tl_login *, tl_span pin, uint64_t now_ms, unsigned *place);
/* The value of Set-Cookie for it. */
void tl_login_cookie(const tl_login *, unsigned place, tl_out *out);
/* Whether the request's Cookie header holds a login; for tl_exchange_origin.logged_in. */
bool tl_login_holds(const tl_login *, tl_span cookie, uint64_t now_ms);
void tl_login_end(tl_login *, tl_span cookie);

#endif
