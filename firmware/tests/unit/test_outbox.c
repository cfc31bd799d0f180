/* What a device keeps: over restarts, without room, when its counter went back, and with the power cut anywhere. */
#include "check.h"
#include "device_model.h"
#include "memory_flash.h"
#include "memory_kv.h"
#include "towline/bytes.h"
#include "towline/envelope.h"
#include "towline/sending.h"

enum { SECTORS = 4, ENTRIES_OF_A_RUN = 60 };

static memory_flash flash;
static memory_kv kv;
static tl_outbox box;

static bool open_box(void)
{
    return tl_outbox_open(&box, &flash.port, 0, SECTORS, &kv.port);
}

static bool restart(void)
{
    flash.dark = false;
    flash.cut_at = flash.fail_at = 0;
    kv_restart(&kv);
    return open_box();
}

/* A device that was never connected, and one that the other side knows nothing of. */
static void fresh(void)
{
    flash_init(&flash, SECTORS, 0);
    kv_init(&kv);
    CHECK(open_box() && tl_outbox_boot(&box) == 0);
    CHECK(tl_outbox_begin(&box, 0) && tl_outbox_boot(&box) == 1);
}

/* An entry that holds `mark` in its id, and `more` bytes beside what must be. */
static bool say_long(uint32_t mark, size_t more)
{
    static uint8_t raw[TL_ENTRY_MAX + 64];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_envelope envelope = {.type = "state", .ts_ms = -1, .up_ms = 5};
    for (size_t i = 0; i < 4; i++) {
        envelope.random[9 - i] = (uint8_t)(mark >> 8 * i);
    }
    tl_envelope_put_head(&out, &envelope);
    const size_t split = out.n;
    tl_put_text(&out, "{\"t\":\"");
    for (size_t i = 0; i < more; i++) {
        tl_put_u8(&out, 'x');
    }
    tl_put_text(&out, "\"}");
    return tl_outbox_store(&box, TL_KIND_STATE, (tl_span){raw, out.n}, split);
}

static bool say(uint32_t mark)
{
    return say_long(mark, mark % 200);
}

typedef struct {
    uint32_t mark;
    tl_number number, floor, prev;
} read_entry;

static tl_number pair_of(const tl_json *body, const char *name)
{
    tl_json list, item;
    int64_t boot = -1, seq = -1;
    if (tl_json_member(body, name, &list)) {
        tl_span rest = list.text;
        CHECK(tl_json_next_item(&rest, &item) && tl_json_whole(&item, 0, INT64_MAX, &boot));
        CHECK(tl_json_next_item(&rest, &item) && tl_json_whole(&item, 0, INT64_MAX, &seq));
    }
    return (tl_number){(uint64_t)boot, (uint64_t)seq};
}

/* As whoever takes it reads the message. */
static read_entry read_at(uint16_t index)
{
    uint8_t raw[TL_MESSAGE_MAX], id[TL_UUID] = {0};
    tl_out out = {raw, 0, sizeof raw, false};
    read_entry read = {0};
    tl_json body, member;
    int64_t boot, seq;
    CHECK(tl_outbox_message(&box, index, &out) == TL_KIND_STATE);
    const bool fine = tl_json_check((tl_span){raw, out.n}, &body) == TL_JSON_FINE;
    CHECK_NAMED(fine, (const char *)raw);
    if (!fine) {
        return read;
    }
    CHECK(tl_json_member(&body, "id", &member) && tl_uuid7_read(&member, id));
    read.mark = tl_u32(id + 12);
    CHECK(tl_json_member(&body, "boot", &member) && tl_json_whole(&member, 1, INT64_MAX, &boot));
    CHECK(tl_json_member(&body, "seq", &member) && tl_json_whole(&member, 1, INT64_MAX, &seq));
    CHECK(tl_json_member(&body, "payload", &member) && member.kind == TL_JSON_OBJECT);
    read.number = (tl_number){(uint64_t)boot, (uint64_t)seq};
    read.floor = pair_of(&body, "floor");
    read.prev = tl_json_member(&body, "prev", &member) ? pair_of(&body, "prev") : (tl_number){read.number.boot, read.number.seq - 1};
    CHECK(seq > 1 || tl_json_member(&body, "prev", &member));
    CHECK(tl_number_above(read.number, read.floor) && tl_number_above(read.number, read.prev));
    return read;
}

