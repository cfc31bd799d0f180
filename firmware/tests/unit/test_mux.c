/* What the vectors do not tell of the mux: streams' ends, the ring, sending, allowance, life and death. */
#include "test_mux_world.h"

static world w;

static tl_span bytes_of(uint8_t first, size_t n)
{
    static uint8_t raw[1 << 16];
    for (size_t i = 0; i < n; i++) {
        raw[i] = (uint8_t)(first + i);
    }
    return (tl_span){raw, n};
}

static bool told(const char *events)
{
    bool same = strcmp(w.told[0] != '\0' ? w.told + 1 : w.told, events) == 0;
    w.told[0] = '\0';
    return same;
}

/* The first bytes of the next message, as the type of a frame; 0: none leaves. */
static unsigned next_type(uint32_t *stream, uint16_t *code)
{
    uint8_t raw[MESSAGE];
    tl_frame frame;
    tl_span message = {raw, tl_mux_next_message(&w.mux, raw, sizeof raw, w.now)};
    if (tl_frame_next(&message, MESSAGE, &frame) != TL_FRAME_OK) {
        return 0;
    }
    *stream = frame.stream;
    *code = frame.payload.n >= 2 ? tl_u16(frame.payload.at) : 0;
    return frame.type;
}

/* Streams */

static void test_the_ring_keeps_every_byte(void)
{
    open_world(&w);
    tl_stream_ref stream = come_open(&w, 1);
    uint8_t next_in = 0, next_out = 0;
    size_t in = 0, out = 0;
    bool right = true;
    for (unsigned round = 0; round < 400; round++) {
        size_t held = in - out;
        size_t n = 1 + (round * 641u) % 2032;
        if (n <= (size_t)(w.streams[0].receive_limit - w.streams[0].received)) {
            come(&w, TL_DATA, 1, bytes_of(next_in, n));
            next_in = (uint8_t)(next_in + n);
            in += n;
            held += n;
        }
        size_t want = (round * 977u) % (held + 1);
        while (want > 0) {
            tl_span piece = tl_stream_peek(&w.mux, stream);
            size_t take = piece.n < want ? piece.n : want;
            right &= piece.n > 0;
            for (size_t i = 0; i < take; i++) {
                right &= piece.at[i] == next_out++;
            }
            tl_stream_consumed(&w.mux, stream, take);
            out += take;
            want -= take;
        }
        leave_unseen(&w);
    }
    CHECK(right && in > 100000 && w.losses == 0);
    tl_stream_consumed(&w.mux, stream, 1 << 20); /* more than there is: as much as there is */
    CHECK(w.streams[0].consumed == w.streams[0].received);
}

static void test_no_stream_credit_behind_fin(void)
{
    open_world(&w);
    tl_stream_ref stream = come_open(&w, 1);
    come(&w, TL_DATA, 1, bytes_of(0, 2032));
    come(&w, TL_DATA, 1, bytes_of(0, 2032));
    come(&w, TL_FIN, 1, (tl_span){NULL, 0});
    leave_unseen(&w);
    CHECK(told("open,data,data,finished") && tl_stream_peer_finished(&w.mux, stream));
    tl_stream_consumed(&w.mux, stream, 4064);
    CHECK(leave_unseen(&w) == 0);
}

static void test_both_fins_end_a_stream(void)
{
    open_world(&w);
    tl_stream_ref first = come_open(&w, 1);
    come(&w, TL_FIN, 1, (tl_span){NULL, 0});
    CHECK(w.overs == 0);
    tl_stream_finish(&w.mux, first);
    leave_unseen(&w);
    CHECK(w.overs == 1 && w.how == TL_OVER_FINISHED && tl_stream_peek(&w.mux, first).n == 0);
    tl_stream_ref second = come_open(&w, 3); /* the same slot */
    CHECK(tl_stream_index(first) == tl_stream_index(second) && first != second);
    tl_stream_finish(&w.mux, second);
    leave_unseen(&w);
    CHECK(w.overs == 1);
    come(&w, TL_FIN, 3, (tl_span){NULL, 0});
    CHECK(w.overs == 2 && w.how == TL_OVER_FINISHED && w.losses == 0);
    come(&w, TL_FIN, 3, (tl_span){NULL, 0}); /* over: no error */
    CHECK(w.losses == 0);
}

