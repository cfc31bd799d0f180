#include "towline/flash_ring.h"

#include "check.h"
#include "memory_flash.h"
#include "towline/bytes.h"
#include "towline/crc.h"

#define FIRST 1u /* the ring does not begin where the flash does */
#define SECTORS 3u
#define KIND 7u

/* What must be in the ring: records in the order of their coming, each filled by its number. */
#define MOST 512u
typedef struct {
    tl_ring_record record;
    uint32_t number;
} kept;

typedef struct {
    memory_flash flash;
    tl_ring ring;
    kept live[MOST];
    size_t count;
    uint32_t next; /* number of the next record */
} world;

static world w;
static tl_ring_record told[MOST];
static size_t told_count;

static void tell(void *owner, const tl_ring_record *record)
{
    (void)owner;
    CHECK(told_count < MOST);
    told[told_count++] = *record;
}

static bool open_ring(void)
{
    told_count = 0;
    return tl_ring_open(&w.ring, &w.flash.port, FIRST, SECTORS, tell, NULL);
}

static void begin(uint32_t cut_at)
{
    flash_init(&w.flash, FLASH_SECTORS, cut_at);
    w.count = 0;
    w.next = 1;
    CHECK(open_ring() && told_count == 0);
}

static size_t length_of(uint32_t number)
{
    return number * 37u % 400u;
}

static tl_span content(uint32_t number, uint8_t *room)
{
    const size_t n = length_of(number);
    for (size_t i = 0; i < n; i++) {
        room[i] = (uint8_t)(number + i * 3);
    }
    return (tl_span){room, n};
}

static tl_ring_result append(void)
{
    uint8_t room[400];
    tl_span rest = content(w.next, room);
    const tl_span front = tl_take(&rest, w.next % 60);
    tl_ring_record record;
    const tl_ring_result result = tl_ring_append(&w.ring, KIND, front, rest, &record);
    if (result == TL_RING_DONE) {
        w.live[w.count++] = (kept){record, w.next++};
    }
    return result;
}

static void forget(size_t i)
{
    memmove(&w.live[i], &w.live[i + 1], (--w.count - i) * sizeof w.live[0]);
}

static bool drop(size_t i)
{
    const bool done = tl_ring_drop(&w.ring, &w.live[i].record);
    if (done) {
        forget(i);
    }
    return done;
}

static bool reads_as(const tl_ring_record *record, uint32_t number)
{
    uint8_t room[400], wanted[400];
    tl_out out = {room, 0, sizeof room, false};
    return tl_ring_read(&w.ring, record, &out) && record->kind == KIND &&
           tl_same((tl_span){room, out.n}, content(number, wanted));
}

/* One step of a long use: records come, old ones go, mostly the oldest. False: the power went. */
static bool step(uint32_t n, size_t *dropping)
{
    *dropping = MOST;
    if (w.count > 2 && n % 3 == 2) {
        *dropping = n % 5 == 0 ? 1 : 0;
        return drop(*dropping);
    }
    for (;;) {
        const tl_ring_result result = append();
        if (result != TL_RING_NO_ROOM) {
            return result == TL_RING_DONE;
        }
        *dropping = 0;
        if (!drop(0)) {
            return false;
        }
        *dropping = MOST;
    }
}

/* What was told is what is live, where one that was being dropped may be there or not (`dropping`), and one that was
 * being written may be there whole. */
static void check_told(size_t dropping)
{
    size_t at = 0;
    for (size_t i = 0; i < w.count; i++) {
        if (at < told_count && told[at].at == w.live[i].record.at) {
            CHECK(reads_as(&told[at], w.live[i].number));
            at++;
        } else {
            CHECK(i == dropping);
        }
    }
    if (at < told_count) {
        CHECK(reads_as(&told[at], w.next));
        at++;
    }
    CHECK(at == told_count);
}