static bool is(tl_number number, uint64_t boot, uint64_t seq)
{
    return number.boot == boot && number.seq == seq;
}

static void test_kept_and_let_out(void)
{
    fresh();
    CHECK(say(1) && say(2) && say(3) && box.count == 3);
    read_entry read = read_at(0);
    CHECK(read.mark == 1 && is(read.number, 1, 1) && is(read.floor, 0, 0) && is(read.prev, 0, 0));
    read = read_at(2);
    CHECK(read.mark == 3 && is(read.number, 1, 3) && is(read.prev, 1, 2));
    tl_outbox_accept(&box, (tl_number){1, 2});
    read = read_at(0);
    CHECK(box.count == 1 && read.mark == 3 && is(read.floor, 1, 2) && is(read.prev, 1, 2));
    tl_outbox_accept(&box, (tl_number){1, 1}); /* late */
    CHECK(box.count == 1 && is(box.floor, 1, 2));
    CHECK(restart() && box.count == 1 && tl_outbox_boot(&box) == 2);
    CHECK(say(4));
    read = read_at(0);
    CHECK(read.mark == 3 && is(read.number, 1, 3) && is(read.prev, 0, 0)); /* the floor of this start */
    read = read_at(1);
    CHECK(read.mark == 4 && is(read.number, 2, 1) && is(read.prev, 1, 3));
    tl_outbox_accept(&box, (tl_number){2, 1});
    CHECK(box.count == 0 && box.bytes == 0);
    CHECK(restart() && box.count == 0 && tl_outbox_boot(&box) == 3);
}

static void test_what_is_too_long(void)
{
    fresh();
    CHECK(!say_long(1, TL_ENTRY_MAX) && box.count == 0);
    const size_t head = 103; /* of the envelope, and the payload's own */
    CHECK(say_long(2, TL_ENTRY_MAX - head) || say_long(2, TL_ENTRY_MAX - head - 4));
    CHECK(box.count == 1 && read_at(0).mark == 2);
}

static void test_no_room(void)
{
    fresh();
    uint32_t mark = 0;
    while (box.dropped == 0) {
        CHECK(say_long(++mark, 400));
    }
    const uint32_t first = read_at(0).mark;
    CHECK(first > 1 && box.dropped == first - 1 && box.count == mark - first + 1);
    for (uint32_t i = 0; i < 200; i++) {
        CHECK(say_long(++mark, 400));
        CHECK(read_at((uint16_t)(box.count - 1)).mark == mark);
        CHECK(box.dropped + box.count == mark);
    }
    const uint32_t dropped = box.dropped, count = box.count;
    CHECK(flash.raised == 0);
    CHECK(restart() && box.count == count && box.dropped == dropped);
    CHECK(read_at(0).mark == dropped + 1 && is(read_at(0).prev, 0, 0));
    /* The counters must not cost entries when they are all that is left in the oldest sector. */
    tl_outbox_accept(&box, (tl_number){1, mark});
    for (uint32_t i = 0; i < 100; i++) {
        CHECK(say_long(++mark, 400));
        tl_outbox_accept(&box, (tl_number){tl_outbox_boot(&box), i + 1});
    }
    CHECK(box.dropped == dropped);
    CHECK(restart() && box.dropped == dropped);
}

