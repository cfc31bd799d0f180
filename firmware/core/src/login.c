#include "towline/login.h"

#include <string.h>

#include "towline/base64.h"
#include "towline/bytes.h"

enum { WRONG = 401, NOT_NOW = 429 };

static const char COOKIE[] = "towline=";

void tl_login_init(tl_login *login, const tl_crypto *crypto, const uint8_t record[TL_LOGIN_RECORD])
{
    *login = (tl_login){.crypto = crypto};
    if (record != NULL) {
        memcpy(login->record, record, TL_LOGIN_RECORD);
    }
}

/* --- the PIN --- */

static void digest_of(const tl_login *login, tl_span pin, uint8_t digest[TL_SHA256])
{
    uint8_t text[TL_LOGIN_SALT + TL_PIN_DIGITS];
    memcpy(text, login->record, TL_LOGIN_SALT);
    memcpy(text + TL_LOGIN_SALT, pin.at, TL_PIN_DIGITS);
    login->crypto->sha256((tl_span){text, sizeof text}, digest);
}

static bool is_pin(tl_span pin)
{
    for (size_t i = 0; i < pin.n; i++) {
        if (pin.at[i] < '0' || pin.at[i] > '9') {
            return false;
        }
    }
    return pin.n == TL_PIN_DIGITS;
}

bool tl_login_set_pin(tl_login *login, tl_span pin)
{
    if (!is_pin(pin)) {
        return false;
    }
    tl_login_init(login, login->crypto, NULL);
    login->crypto->random(login->record, TL_LOGIN_SALT);
    digest_of(login, pin, login->record + TL_LOGIN_SALT);
    return true;
}

void tl_login_new_pin(tl_login *login, char pin[TL_PIN_DIGITS + 1])
{
    for (size_t i = 0; i < TL_PIN_DIGITS;) {
        uint8_t byte;
        login->crypto->random(&byte, 1);
        if (byte < 250) { /* the largest multiple of ten: each digit is as likely as the others */
            pin[i++] = (char)('0' + byte % 10);
        }
    }
    pin[TL_PIN_DIGITS] = '\0';
    (void)tl_login_set_pin(login, tl_text(pin));
}

/* --- logins --- */

/* In the same time wherever they differ. */
static bool same_secret(const uint8_t *one, const uint8_t *other, size_t n)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < n; i++) {
        differ |= one[i] ^ other[i];
    }
    return differ == 0;
}

static bool is_right(const tl_login *login, tl_span pin)
{
    uint8_t digest[TL_SHA256];
    if (!is_pin(pin)) {
        return false;
    }
    digest_of(login, pin, digest);
    return same_secret(digest, login->record + TL_LOGIN_SALT, sizeof digest);
}

static unsigned oldest_place(const tl_login *login)
{
    unsigned oldest = 0;
    for (unsigned i = 1; i < TL_LOGINS_MAX; i++) {
        if (login->place[i].until_ms < login->place[oldest].until_ms) {
            oldest = i;
        }
    }
    return oldest;
}

uint16_t tl_login_try(tl_login *login, tl_span pin, uint64_t now_ms, unsigned *place)
{
    if (now_ms < login->shut_until_ms) {
        return NOT_NOW; /* also with the right one: else a guesser would see which it is */
    }
    if (!is_right(login, pin)) {
        if (++login->wrong == TL_LOGIN_TRIES) {
            login->wrong = 0;
            login->shut_until_ms = now_ms + TL_LOGIN_WAIT_MS;
        }
        return WRONG;
    }
    login->wrong = 0;
    *place = oldest_place(login);
    login->place[*place].until_ms = now_ms + TL_LOGIN_LIFE_MS;
    login->crypto->random(login->place[*place].token, TL_LOGIN_TOKEN);
    return 0;
}

void tl_login_cookie(const tl_login *login, unsigned place, tl_out *out)
{
    tl_put_text(out, COOKIE);
    tl_put_base64url(out, (tl_span){login->place[place].token, TL_LOGIN_TOKEN});
    tl_put_text(out, "; Path=/; HttpOnly; SameSite=Strict; Max-Age=43200");
}

/* The place of a login in the header that still holds; TL_LOGINS_MAX: none. */
static unsigned place_of(const tl_login *login, tl_span cookie, uint64_t now_ms)
{
    while (cookie.n > 0) {
        tl_span one = tl_split(&cookie, ';');
        uint8_t token[TL_LOGIN_TOKEN];
        tl_out out = {token, 0, sizeof token, false};
        while (one.n > 0 && one.at[0] == ' ') {
            (void)tl_take(&one, 1);
        }
        if (!tl_is(tl_take(&one, sizeof COOKIE - 1), COOKIE) || !tl_base64url_decode(one, &out) || out.n != sizeof token) {
            continue;
        }
        for (unsigned i = 0; i < TL_LOGINS_MAX; i++) {
            if (now_ms < login->place[i].until_ms && same_secret(token, login->place[i].token, sizeof token)) {
                return i;
            }
        }
    }
    return TL_LOGINS_MAX;
}

bool tl_login_holds(const tl_login *login, tl_span cookie, uint64_t now_ms)
{
    return place_of(login, cookie, now_ms) < TL_LOGINS_MAX;
}

void tl_login_end(tl_login *login, tl_span cookie)
{
    const unsigned place = place_of(login, cookie, 0);
    if (place < TL_LOGINS_MAX) {
        login->place[place] = (tl_login_place){.until_ms = 0};
    }
}