static void test_a_late_caller_does_nothing(void)
{
    open_world(&w);
    tl_stream_ref old = come_open(&w, 1);
    come(&w, TL_RESET, 1, (tl_span){(const uint8_t *)"\0\3", 2});
    CHECK(w.overs == 1 && w.how == TL_OVER_RESET && w.reset_code == TL_RESET_GRANT_ENDED);
    tl_stream_ref fresh = come_open(&w, 3);
    leave_unseen(&w);
    tl_stream_reset(&w.mux, old, TL_RESET_CANCELLED);
    tl_stream_refuse(&w.mux, old, TL_REFUSED_INTERNAL, "");
    tl_stream_finish(&w.mux, old);
    tl_stream_wake(&w.mux, old);
    tl_stream_consumed(&w.mux, old, 1);
    CHECK(!tl_stream_accept(&w.mux, old) && !tl_stream_accept(&w.mux, fresh) && !tl_stream_accept(&w.mux, 0));
    CHECK(leave_unseen(&w) == 0 && w.fills == 0 && tl_stream_room(&w.mux, old) == 0);
    CHECK(tl_stream_room(&w.mux, fresh) == 65536);
    tl_stream_refuse(&w.mux, fresh, TL_REFUSED_INTERNAL, ""); /* was accepted */
    CHECK(leave_unseen(&w) == 0);
    CHECK(tl_mux_epoch(&w.mux) == 2);
    w.mux.epoch = 0xFFFFFF; /* references are spent: they begin again, and never with 0 */
    CHECK(come_open(&w, 5) >> 8 == 1);
}

static void test_refusals(void)
{
    uint32_t stream = 0;
    uint16_t code = 0;
    open_world(&w);
    for (uint32_t id = 1; id <= 7; id += 2) {
        come_open(&w, id);
    }
    leave_unseen(&w);
    w.told[0] = '\0';
    come_open(&w, 9);
    CHECK(told("") && next_type(&stream, &code) == TL_REFUSED && stream == 9 && code == TL_REFUSED_TOO_MANY_STREAMS);
    tl_stream_reset(&w.mux, w.refs[3], TL_RESET_TIMEOUT);
    CHECK(next_type(&stream, &code) == TL_RESET && stream == 3 && code == TL_RESET_TIMEOUT && w.overs == 0);
    w.accept = false;
    tl_stream_ref asked = come_open(&w, 11);
    come(&w, TL_DATA, 11, bytes_of(0, 2032)); /* before the answer: kept, not told */
    CHECK(told("open") && tl_stream_peek(&w.mux, asked).n == 0);
    tl_stream_wake(&w.mux, asked);
    CHECK(leave_unseen(&w) == 0 && w.fills == 0);
    tl_stream_refuse(&w.mux, asked, TL_REFUSED_NO_GRANT, "no");
    CHECK(next_type(&stream, &code) == TL_REFUSED && stream == 11 && code == TL_REFUSED_NO_GRANT && w.overs == 0);
}

static void test_what_comes_for_a_cut_stream_is_foreseen(void)
{
    open_world(&w);
    w.accept = false;
    tl_stream_reset(&w.mux, come_open(&w, 1), TL_RESET_TIMEOUT);
    tl_stream_refuse(&w.mux, come_open(&w, 3), TL_REFUSED_NO_GRANT, "no");
    uint16_t left = w.mux.allowance.left;
    for (unsigned i = 0; i < 8; i++) { /* the opener could not know: its 2 windows cost it nothing */
        come(&w, TL_DATA, i % 2 != 0 ? 1 : 3, bytes_of(0, 1024));
    }
    CHECK(w.losses == 0 && w.mux.allowance.left == left);
    come(&w, TL_DATA, 1, bytes_of(0, 1));
    CHECK(w.losses == 0 && w.mux.allowance.left == left - 1);
    for (uint32_t id = 5; id <= 13; id += 2) { /* the fifth is refused unseen */
        come_open(&w, id);
    }
    left = w.mux.allowance.left;
    come(&w, TL_DATA, 13, bytes_of(0, 2032));
    come(&w, TL_DATA, 13, bytes_of(0, 2032));
    CHECK(w.losses == 0 && w.mux.allowance.left == left);
}