static void it_keeps_what_is_live(void)
{
    size_t dropping;
    begin(0);
    for (uint32_t n = 0; n < 3000; n++) {
        CHECK(step(n, &dropping));
        if (n % 97 == 0) {
            CHECK(open_ring());
            CHECK(told_count == w.count);
            check_told(MOST);
        }
    }
    /* All sectors wear alike; nothing outside of the ring was touched. */
    const uint32_t *erased = w.flash.erased;
    CHECK(erased[FIRST] > 10 && erased[FIRST] - erased[FIRST + SECTORS - 1] <= 1);
    CHECK(erased[0] == 0 && erased[FIRST + SECTORS] == 0 && w.flash.raised == 0);
}

/* The power goes in every single operation of a use, and the ring goes on from what is left. */
static void it_outlives_every_cut(void)
{
    enum { STEPS = 260 };
    size_t dropping = 0;
    begin(0);
    for (uint32_t n = 0; n < STEPS; n++) {
        CHECK(step(n, &dropping));
    }
    const uint32_t operations = w.flash.steps;
    CHECK(operations > STEPS && w.flash.erased[FIRST] > 2);
    for (uint32_t cut_at = 1; cut_at <= operations; cut_at++) {
        begin(cut_at);
        uint32_t n = 0;
        while (step(n, &dropping)) {
            n++;
        }
        CHECK(w.flash.dark && !open_ring());
        w.flash.dark = false;
        w.flash.cut_at = 0;
        CHECK(open_ring());
        check_told(dropping);
        /* It goes on with what there is. */
        w.count = 0;
        for (size_t i = 0; i < told_count; i++) {
            uint8_t room[400];
            tl_out out = {room, 0, sizeof room, false};
            CHECK(tl_ring_read(&w.ring, &told[i], &out));
        }
        for (size_t i = 0; i < told_count; i++) {
            CHECK(tl_ring_drop(&w.ring, &told[i]));
        }
        w.next += 1;
        for (n = 0; n < 60; n++) {
            CHECK(step(n, &dropping));
        }
        CHECK(open_ring() && told_count == w.count);
        check_told(MOST);
        CHECK(w.flash.raised == 0);
    }
}

static void a_full_ring_says_so(void)
{
    begin(0);
    tl_ring_result result;
    while ((result = append()) == TL_RING_DONE) {
    }
    CHECK(result == TL_RING_NO_ROOM && append() == TL_RING_NO_ROOM);
    CHECK(open_ring() && told_count == w.count);
    check_told(MOST);
    /* One live record holds its sector, wherever in it it lies. */
    const uint32_t end_of_first = (FIRST + 1) * TL_FLASH_SECTOR;
    while (w.live[1].record.at < end_of_first) {
        CHECK(drop(0));
        CHECK(append() == TL_RING_NO_ROOM);
    }
    CHECK(drop(0) && append() == TL_RING_DONE);
    CHECK(open_ring() && told_count == w.count);
    check_told(MOST);
}

static void once_dropped_is_dropped(void)
{
    begin(0);
    CHECK(append() == TL_RING_DONE && append() == TL_RING_DONE);
    const tl_ring_record record = w.live[0].record;
    CHECK(drop(0) && tl_ring_drop(&w.ring, &record) && tl_ring_drop(&w.ring, &record));
    CHECK(w.ring.live[0] == 1);
    CHECK(open_ring() && told_count == 1 && w.ring.live[0] == 1);
    check_told(MOST);
}

/* An erase that is cut may raise any bit, so one that says "dropped" before those that say what. */
static void a_cut_erase_brings_nothing_back(void)
{
    begin(0);
    CHECK(append() == TL_RING_DONE);
    const uint32_t flag = w.live[0].record.at + 3;
    CHECK(drop(0));
    while (w.ring.sequence < SECTORS) {
        CHECK(append() == TL_RING_DONE);
    }
    w.ring.head_n = TL_FLASH_SECTOR; /* the next one needs a sector: the first again */
    while (w.live[0].record.at < (FIRST + 1) * TL_FLASH_SECTOR) {
        CHECK(drop(0));
    }
    w.flash.cut_erase = true;
    CHECK(append() == TL_RING_BROKEN);
    CHECK(w.flash.dark && w.flash.erased[FIRST] == 2);
    w.flash.dark = w.flash.cut_erase = false;
    w.flash.bytes[flag] = 0xFF;
    CHECK(open_ring() && told_count == w.count);
    check_told(MOST);
}