static void test_more_entries_than_places(void)
{
    fresh();
    flash_init(&flash, FLASH_SECTORS, 0);
    CHECK(tl_outbox_open(&box, &flash.port, 0, FLASH_SECTORS, &kv.port) && tl_outbox_begin(&box, 0));
    for (uint32_t mark = 1; mark <= TL_OUTBOX_ENTRIES + 40; mark++) {
        CHECK(say_long(mark, 0));
    }
    const uint32_t kept = box.count, first = read_at(0).mark;
    CHECK(kept <= TL_OUTBOX_ENTRIES && first == TL_OUTBOX_ENTRIES + 40 - kept + 1 && box.dropped == first - 1);
    kv_restart(&kv);
    CHECK(tl_outbox_open(&box, &flash.port, 0, FLASH_SECTORS, &kv.port));
    CHECK(box.count == kept && read_at(0).mark == first && box.dropped == first - 1);
}

static void check_anew(uint64_t boot, uint32_t mark, uint32_t count, tl_number floor)
{
    CHECK(box.count == count);
    for (uint16_t i = 0; i < count; i++) {
        const read_entry read = read_at(i);
        CHECK(read.mark == mark + i && is(read.number, boot, i + 1));
        if (i == 0) {
            CHECK(is(read.prev, floor.boot, floor.seq) && is(read.floor, floor.boot, floor.seq));
        }
    }
}

static void test_numbered_anew(void)
{
    fresh();
    for (uint32_t mark = 1; mark <= 5; mark++) {
        CHECK(say(mark));
    }
    tl_outbox_accept(&box, (tl_number){1, 2});
    CHECK(tl_outbox_renumber(&box, (tl_number){9, 77}) && tl_outbox_boot(&box) == 10);
    check_anew(10, 3, 3, (tl_number){9, 77});
    CHECK(say(6) && is(read_at(3).number, 10, 4));
    CHECK(restart() && tl_outbox_boot(&box) == 11);
    CHECK(is(read_at(0).number, 10, 1) && is(read_at(2).number, 10, 3) && is(read_at(3).number, 10, 4));
    CHECK(read_at(3).mark == 6 && is(read_at(0).prev, 0, 0));
    CHECK(say(7) && is(read_at(4).number, 11, 1) && is(read_at(4).prev, 10, 4));
    /* Some of them leave, and it happens again. */
    tl_outbox_accept(&box, (tl_number){10, 1});
    CHECK(restart() && is(read_at(0).number, 10, 2) && read_at(0).mark == 4);
    CHECK(tl_outbox_renumber(&box, (tl_number){20, 1}) && tl_outbox_boot(&box) == 21);
    check_anew(21, 4, 4, (tl_number){20, 1});
    tl_outbox_accept(&box, (tl_number){21, 1});
    CHECK(restart() && tl_outbox_boot(&box) == 22 && read_at(0).mark == 5 && is(read_at(0).number, 21, 2));
    tl_outbox_accept(&box, (tl_number){21, 4});
    CHECK(box.count == 0 && box.renumbering.at == 0);
    for (uint32_t i = 0; i < 100; i++) { /* and its record is in nobody's way */
        CHECK(say_long(100 + i, 400));
        tl_outbox_accept(&box, (tl_number){22, i + 1});
    }
    CHECK(box.dropped == 0 && !tl_outbox_renumber(&box, (tl_number){TL_NUMBER_MAX, 0}));
    /* Behind it no later start would have a number. */
    CHECK(!tl_outbox_renumber(&box, (tl_number){TL_NUMBER_MAX - 1, 0}) && box.counting);
    CHECK(!tl_outbox_renumber(&box, (tl_number){TL_BOOT_TOLD_MAX + 1, 0}) && box.counting);
}

static void test_counter_that_cannot_be_kept(void)
{
    fresh();
    CHECK(say(1));
    kv_restart(&kv);
    kv.fails = true;
    CHECK(open_box() && tl_outbox_boot(&box) == 0 && !say(2) && box.count == 1);
    kv.fails = false;
    CHECK(tl_outbox_begin(&box, 0) && tl_outbox_boot(&box) > 1 && say(2));
    kv_erase(&kv, "boots"); /* the store was wiped, the flash was not */
    kv_commit(&kv);
    CHECK(restart() && tl_outbox_boot(&box) == 0 && box.count == 2);
    CHECK(tl_outbox_begin(&box, 0) && tl_outbox_boot(&box) == 4);
}