static void test_more_than_the_connections_credit(void)
{
    start(&w);
    w.hello.limits.connection_window = 1000;
    const tl_mux_config config = {&w.hello, &world_events, &w, w.streams, w.rings, 0};
    tl_mux_init(&w.mux, &config, 0);
    receive(&w, frame_called("challenge")->raw);
    authenticate(&w);
    receive(&w, frame_called("hello of a server")->raw);
    come_open(&w, 1);
    come(&w, TL_DATA, 1, bytes_of(0, 1000));
    CHECK(w.losses == 0);
    come(&w, TL_DATA, 1, bytes_of(0, 1001));
    CHECK(w.losses == 1 && w.lost.code == TL_CLOSE_FLOW_CONTROL);
}

static void test_credit_never_falls(void)
{
    open_world(&w);
    tl_stream_ref stream = come_open(&w, 1);
    come_credit(&w, 1, UINT64_MAX);
    come_credit(&w, 0, 1 << 22);
    come_credit(&w, 0, 1);
    CHECK(tl_stream_room(&w.mux, stream) == 1 << 22);
    come_credit(&w, 0, UINT64_MAX);
    CHECK(tl_stream_room(&w.mux, stream) == SIZE_MAX);
}

/* Sending */

static void test_streams_take_turns(void)
{
    size_t got[8] = {0};
    open_world(&w);
    for (uint32_t id = 1; id <= 7; id += 2) {
        come_open(&w, id);
    }
    leave_unseen(&w);
    for (uint32_t id = 1; id <= 7; id += 2) {
        send_on(&w, w.refs[id], bytes_of(0, 30000), true);
    }
    for (unsigned i = 0; i < 20; i++) {
        uint8_t raw[MESSAGE];
        tl_frame frame;
        tl_span message = {raw, tl_mux_next_message(&w.mux, raw, sizeof raw, 0)};
        CHECK(tl_frame_next(&message, 65535, &frame) == TL_FRAME_OK && frame.type == TL_DATA);
        CHECK(message.n == 0 && frame.payload.n == MESSAGE - 2 * TL_HEADER_SIZE); /* room for a FIN is kept */
        got[frame.stream] += frame.payload.n;
    }
    CHECK(got[1] == got[3] && got[3] == got[5] && got[5] == got[7]);
    leave_unseen(&w);
    CHECK(w.streams[0].sent == 30000 && w.streams[0].state == TL_STREAM_FINISHED_HERE);
}

static void test_fill_that_has_nothing_is_asked_again_only_when_woken(void)
{
    open_world(&w);
    tl_stream_ref stream = come_open(&w, 1);
    leave_unseen(&w);
    tl_stream_wake(&w.mux, stream);
    CHECK(leave_unseen(&w) == 0 && w.fills == 1 && leave_unseen(&w) == 0 && w.fills == 1);
    tl_stream_wake(&w.mux, stream);
    CHECK(leave_unseen(&w) == 0 && w.fills == 2);
}

static void test_a_broken_answer_is_cut(void)
{
    uint32_t stream = 0;
    uint16_t code = 0;
    open_world(&w);
    tl_stream_ref ref = come_open(&w, 1);
    leave_unseen(&w);
    w.broken = true;
    tl_stream_wake(&w.mux, ref);
    CHECK(next_type(&stream, &code) == 0); /* nothing of it */
    CHECK(next_type(&stream, &code) == TL_RESET && stream == 1 && code == TL_RESET_UPSTREAM_RESET);
    CHECK(w.mux.sent == 0 && w.overs == 0);
}

static void test_a_message_holds_the_peers_max_message_and_max_frame(void)
{
    uint8_t raw[128], sent[8192];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_hello peer;
    CHECK(tl_hello_parse((tl_span){NULL, 0}, &peer) == NULL);
    peer.limits.max_frame = 300;
    peer.limits.max_message = 2048;
    tl_header_put(&out, TL_HELLO, 0, 42);
    tl_hello_put(&out, &peer);
    open_with(&w, (tl_span){raw, out.n});
    tl_stream_ref stream = come_open(&w, 1);
    leave_unseen(&w);
    send_on(&w, stream, bytes_of(0, 1000), false);
    CHECK(tl_mux_next_message(&w.mux, sent, sizeof sent, 0) == 308);
    leave_unseen(&w);
    for (unsigned i = 0; i < 90; i++) { /* more control than one message takes */
        tl_control filler = {.type = TL_PING, .with.number = i};
        w.mux.control[(w.mux.control_head + w.mux.control_count++) % TL_CONTROL_ENTRIES] = filler;
    }
    for (unsigned i = 0; i < 60; i++) {
        w.mux.control[(w.mux.control_head + i) % TL_CONTROL_ENTRIES] =
            (tl_control){.type = TL_REFUSED, .code = 1, .stream = 1, .with.text = "so long that it is full early"};
    }
    size_t first = tl_mux_next_message(&w.mux, sent, sizeof sent, 0);
    CHECK(first <= 2048 && first > 1990 && w.mux.control_count > 0);
    CHECK(leave_unseen(&w) > 0 && w.mux.control_count == 0 && w.losses == 0);
}

