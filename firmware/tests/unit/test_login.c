/* The PIN and the logins of the LAN. */
#include "check.h"
#include "towline/bytes.h"
#include "towline/login.h"
#include "toy_crypto.h"

typedef struct {
    tl_login login;
    char pin[TL_PIN_DIGITS + 1];
    unsigned place;
} world;

static world started(void)
{
    world w;
    memset(&w, 0, sizeof w);
    tl_login_init(&w.login, &TOY_CRYPTO, NULL);
    tl_login_new_pin(&w.login, w.pin);
    return w;
}

static tl_span cookie_of(const world *w, unsigned place, char *text, size_t cap)
{
    tl_out out = {(uint8_t *)text, 0, cap - 1, false};
    tl_login_cookie(&w->login, place, &out);
    CHECK(!out.full);
    text[out.n] = '\0';
    tl_span cookie = {out.at, out.n};
    return tl_split(&cookie, ';');
}

/* 250, 251 … 255, 3, and again */
static void mostly_high(uint8_t *to, size_t n)
{
    static unsigned at;
    for (size_t i = 0; i < n; i++, at++) {
        to[i] = at % 7 == 6 ? 3 : (uint8_t)(250 + at % 7);
    }
}

static void pins(void)
{
    unsigned count[10] = {0};
    for (int round = 0; round < 1000; round++) {
        world w = started();
        CHECK(strlen(w.pin) == TL_PIN_DIGITS);
        for (size_t i = 0; i < TL_PIN_DIGITS; i++) {
            count[w.pin[i] - '0']++;
        }
    }
    for (int digit = 0; digit < 10; digit++) {
        CHECK(count[digit] > 700 && count[digit] < 900);
    }
    tl_crypto odd = TOY_CRYPTO;
    odd.random = mostly_high;
    tl_login login;
    char pin[TL_PIN_DIGITS + 1];
    tl_login_init(&login, &odd, NULL);
    tl_login_new_pin(&login, pin);
    CHECK(strcmp(pin, "33333333") == 0); /* 0 to 5 would else come more often than 6 to 9 */
    static const char *const none[] = {"", "1234567", "123456789", "1234567a", "1234567/", "1234567:", " 2345678"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        world w = started();
        CHECK_NAMED(!tl_login_set_pin(&w.login, tl_text(none[i])), none[i]);
        CHECK(tl_login_try(&w.login, tl_text(none[i]), 1, &w.place) == 401);
        CHECK(tl_login_try(&w.login, tl_text(w.pin), 1, &w.place) == 0); /* the former one stays */
    }
}

static void a_login(void)
{
    world w = started(), other = started();
    char text[160], second[160], header[400];
    CHECK(tl_login_try(&w.login, tl_text(w.pin), 1000, &w.place) == 0);
    const tl_span cookie = cookie_of(&w, w.place, text, sizeof text);
    CHECK(strstr(text, "; HttpOnly; SameSite=Strict; ") != NULL && cookie.n == strlen("towline=") + 22);
    CHECK(tl_login_holds(&w.login, cookie, 1000) && tl_login_holds(&w.login, cookie, 999 + TL_LOGIN_LIFE_MS));
    CHECK(!tl_login_holds(&w.login, cookie, 1000 + TL_LOGIN_LIFE_MS));
    CHECK(!tl_login_holds(&other.login, cookie, 1000));
    CHECK(!tl_login_holds(&w.login, (tl_span){NULL, 0}, 1000));
    snprintf(header, sizeof header, "a=b;  %.*s; towline=AAAAAAAAAAAAAAAAAAAAAA", (int)cookie.n, text);
    CHECK(tl_login_holds(&w.login, tl_text(header), 1000));
    snprintf(header, sizeof header, "towline=AAAAAAAAAAAAAAAAAAAAAA;%.*s", (int)cookie.n, text);
    CHECK(tl_login_holds(&w.login, tl_text(header), 1000)); /* a neighbour's on the same name */
    snprintf(header, sizeof header, "x%.*s", (int)cookie.n, text);
    CHECK(!tl_login_holds(&w.login, tl_text(header), 1000));
    snprintf(header, sizeof header, "%.*sA", (int)cookie.n, text);
    CHECK(!tl_login_holds(&w.login, tl_text(header), 1000));
    snprintf(header, sizeof header, "%.*s", (int)cookie.n - 1, text);
    CHECK(!tl_login_holds(&w.login, tl_text(header), 1000));
    CHECK(!tl_login_holds(&w.login, tl_text("towline=AAAAAAAAAAAAAAAAAAAAAA"), 0)); /* a free place is no login */
    CHECK(tl_login_try(&w.login, tl_text(w.pin), 2000, &w.place) == 0);
    const tl_span again = cookie_of(&w, w.place, second, sizeof second);
    CHECK(!tl_same(cookie, again) && tl_login_holds(&w.login, cookie, 2000) && tl_login_holds(&w.login, again, 2000));
    tl_login_end(&w.login, cookie);
    CHECK(!tl_login_holds(&w.login, cookie, 2000) && tl_login_holds(&w.login, again, 2000));
    tl_login_end(&w.login, tl_text("towline=x"));
    CHECK(tl_login_holds(&w.login, again, 2000));
    tl_login_new_pin(&w.login, w.pin);
    CHECK(!tl_login_holds(&w.login, again, 2000));
}