/* The flash fails for once: what was half written is passed over, what comes next is kept. */
static void a_failing_write_costs_a_sector_at_most(void)
{
    for (uint32_t fail_at = 1; fail_at < 12; fail_at++) {
        begin(0);
        w.flash.fail_at = fail_at;
        unsigned broken = 0;
        for (uint32_t n = 0; n < 8; n++) {
            if (append() == TL_RING_BROKEN) {
                broken++;
                w.next++; /* the next one is another */
            }
        }
        CHECK(broken == 1 && w.count == 7 && w.flash.raised == 0);
        CHECK(open_ring() && told_count == 7);
        check_told(MOST);
    }
    begin(0);
    CHECK(append() == TL_RING_DONE);
    w.flash.dark = true;
    CHECK(!tl_ring_drop(&w.ring, &w.live[0].record) && w.ring.live[0] == 1);
}

/* Nothing of a ring's own doing: bytes that were never written by one. */
static void a_record_beyond_its_sector_is_none(void)
{
    uint8_t *at = w.flash.bytes + FIRST * TL_FLASH_SECTOR + TL_RING_SECTOR_HEAD;
    begin(0);
    CHECK(append() == TL_RING_DONE);
    memset(at, 0, TL_FLASH_SECTOR);
    tl_out out = {at, 0, TL_RING_RECORD_HEAD, false};
    tl_put_u16(&out, TL_FLASH_SECTOR - TL_RING_SECTOR_HEAD - TL_RING_RECORD_HEAD + 1);
    tl_put_u16(&out, 0x00FF);
    uint32_t crc = tl_crc32(tl_crc32(0, (tl_span){at, 3}), (tl_span){at + TL_RING_RECORD_HEAD, tl_u16(at)});
    tl_put_u32(&out, crc);
    CHECK(open_ring() && told_count == 0 && w.ring.head_n == TL_FLASH_SECTOR);
}

static void a_sector_half_begun_is_none(void)
{
    static const uint8_t half[] = {0x54, 0x4C, 0x52, 0x31, 0x00, 0x00, 0x00}; /* magic, most of a number */
    begin(0);
    CHECK(append() == TL_RING_DONE);
    memcpy(w.flash.bytes + (FIRST + 1) * TL_FLASH_SECTOR, half, sizeof half);
    CHECK(open_ring() && told_count == 1 && w.ring.sequence == 1);
    CHECK(append() == TL_RING_DONE && w.live[1].record.at < (FIRST + 1) * TL_FLASH_SECTOR);
}

static void what_is_read_is_what_was_written(void)
{
    uint8_t room[400];
    tl_out out = {room, 0, sizeof room, false};
    begin(0);
    w.next = 5; /* 185 bytes */
    CHECK(append() == TL_RING_DONE);
    const tl_ring_record record = w.live[0].record;
    tl_ring_record other = record;
    other.kind++;
    CHECK(!tl_ring_read(&w.ring, &other, &out));
    other = record;
    other.n--;
    CHECK(!tl_ring_read(&w.ring, &other, &out));
    for (uint32_t i = 0; i < TL_RING_RECORD_HEAD + record.n; i++) {
        if (i != 3) {
            w.flash.bytes[record.at + i] ^= 0x10;
            CHECK(!tl_ring_read(&w.ring, &record, &out) && out.n == 0);
            w.flash.bytes[record.at + i] ^= 0x10;
        }
    }
    CHECK(tl_ring_read(&w.ring, &record, &out) && out.n == record.n);
}