static void test_a_hello_that_does_not_fit_ends_the_connection(void)
{
    uint8_t sent[2048];
    start(&w);
    receive(&w, frame_called("challenge")->raw);
    authenticate(&w);
    w.hello.software = bytes_of(1, 3000);
    receive(&w, frame_called("hello of a server")->raw);
    CHECK(tl_mux_next_message(&w.mux, sent, sizeof sent, 0) > 0); /* AUTH */
    CHECK(tl_mux_next_message(&w.mux, sent, sizeof sent, 0) > 0 && sent[0] == TL_GOAWAY);
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_LOCAL && w.lost.code == TL_CLOSE_INTERNAL);
}

/* Allowance: the cases of tests/tunnel_protocol/test_allowance.py */

static void test_what_is_moved_earns_frames(void)
{
    static const struct {
        uint64_t now, sent;
        uint32_t streams, left;
    } cases[] = { /* `left` with the 8 frames of the first filling */
        {1000, 0, 0, 508}, {0, 0, 9, 80}, {0, 25600, 0, 208}, {3600000, 0, 0, 4096}, {1ull << 60, 1ull << 60, 99, 4096},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tl_allowance allowance;
        tl_allowance_init(&allowance, 0);
        allowance.left = 0;
        allowance.came += cases[i].streams;
        CHECK(tl_allowance_spend(&allowance, cases[i].now, cases[i].sent));
        CHECK(allowance.left == cases[i].left - 1);
    }
    tl_allowance tiny;
    tl_allowance_init(&tiny, 0);
    tiny.left = 0;
    tiny.came = 0;
    tl_allowance_open(&tiny, 1, 1 << 20);
    CHECK(tl_allowance_spend(&tiny, 0, 100) && tiny.left == 199);
    tiny.left = 0;
    CHECK(!tl_allowance_spend(&tiny, 0, 100));
}

static void test_a_flood_of_nothing_is_cut(void)
{
    open_world(&w);
    unsigned frames = 0;
    while (w.losses == 0 && frames < 10000) {
        come_credit(&w, 0, 1);
        frames++;
    }
    CHECK(w.lost.code == TL_CLOSE_OVERFLOW && frames > 4096 && frames < 4120);
    open_world(&w);
    come_open(&w, 1);
    come(&w, TL_RESET, 1, (tl_span){(const uint8_t *)"\0\1", 2});
    leave_unseen(&w);
    for (frames = 0; w.losses == 0 && frames < 10000; frames++) {
        come(&w, TL_DATA, 1, bytes_of(0, 1)); /* for a stream that the peer itself has cut */
        leave_unseen(&w);
    }
    CHECK(w.lost.code == TL_CLOSE_OVERFLOW && frames > 4000 && frames < 4120);
}

static void test_a_full_control_queue_is_an_overflow(void)
{
    open_world(&w);
    uint32_t id = 1;
    for (unsigned i = 0; i < 300 && w.losses == 0; i++, id += 2) {
        come_open(&w, id);
    }
    CHECK(w.losses == 1 && w.lost.code == TL_CLOSE_OVERFLOW && w.overs == STREAMS && w.how == TL_OVER_LOST);
    uint32_t stream = 0;
    uint16_t code = 0;
    CHECK(next_type(&stream, &code) == TL_GOAWAY && leave_unseen(&w) == 0);
}

static void test_pongs_that_left_count_no_more(void)
{
    open_world(&w);
    for (unsigned i = 0; i < 100; i++) {
        for (unsigned k = 0; k < 16; k++) {
            receive(&w, frame_called("ping")->raw);
        }
        CHECK(leaves(&w, (tl_span){NULL, 0}) == false && w.losses == 0);
    }
}

/* Life and death: the cases of tests/tunnel_protocol/test_liveness.py */

static void timer(uint64_t now)
{
    w.now = now;
    tl_mux_on_timer(&w.mux, now);
}

