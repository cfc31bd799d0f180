/* When to dial again: the figures of tunnel_agent/policy/reconnect.py. */
#include "check.h"
#include "towline/reconnect.h"

#define MOST_RANDOM UINT32_MAX

static void test_the_backoff_doubles_up_to_a_minute(void)
{
    static const uint32_t most[] = {1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000};
    tl_reconnect reconnect = {0};
    for (size_t i = 0; i < sizeof most / sizeof most[0]; i++) {
        tl_reconnect again = reconnect;
        CHECK(tl_reconnect_ended(&again, TL_ENDING_LOST, 0, 0, 0) == 0);
        CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_LOST, 0, MOST_RANDOM, 0) == most[i] - 1);
    }
    for (unsigned i = 0; i < 1000; i++) {
        CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_LOST, 0, MOST_RANDOM, 0) == 59999);
    }
}

static void test_only_a_stable_connection_starts_a_new_count(void)
{
    tl_reconnect reconnect = {.failures = 5};
    tl_reconnect_opened(&reconnect, 1000);
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_LOST, 30999, MOST_RANDOM, 0) == 31999);
    tl_reconnect_opened(&reconnect, 1000);
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_LOST, 31000, MOST_RANDOM, 0) == 999);
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_LOST, 99999999, MOST_RANDOM, 0) == 1999); /* was not open */
}

static void test_slow_endings(void)
{
    static const struct {
        tl_ending ending;
        uint32_t first, most;
    } cases[] = {
        {TL_ENDING_REFUSED, 15000, 300000},
        {TL_ENDING_REPLACED, 30000, 600000},
        {TL_ENDING_REVOKED, 600000, 21600000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tl_reconnect reconnect = {0};
        uint32_t wait = tl_reconnect_ended(&reconnect, cases[i].ending, 0, 0, 5);
        CHECK(wait == cases[i].first / 2);
        for (unsigned k = 0; k < 80; k++) {
            wait = tl_reconnect_ended(&reconnect, cases[i].ending, 0, MOST_RANDOM, 0);
        }
        CHECK(wait == cases[i].most - 1);
    }
}

static void test_a_server_may_call_back_a_few_times(void)
{
    tl_reconnect reconnect = {0};
    for (unsigned i = 0; i < 3; i++) {
        CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_GOAWAY, 0, 0x80000000u, 10) == 15);
    }
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_GOAWAY, 0, 0x80000000u, 10) == 4000); /* its own backoff, n = 3 */
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_GOAWAY, 0, 0, UINT32_MAX) == 600000);
    reconnect = (tl_reconnect){0};
    CHECK(tl_reconnect_ended(&reconnect, TL_ENDING_GOAWAY, 0, 0x80000000u, 0) == 500);
}

static void test_endings(void)
{
    static const struct {
        tl_close_code code;
        tl_ending ending;
    } cases[] = {
        {TL_CLOSE_NORMAL, TL_ENDING_GOAWAY},         {TL_CLOSE_TRY_LATER, TL_ENDING_GOAWAY},
        {TL_CLOSE_IDS_EXHAUSTED, TL_ENDING_GOAWAY},  {TL_CLOSE_AUTH_FAILED, TL_ENDING_REFUSED},
        {TL_CLOSE_WRONG_SERVER_NAME, TL_ENDING_REFUSED}, {TL_CLOSE_REPLACED, TL_ENDING_REPLACED},
        {TL_CLOSE_REVOKED, TL_ENDING_REVOKED},       {TL_CLOSE_PROTOCOL_ERROR, TL_ENDING_LOST},
        {TL_CLOSE_KEEPALIVE_TIMEOUT, TL_ENDING_LOST}, {TL_CLOSE_INTERNAL, TL_ENDING_LOST},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tl_close why = {.has_code = true, .code = cases[i].code};
        CHECK(tl_ending_of(&why) == cases[i].ending);
        why.has_code = false;
        CHECK(tl_ending_of(&why) == TL_ENDING_LOST);
    }
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_the_backoff_doubles_up_to_a_minute),
        CHECK_TEST(test_only_a_stable_connection_starts_a_new_count),
        CHECK_TEST(test_slow_endings),
        CHECK_TEST(test_a_server_may_call_back_a_few_times),
        CHECK_TEST(test_endings),
    };
    return CHECK_ALL(tests);
}