static void lengths_have_bounds(void)
{
    static uint8_t bytes[TL_RING_RECORD_MAX + 1], back[TL_RING_RECORD_MAX];
    tl_ring_record record;
    begin(0);
    CHECK(tl_ring_append(&w.ring, 1, (tl_span){bytes, sizeof bytes}, (tl_span){NULL, 0}, &record) == TL_RING_BROKEN);
    CHECK(tl_ring_append(&w.ring, 1, (tl_span){bytes, 100}, (tl_span){bytes, TL_RING_RECORD_MAX - 100}, &record) ==
          TL_RING_DONE);
    tl_out out = {back, 0, sizeof back, false};
    CHECK(tl_ring_read(&w.ring, &record, &out) && out.n == TL_RING_RECORD_MAX);
    out = (tl_out){back, 1, sizeof back, false};
    CHECK(!tl_ring_read(&w.ring, &record, &out) && out.n == 1);
    CHECK(tl_ring_append(&w.ring, 2, (tl_span){NULL, 0}, (tl_span){NULL, 0}, &record) == TL_RING_DONE);
    CHECK(record.n == 0 && record.at / TL_FLASH_SECTOR == FIRST + 1);
    CHECK(open_ring() && told_count == 2 && told[1].kind == 2);
    tl_ring r;
    CHECK(!tl_ring_open(&r, &w.flash.port, FLASH_SECTORS - 1, 2, tell, NULL));
    CHECK(!tl_ring_open(&r, &w.flash.port, 0, 1, tell, NULL));
    CHECK(!tl_ring_open(&r, &w.flash.port, 0, TL_RING_SECTORS_MAX + 1, tell, NULL));
}

/* Whatever a bit that fell by itself does: what is given out is what was written, and the ring goes on. */
static void a_worn_cell_is_noticed(void)
{
    static memory_flash sound;
    size_t dropping;
    begin(0);
    for (uint32_t n = 0; n < 40; n++) {
        CHECK(step(n, &dropping));
    }
    sound = w.flash;
    const size_t count = w.count;
    for (uint32_t at = FIRST * TL_FLASH_SECTOR; at < (FIRST + 1) * TL_FLASH_SECTOR; at += 7) {
        w.flash = sound;
        w.flash.port.with = &w.flash;
        w.flash.bytes[at] ^= (uint8_t)(1u << (at % 8));
        CHECK(open_ring() && told_count <= count + 1);
        size_t next = 0; /* a dropped one may come back, if its flag is what changed: never other bytes */
        for (size_t i = 0; i < told_count; i++) {
            while (next < count && w.live[next].record.at != told[i].at) {
                next++;
            }
            CHECK(next == count || reads_as(&told[i], w.live[next].number));
        }
        const uint32_t raised = w.flash.raised;
        tl_ring_record record;
        const tl_ring_result result = tl_ring_append(&w.ring, KIND, tl_text("more"), (tl_span){NULL, 0}, &record);
        CHECK(result == TL_RING_DONE && w.flash.raised == raised);
    }
}

static void a_crc_as_everybodys(void)
{
    CHECK(tl_crc32(0, tl_text("123456789")) == 0xCBF43926u);
    CHECK(tl_crc32(tl_crc32(0, tl_text("1234")), tl_text("56789")) == 0xCBF43926u);
    CHECK(tl_crc32(0, (tl_span){NULL, 0}) == 0);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(it_keeps_what_is_live),  CHECK_TEST(it_outlives_every_cut), CHECK_TEST(a_full_ring_says_so),
        CHECK_TEST(once_dropped_is_dropped), CHECK_TEST(lengths_have_bounds),   CHECK_TEST(a_worn_cell_is_noticed),
        CHECK_TEST(a_crc_as_everybodys),
        CHECK_TEST(a_cut_erase_brings_nothing_back),
        CHECK_TEST(a_failing_write_costs_a_sector_at_most),
        CHECK_TEST(a_record_beyond_its_sector_is_none),
        CHECK_TEST(a_sector_half_begun_is_none),
        CHECK_TEST(what_is_read_is_what_was_written),
    };
    return CHECK_ALL(tests);
}
