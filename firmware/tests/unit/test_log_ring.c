/* The last lines: numbered without a gap but at their begin, cut and cleaned. */
#include "towline/log_ring.h"

#include "check.h"
#include "towline/bytes.h"

static uint64_t now = 1;
static unsigned shown;

static uint64_t now_ms(void *with)
{
    (void)with;
    return now;
}

static void show(void *with, tl_log_level level, tl_span line)
{
    (void)with;
    (void)level;
    (void)line;
    shown++;
}

static const tl_port_sys SYS = {.now_ms = now_ms, .log = show};

static bool first_is(const tl_log_ring *ring, uint32_t after, uint32_t number, const char *text)
{
    tl_log_line line;
    return tl_log_after(ring, after, &line) && line.number == number && tl_is(line.text, text);
}

static void lines_come_back_in_order(void)
{
    static tl_log_ring ring;
    tl_log_line line;
    shown = 0;
    tl_log_init(&ring, &SYS, TL_LOG_INFO);
    CHECK(!tl_log_after(&ring, 0, &line));
    now = 5;
    tl_log_text(&ring, TL_LOG_WARNING, "one", NULL);
    tl_log_text(&ring, TL_LOG_DEBUG, "of no interest", NULL);
    now = 9;
    tl_log(&ring, TL_LOG_INFO, "two", tl_text("why"));
    CHECK(first_is(&ring, 0, 1, "one") && first_is(&ring, 1, 2, "two: why"));
    CHECK(!tl_log_after(&ring, 2, &line));
    CHECK(tl_log_after(&ring, 0, &line) && line.at_ms == 5 && line.level == TL_LOG_WARNING);
    CHECK(shown == 2);
}

static void the_oldest_make_room(void)
{
    static tl_log_ring ring;
    tl_log_line line;
    char text[] = "line 0000";
    tl_log_init(&ring, &SYS, TL_LOG_INFO);
    for (unsigned i = 1; i <= 1000; i++) {
        text[5] = (char)('0' + i / 1000), text[6] = (char)('0' + i / 100 % 10);
        text[7] = (char)('0' + i / 10 % 10), text[8] = (char)('0' + i % 10);
        tl_log_text(&ring, TL_LOG_INFO, text, NULL);
        CHECK(ring.used <= TL_LOG_BYTES);
    }
    CHECK(first_is(&ring, 999, 1000, "line 1000"));
    CHECK(tl_log_after(&ring, 0, &line) && line.number > 1 && line.number < 1000);
    unsigned kept = 0;
    for (uint32_t after = 0; tl_log_after(&ring, after, &line); after = line.number) {
        CHECK(after == 0 || line.number == after + 1);
        kept++;
    }
    CHECK(kept >= (TL_LOG_BYTES - TL_LOG_TEXT_MAX - 10u) / 19u - 1 && kept == ring.count);
}

static void what_came_from_outside_is_cut_and_cleaned(void)
{
    static tl_log_ring ring;
    static uint8_t text[300];
    tl_log_line line;
    tl_log_init(&ring, &SYS, TL_LOG_INFO);
    tl_log(&ring, TL_LOG_INFO, "said", tl_text("a\033[2Jb\nc\x7f"));
    CHECK(first_is(&ring, 0, 1, "said: a?[2Jb?c?"));
    tl_log(&ring, TL_LOG_INFO, "said", (tl_span){(const uint8_t *)"\xC3\x28", 2});
    CHECK(first_is(&ring, 1, 2, "said: ?("));
    tl_log(&ring, TL_LOG_INFO, "said", tl_text("a\xC2\x9B" "2J\xC2\xA0\xC3\x9B")); /* a terminal takes U+009B for ESC [ */
    CHECK(first_is(&ring, 2, 3, "said: a??2J\xC2\xA0\xC3\x9B"));
    memset(text, 'x', sizeof text);
    tl_log(&ring, TL_LOG_INFO, "said", (tl_span){text, sizeof text});
    CHECK(tl_log_after(&ring, 3, &line) && line.text.n == TL_LOG_TEXT_MAX);
    for (size_t i = 0; i + 1 < sizeof text; i += 2) {
        memcpy(text + i, "\xC3\xA9", 2); /* é */
    }
    tl_log(&ring, TL_LOG_INFO, "xsaid", (tl_span){text, sizeof text});
    CHECK(tl_log_after(&ring, 4, &line) && tl_is_utf8(line.text) && line.text.n >= TL_LOG_TEXT_MAX - 1);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(lines_come_back_in_order),
        CHECK_TEST(the_oldest_make_room),
        CHECK_TEST(what_came_from_outside_is_cut_and_cleaned),
    };
    return CHECK_ALL(tests);
}