static bool asked(void)
{
    uint32_t stream = 0;
    uint16_t code = 0;
    return next_type(&stream, &code) == TL_PING;
}

static void test_the_handshake_ends_within_its_time(void)
{
    start(&w);
    CHECK(tl_mux_timer(&w.mux) == 10000);
    timer(9999);
    CHECK(w.losses == 0);
    timer(10000);
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_TIMEOUT && w.lost.code == TL_CLOSE_HANDSHAKE_TIMEOUT);
    CHECK(tl_mux_timer(&w.mux) == TL_NEVER);
    CHECK(!authenticate(&w));
}

static void test_silence_is_asked_about_and_then_fatal(void)
{
    uint8_t first[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    open_world(&w);
    come(&w, TL_PONG, 0, (tl_span){first, sizeof first}); /* else the first PING still asks */
    CHECK(tl_mux_timer(&w.mux) == 4000);
    timer(4000);
    CHECK(asked() && tl_mux_timer(&w.mux) == 9000);
    timer(8900);
    CHECK(w.losses == 0);
    timer(9000);
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_TIMEOUT && w.lost.code == TL_CLOSE_KEEPALIVE_TIMEOUT);
    tl_close why = tl_mux_close_reason(&w.mux);
    CHECK(why.code == TL_CLOSE_KEEPALIVE_TIMEOUT && why.fault == TL_FAULT_TIMEOUT);
}

static void test_a_part_of_a_message_is_a_sign_of_life(void)
{
    open_world(&w);
    for (uint64_t at = 4000; at < 60000; at += 1000) {
        tl_mux_heard(&w.mux, at - 500);
        timer(at);
    }
    CHECK(w.losses == 0);
    tl_mux_heard(&w.mux, 3000); /* an older look changes nothing */
    leave_unseen(&w);
    timer(58500 + 4000);
    timer(58500 + 9000);
    CHECK(w.losses == 1 && w.lost.code == TL_CLOSE_KEEPALIVE_TIMEOUT);
}

static void test_a_task_that_slept_asks_before_it_judges(void)
{
    open_world(&w);
    timer(60000);
    CHECK(w.losses == 0 && asked() && tl_mux_timer(&w.mux) == 65000);
    timer(65000);
    CHECK(w.losses == 1);
}

static void test_traffic_does_not_keep_the_round_trip_from_being_measured(void)
{
    open_world(&w);
    uint8_t number[8] = {0, 0, 0, 0, 0, 0, 0, 1};
    w.now = 20;
    come(&w, TL_PONG, 0, (tl_span){(const uint8_t *)"\0\0\0\0\0\0\0\2", 8}); /* was never asked */
    CHECK(tl_mux_last_rtt_ms(&w.mux) == TL_NO_RTT);
    w.now = 30;
    come(&w, TL_PONG, 0, (tl_span){number, 8});
    CHECK(tl_mux_last_rtt_ms(&w.mux) == 30);
    w.now = 50;
    come(&w, TL_PONG, 0, (tl_span){number, 8}); /* a second answer says nothing new */
    CHECK(tl_mux_last_rtt_ms(&w.mux) == 30);
    unsigned pings = 0;
    for (uint64_t at = 1000; at <= 31000; at += 1000) {
        w.now = at;
        come_credit(&w, 0, 1);
        timer(at);
        if (asked()) {
            pings++;
            number[7]++;
            come(&w, TL_PONG, 0, (tl_span){number, 8});
        }
    }
    CHECK(pings == 1 && tl_mux_last_rtt_ms(&w.mux) == 0 && w.losses == 0);
}

/* Ends */

static void test_a_drain_lets_streams_finish(void)
{
    uint32_t stream = 0;
    uint16_t code = 0;
    open_world(&w);
    tl_stream_ref live = come_open(&w, 1);
    leave_unseen(&w);
    tl_mux_drain(&w.mux, "restart");
    tl_mux_drain(&w.mux, "restart");
    CHECK(leave_unseen(&w) == TL_HEADER_SIZE + 10 + strlen("restart") && w.losses == 0);
    come_open(&w, 3);
    CHECK(next_type(&stream, &code) == TL_REFUSED && stream == 3 && code == TL_REFUSED_DRAINING);
    come(&w, TL_FIN, 1, (tl_span){NULL, 0});
    send_on(&w, live, bytes_of(0, 10), true);
    CHECK(leave_unseen(&w) == 10 + 2 * TL_HEADER_SIZE);
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_LOCAL && w.lost.code == TL_CLOSE_NORMAL && w.overs == 1);
}