/* Whole records that no outbox writes. */
static void test_records_that_make_no_sense(void)
{
    uint8_t front[14] = {0};
    tl_ring_record record;
    fresh();
    CHECK(say(1) && say(2));
    front[7] = 1; /* 1.1 again, behind 1.2 */
    front[11] = 1;
    CHECK(tl_ring_append(&box.ring, TL_KIND_STATE, (tl_span){front, sizeof front}, (tl_span){0}, &record) == TL_RING_DONE);
    front[0] = 0xff; /* a boot that is none */
    CHECK(tl_ring_append(&box.ring, TL_KIND_STATE, (tl_span){front, sizeof front}, (tl_span){0}, &record) == TL_RING_DONE);
    front[0] = 0;
    CHECK(tl_ring_append(&box.ring, 9, (tl_span){front, sizeof front}, (tl_span){0}, &record) == TL_RING_DONE);
    CHECK(tl_ring_append(&box.ring, TL_KIND_STATE, (tl_span){front, 5}, (tl_span){0}, &record) == TL_RING_DONE);
    CHECK(restart() && box.count == 2 && read_at(0).mark == 1 && read_at(1).mark == 2 && tl_outbox_boot(&box) == 2);
}

static void test_whatever_lies_in_the_flash(void)
{
    uint32_t chance = 1;
    for (int round = 0; round < 100; round++) {
        fresh();
        for (uint32_t mark = 1; mark < 40; mark++) {
            CHECK(say_long(mark, 250));
        }
        for (int i = 0; i < 4; i++) { /* bits fall where they stood */
            chance = chance * 1664525u + 1013904223u;
            flash.bytes[(chance >> 8) % (SECTORS * TL_FLASH_SECTOR)] &= (uint8_t)(chance >> 3);
        }
        CHECK(restart());
        uint32_t last = 0;
        for (uint16_t i = 0; i < box.count; i++) {
            const read_entry read = read_at(i);
            CHECK(read.mark > last);
            last = read.mark;
        }
        CHECK(say_long(100, 20) && read_at((uint16_t)(box.count - 1)).mark == 100);
    }
    for (size_t i = 0; i < sizeof flash.bytes; i++) {
        chance = chance * 1664525u + 1013904223u;
        flash.bytes[i] = (uint8_t)(chance >> 24);
    }
    CHECK(restart() && box.count == 0 && say(1));
}

/* --- the power goes --- */

typedef struct {
    uint32_t stored; /* the last mark whose store said so */
    tl_number said;  /* the highest number that was given */
} story;

/* Some hours of a device: false once the power is gone. */
static bool live_on(story *s, uint32_t marks)
{
    for (uint32_t i = 0; i < marks; i++) {
        if (!say_long(s->stored + 1, 300)) {
            return false;
        }
        s->stored++;
        s->said = tl_outbox_number(&box, (uint16_t)(box.count - 1));
        if (i % 5 == 4 && box.count > 2) {
            tl_outbox_accept(&box, tl_outbox_number(&box, 1));
        }
        if (i == marks / 2) {
            if (!tl_outbox_renumber(&box, (tl_number){s->said.boot + 3, 9})) {
                return false;
            }
            s->said = tl_outbox_number(&box, (uint16_t)(box.count - 1));
        }
    }
    return !flash.dark;
}