static void the_oldest_gives_way(void)
{
    world w = started();
    char text[TL_LOGINS_MAX + 1][160];
    tl_span cookie[TL_LOGINS_MAX + 1];
    for (unsigned i = 0; i <= TL_LOGINS_MAX; i++) {
        CHECK(tl_login_try(&w.login, tl_text(w.pin), 10 + i, &w.place) == 0);
        cookie[i] = cookie_of(&w, w.place, text[i], sizeof text[i]);
    }
    CHECK(!tl_login_holds(&w.login, cookie[0], 20));
    for (unsigned i = 1; i <= TL_LOGINS_MAX; i++) {
        CHECK(tl_login_holds(&w.login, cookie[i], 20));
    }
}

static void guessing(void)
{
    world w = started();
    const char *wrong = strcmp(w.pin, "00000000") == 0 ? "00000001" : "00000000";
    for (unsigned round = 0; round < 3; round++) {
        const uint64_t now_ms = 1000 + round * TL_LOGIN_WAIT_MS;
        for (unsigned i = 0; i < TL_LOGIN_TRIES; i++) {
            CHECK(tl_login_try(&w.login, tl_text(wrong), now_ms, &w.place) == 401);
        }
        CHECK(tl_login_try(&w.login, tl_text(wrong), now_ms, &w.place) == 429);
        CHECK(tl_login_try(&w.login, tl_text(w.pin), now_ms + TL_LOGIN_WAIT_MS - 1, &w.place) == 429);
    }
    const uint64_t later_ms = 1000 + 3 * TL_LOGIN_WAIT_MS;
    for (unsigned i = 0; i < 2 * TL_LOGIN_TRIES; i++) { /* a right one begins the count anew */
        CHECK(tl_login_try(&w.login, tl_text(i % TL_LOGIN_TRIES == TL_LOGIN_TRIES - 1 ? w.pin : wrong), later_ms, &w.place) !=
              429);
    }
}

static void what_is_kept(void)
{
    world w = started();
    tl_login after;
    tl_login_init(&after, &TOY_CRYPTO, w.login.record);
    CHECK(tl_login_try(&after, tl_text(w.pin), 1, &w.place) == 0);
    tl_login_init(&after, &TOY_CRYPTO, NULL);
    CHECK(tl_login_try(&after, tl_text(w.pin), 1, &w.place) == 401); /* without a PIN nobody gets in */
    CHECK(tl_login_set_pin(&after, tl_text("12345678")) && memcmp(after.record, "12345678", 8) != 0);
    world twin = started();
    CHECK(tl_login_set_pin(&twin.login, tl_text("12345678")));
    CHECK(memcmp(after.record + TL_LOGIN_SALT, twin.login.record + TL_LOGIN_SALT, TL_SHA256) != 0); /* salted */
    CHECK(tl_login_try(&twin.login, tl_text("12345678"), 1, &w.place) == 0);
}

int main(void)
{
    static const check_test tests[] = {CHECK_TEST(pins), CHECK_TEST(a_login), CHECK_TEST(the_oldest_gives_way),
                                       CHECK_TEST(guessing), CHECK_TEST(what_is_kept)};
    return CHECK_ALL(tests);
}
