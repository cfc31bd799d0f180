#include "towline/bytes.h"
#include "check.h"
#include "towline/revoked.h"

#define NOW 1000u
#define WALL INT64_C(1800000000)
#define HONEST 1u
#define HOSTILE 2u

static const uint8_t *numbered(uint32_t n)
{
    static uint8_t id[TL_GRANT_ID];
    memset(id, 0, sizeof id);
    memcpy(id, &n, sizeof n);
    return id;
}

static void a_flood_pushes_out_its_own(void)
{
    tl_revoked r;
    tl_revoked_init(&r);
    for (uint32_t n = 0; n < 20; n++) {
        CHECK(tl_revoked_add_unseen(&r, numbered(n), NOW, HONEST));
    }
    CHECK(tl_revoked_add_unseen(&r, numbered(0), NOW, HOSTILE)); /* it tells what the honest one told */
    CHECK(!tl_revoked_add_unseen(&r, numbered(0), NOW, HOSTILE));
    for (uint32_t n = 1000; n < 3000; n++) {
        CHECK(tl_revoked_add_unseen(&r, numbered(n), NOW, HOSTILE));
    }
    for (uint32_t n = 0; n < 20; n++) {
        CHECK(tl_revoked_holds(&r, numbered(n)));
    }
    /* The honest one comes to its share, but not beyond. */
    for (uint32_t n = 100; n < 200; n++) {
        (void)tl_revoked_add_unseen(&r, numbered(n), NOW, HONEST);
    }
    CHECK(tl_revoked_holds(&r, numbered(199)) && tl_revoked_holds(&r, numbered(2999)));
    CHECK(!tl_revoked_holds(&r, numbered(0)));
    tl_revoked_expire(&r, NOW + TL_REVOKED_UNKNOWN_S);
    CHECK(!tl_revoked_holds(&r, numbered(199)));
}

static void every_server_tells_one(void)
{
    tl_revoked r;
    tl_revoked_init(&r);
    for (uint32_t n = 0; n < TL_REVOKED_UNSEEN + 5; n++) {
        CHECK(tl_revoked_add_unseen(&r, numbered(n), NOW, n + 1));
    }
    CHECK(!tl_revoked_holds(&r, numbered(4)) && tl_revoked_holds(&r, numbered(5)));
}

static void known_ones_stand_apart(void)
{
    tl_revoked r;
    tl_revoked_init(&r);
    for (uint32_t n = 0; n < TL_REVOKED_KNOWN; n++) {
        tl_revoked_add(&r, numbered(n), NOW + 10 + n);
    }
    tl_revoked_add(&r, numbered(0), NOW + 10); /* again: it is the newest now, and pushes out none */
    CHECK(tl_revoked_holds(&r, numbered(1)));
    CHECK(!tl_revoked_add_unseen(&r, numbered(1), NOW, HOSTILE));
    tl_revoked_add(&r, numbered(99), NOW + 50);
    CHECK(!tl_revoked_holds(&r, numbered(1)) && tl_revoked_holds(&r, numbered(0)));
    tl_revoked_expire(&r, NOW + 12);
    CHECK(!tl_revoked_holds(&r, numbered(2)) && !tl_revoked_holds(&r, numbered(0)));
    CHECK(tl_revoked_holds(&r, numbered(3)));
}

static void over_a_restart(void)
{
    tl_revoked r, back;
    uint8_t room[TL_REVOKED_SAVED_MAX];
    tl_out out = {room, 0, sizeof room, false};
    tl_revoked_init(&r);
    tl_revoked_init(&back);
    tl_revoked_add(&r, numbered(1), NOW + 100);
    tl_revoked_add(&r, numbered(2), NOW + 5000);
    CHECK(tl_revoked_add_unseen(&r, numbered(3), NOW, HONEST));
    tl_revoked_save(&r, WALL, NOW, &out);
    const tl_span saved = {room, out.n};
    CHECK(!out.full && tl_revoked_restore(&back, saved, WALL + 200, 7));
    CHECK(!tl_revoked_holds(&back, numbered(1)) && tl_revoked_holds(&back, numbered(2)));
    CHECK(!tl_revoked_add_unseen(&back, numbered(3), 7, HONEST));
    tl_revoked_expire(&back, 7 + 4800);
    CHECK(!tl_revoked_holds(&back, numbered(2)) && tl_revoked_holds(&back, numbered(3)));
    /* Without the time, or with a clock that stands far behind: a day. */
    static const int64_t walls[] = {-1, 0};
    for (size_t i = 0; i < 2; i++) {
        tl_revoked_init(&back);
        CHECK(tl_revoked_restore(&back, saved, walls[i], 7));
        tl_revoked_expire(&back, 6 + TL_REVOKED_UNKNOWN_S);
        CHECK(tl_revoked_holds(&back, numbered(1)) && tl_revoked_holds(&back, numbered(3)));
        tl_revoked_expire(&back, 7 + TL_REVOKED_UNKNOWN_S);
        CHECK(!tl_revoked_holds(&back, numbered(1)) && !tl_revoked_holds(&back, numbered(3)));
    }
    /* Every cut and every other length is something else. */
    for (size_t n = 0; n < saved.n; n++) {
        tl_revoked_init(&back);
        CHECK(!tl_revoked_restore(&back, (tl_span){room, n}, WALL, 7) && !tl_revoked_holds(&back, numbered(2)));
    }
    room[0] ^= 1;
    CHECK(!tl_revoked_restore(&back, saved, WALL, 7));
    /* A full one fits. */
    for (uint32_t n = 0; n < 100; n++) {
        tl_revoked_add(&r, numbered(n), NOW + 100);
        (void)tl_revoked_add_unseen(&r, numbered(1000 + n), NOW, HONEST);
    }
    out = (tl_out){room, 0, sizeof room, false};
    tl_revoked_save(&r, -1, NOW, &out);
    CHECK(!out.full && out.n == sizeof room && tl_revoked_restore(&back, (tl_span){room, out.n}, WALL, 7));
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(a_flood_pushes_out_its_own),
        CHECK_TEST(every_server_tells_one),
        CHECK_TEST(known_ones_stand_apart),
        CHECK_TEST(over_a_restart),
    };
    return CHECK_ALL(tests);
}