/* What was stored is there, in order, whole, and nothing beside it but the one that was being stored. */
static void check_after_cut(const story *s, uint32_t step)
{
    char where[16];
    snprintf(where, sizeof where, "step %u", (unsigned)step);
    const uint32_t there = box.count; /* in memory as the power went */
    CHECK_NAMED(restart(), where);
    CHECK_NAMED(tl_number_above((tl_number){tl_outbox_boot(&box), 1}, s->said), where);
    CHECK_NAMED(box.count >= there, where);
    tl_number last = {0, 0};
    uint32_t mark = 0;
    for (uint16_t i = 0; i < box.count; i++) {
        const read_entry read = read_at(i);
        CHECK_NAMED(i == 0 || read.mark == mark + 1, where);
        CHECK_NAMED(tl_number_above(read.number, last), where);
        last = read.number;
        mark = read.mark;
    }
    CHECK_NAMED(box.count == 0 || mark == s->stored || mark == s->stored + 1, where);
    CHECK_NAMED(say(1000) && read_at((uint16_t)(box.count - 1)).mark == 1000, where);
    CHECK_NAMED(flash.raised == 0, where);
}

static void test_power_cut_anywhere(void)
{
    uint32_t steps = 0;
    for (uint32_t cut = 1; cut == 1 || cut <= steps; cut++) {
        story s = {0};
        fresh();
        flash.steps = 0;
        flash.cut_at = cut;
        if (live_on(&s, ENTRIES_OF_A_RUN)) {
            steps = flash.steps;
            break;
        }
        steps = cut + 1;
        check_after_cut(&s, cut);
    }
    CHECK(steps > 200);
}

/* --- when it leaves --- */

static tl_sending sending;

/* Everything that may leave now; the last index, −1 for none. */
static int leave(uint64_t now_ms)
{
    int last = -1;
    uint16_t index;
    while (tl_sending_next(&sending, &box, now_ms, &index)) {
        CHECK(last < 0 || index == last + 1);
        last = index;
        tl_sending_sent(&sending, &box, index, now_ms, 0);
    }
    return last;
}

static void test_sending(void)
{
    fresh();
    tl_sending_init(&sending);
    for (uint32_t mark = 1; mark <= TL_WINDOW + 6; mark++) {
        CHECK(say_long(mark, 0));
    }
    CHECK(leave(10) == -1 && tl_sending_due(&sending, &box, 10) == TL_NEVER_DUE);
    tl_sending_connected(&sending, &box, 100);
    CHECK(leave(100) == -1 && tl_sending_due(&sending, &box, 100) == 100 + TL_HOLD_MS);
    tl_sending_answered(&sending);
    CHECK(leave(200) == TL_WINDOW - 1);
    CHECK(tl_sending_due(&sending, &box, 200) == 200 + TL_PATIENCE_FIRST_MS);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 4}, 300, 0) == TL_TAKEN_NEWS);
    uint16_t index;
    CHECK(tl_sending_next(&sending, &box, 300, &index) && index == TL_WINDOW - 4);
    CHECK(leave(300) == TL_WINDOW - 1);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 4}, 300, 0) == TL_TAKEN_OLD);
    /* Nothing more is accepted: it goes back, more slowly each time. */
    CHECK(leave(5299) == -1 && leave(5300) == TL_WINDOW - 1);
    CHECK(leave(15299) == -1 && leave(15300) == TL_WINDOW - 1);
    CHECK(tl_sending_due(&sending, &box, 15300) == 35300);
    tl_sending_lost(&sending, &box);
    CHECK(leave(400000) == -1 && tl_sending_due(&sending, &box, 400000) == TL_NEVER_DUE);
    tl_sending_connected(&sending, &box, 400000); /* no hold any more */
    CHECK(leave(400000) == TL_WINDOW - 1);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 68}, 400001, 0) == TL_TAKEN_NEWS && box.count == 2);
    CHECK(leave(400001) == 1);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 70}, 400002, 0) == TL_TAKEN_NEWS && box.count == 0);
    CHECK(tl_sending_due(&sending, &box, 400002) == TL_NEVER_DUE);
}