static void test_a_goaway_that_ends(void)
{
    uint8_t replaced[10] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 5};
    open_world(&w);
    tl_stream_ref live = come_open(&w, 1);
    w.told[0] = '\0';
    come(&w, TL_GOAWAY, 0, (tl_span){replaced, sizeof replaced});
    CHECK(told("goaway,lost") && w.lost.code == TL_CLOSE_REPLACED && w.overs == 1 && w.how == TL_OVER_LOST);
    tl_stream_finish(&w.mux, live);
    tl_mux_close(&w.mux, TL_CLOSE_NORMAL, "too late");
    tl_mux_link_closed(&w.mux, 4005);
    CHECK(w.losses == 1);
}

static void test_a_goaway_that_repeats_itself_says_nothing_new(void)
{
    uint8_t normal[10] = {0};
    open_world(&w);
    come_open(&w, 1);
    w.told[0] = '\0';
    come(&w, TL_GOAWAY, 0, (tl_span){normal, sizeof normal});
    come(&w, TL_GOAWAY, 0, (tl_span){normal, sizeof normal});
    CHECK(told("goaway") && w.losses == 0);
    tl_stream_reset(&w.mux, w.last_asked, TL_RESET_CANCELLED);
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_PEER && w.lost.code == TL_CLOSE_NORMAL);
}

static void test_the_link_breaks(void)
{
    open_world(&w);
    come_open(&w, 1);
    tl_mux_link_closed(&w.mux, 1006);
    CHECK(w.losses == 1 && !w.lost.has_code && w.overs == 1 && leave_unseen(&w) == 0);
    open_world(&w);
    tl_mux_link_closed(&w.mux, 4004);
    CHECK(w.losses == 1 && w.lost.has_code && w.lost.code == TL_CLOSE_REVOKED);
}

static void test_a_close_of_ours_says_what_was_said_before(void)
{
    uint8_t sent[MESSAGE];
    open_world(&w);
    come_open(&w, 1);
    tl_mux_close(&w.mux, TL_CLOSE_WRONG_SERVER_NAME, "another name");
    size_t n = tl_mux_next_message(&w.mux, sent, sizeof sent, 0);
    CHECK(n > 16 && sent[0] == TL_OPENED && sent[8] == TL_GOAWAY && w.lost.fault == TL_FAULT_LOCAL);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_the_ring_keeps_every_byte),
        CHECK_TEST(test_no_stream_credit_behind_fin),
        CHECK_TEST(test_both_fins_end_a_stream),
        CHECK_TEST(test_a_late_caller_does_nothing),
        CHECK_TEST(test_refusals),
        CHECK_TEST(test_what_comes_for_a_cut_stream_is_foreseen),
        CHECK_TEST(test_more_than_the_connections_credit),
        CHECK_TEST(test_credit_never_falls),
        CHECK_TEST(test_streams_take_turns),
        CHECK_TEST(test_fill_that_has_nothing_is_asked_again_only_when_woken),
        CHECK_TEST(test_a_broken_answer_is_cut),
        CHECK_TEST(test_a_message_holds_the_peers_max_message_and_max_frame),
        CHECK_TEST(test_a_hello_that_does_not_fit_ends_the_connection),
        CHECK_TEST(test_what_is_moved_earns_frames),
        CHECK_TEST(test_a_flood_of_nothing_is_cut),
        CHECK_TEST(test_a_full_control_queue_is_an_overflow),
        CHECK_TEST(test_pongs_that_left_count_no_more),
        CHECK_TEST(test_the_handshake_ends_within_its_time),
        CHECK_TEST(test_silence_is_asked_about_and_then_fatal),
        CHECK_TEST(test_a_part_of_a_message_is_a_sign_of_life),
        CHECK_TEST(test_a_task_that_slept_asks_before_it_judges),
        CHECK_TEST(test_traffic_does_not_keep_the_round_trip_from_being_measured),
        CHECK_TEST(test_a_drain_lets_streams_finish),
        CHECK_TEST(test_a_goaway_that_ends),
        CHECK_TEST(test_a_goaway_that_repeats_itself_says_nothing_new),
        CHECK_TEST(test_the_link_breaks),
        CHECK_TEST(test_a_close_of_ours_says_what_was_said_before),
    };
    return CHECK_ALL(tests);
}