static void test_entries_leave_while_others_are_sent(void)
{
    fresh();
    tl_sending_init(&sending);
    tl_sending_connected(&sending, &box, 1);
    tl_sending_answered(&sending);
    uint32_t mark = 0;
    while (box.dropped == 0) {
        CHECK(say_long(++mark, 400));
        if (mark == 10) {
            CHECK(leave(2) == 9);
        }
    }
    uint16_t index; /* those that were sent are gone: it goes on with what is first now */
    CHECK(tl_sending_next(&sending, &box, 3, &index));
    CHECK(read_at(index).mark == (box.dropped > 10 ? box.dropped + 1 : 11));
}

static void test_refused(void)
{
    fresh();
    tl_sending_init(&sending);
    tl_sending_connected(&sending, &box, 1);
    tl_sending_answered(&sending);
    CHECK(say(1) && say(2) && say(3));
    uint8_t id[TL_UUID] = {[6] = 0x70, [8] = 0x80, [15] = 1}, raw[TL_MESSAGE_MAX];
    tl_out scratch = {raw, 0, sizeof raw, false};
    CHECK(!tl_sending_refused(&sending, &box, id, &scratch)); /* it was not sent yet */
    CHECK(leave(2) == 2);
    CHECK(!tl_sending_refused(&sending, &box, id, &scratch) && !tl_sending_refused(&sending, &box, id, &scratch));
    id[15] = 2;
    CHECK(!tl_sending_refused(&sending, &box, id, &scratch)); /* not the first in line */
    id[15] = 1;
    CHECK(tl_sending_refused(&sending, &box, id, &scratch) && box.count == 2 && box.refused == 1);
    CHECK(read_at(0).mark == 2 && is(read_at(0).prev, 0, 0));
    id[15] = 2;
    CHECK(!tl_sending_refused(&sending, &box, id, &scratch) && !tl_sending_refused(&sending, &box, id, &scratch));
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 2}, 3, 0) == TL_TAKEN_NEWS);
    id[15] = 3;
    CHECK(!tl_sending_refused(&sending, &box, id, &scratch)); /* counted anew */
    CHECK(restart() && box.refused == 1 && box.count == 1);
}

static void test_told_of_more_than_was_said(void)
{
    fresh();
    tl_sending_init(&sending);
    tl_sending_connected(&sending, &box, 1);
    tl_sending_answered(&sending);
    CHECK(say(1) && say(2));
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){1, 1}, 2, 0) == TL_TAKEN_RENUMBERED);
    check_anew(2, 1, 2, (tl_number){1, 1});
    CHECK(leave(3) == 1);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){7, 1}, 4, 0) == TL_TAKEN_OLD && box.count == 2);
    const uint64_t later = 2 + TL_RENUMBER_EVERY_MS;
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){7, 1}, later, 0) == TL_TAKEN_RENUMBERED);
    check_anew(8, 1, 2, (tl_number){7, 1});
    CHECK(leave(later) == 1);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){8, 2}, later, 0) == TL_TAKEN_NEWS && box.count == 0);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){TL_NUMBER_MAX, TL_NUMBER_MAX}, 2 * later, 0) ==
          TL_TAKEN_OLD); /* there is no number above that: it goes on */
    CHECK(say(3) && is(tl_outbox_number(&box, 0), 8, 3) && leave(3 * later) == 0);
    CHECK(tl_sending_accepted(&sending, &box, (tl_number){8, 3}, 3 * later, 0) == TL_TAKEN_NEWS && box.count == 0);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_kept_and_let_out),
        CHECK_TEST(test_what_is_too_long),
        CHECK_TEST(test_no_room),
        CHECK_TEST(test_more_entries_than_places),
        CHECK_TEST(test_numbered_anew),
        CHECK_TEST(test_counter_that_cannot_be_kept),
        CHECK_TEST(test_records_that_make_no_sense),
        CHECK_TEST(test_whatever_lies_in_the_flash),
        CHECK_TEST(test_power_cut_anywhere),
        CHECK_TEST(test_sending),
        CHECK_TEST(test_entries_leave_while_others_are_sent),
        CHECK_TEST(test_refused),
        CHECK_TEST(test_told_of_more_than_was_said),
    };
    return CHECK_ALL(tests);
}
