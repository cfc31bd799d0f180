/* bad_frames.json, credit.json and handshake.json against the mux: the cases of the device's side. */
#include "test_mux_world.h"

/* A vector more, or fewer, needs a look. */
enum { BAD_FRAMES = 87, BAD_FRAMES_OF_A_DEVICE = 67, CREDIT_CASES = 5, HANDSHAKE_MESSAGES = 9 };

static const char *const states[] = {
    [TL_MUX_AWAITING_CHALLENGE] = "awaiting_challenge", [TL_MUX_SIGNING] = "signing",
    [TL_MUX_AWAITING_HELLO] = "awaiting_hello",         [TL_MUX_OPEN] = "open",
};

static void take_to(world *w, const char *state)
{
    start(w);
    for (int step = 0; strcmp(states[w->mux.state], state) != 0 && step < 3; step++) {
        switch (step) {
        case 0: receive(w, frame_called("challenge")->raw); break;
        case 1: authenticate(w); break;
        default: receive(w, frame_called("hello of a server")->raw); break;
        }
    }
    CHECK_NAMED(strcmp(states[w->mux.state], state) == 0, state);
    leave_unseen(w);
}

/* The GOAWAY is the last frame that leaves, and says what the owner was told. */
static bool goaway_says(world *w)
{
    static uint8_t sent[1 << 16];
    size_t last = 0;
    tl_span message = {sent, leave(w, sent, sizeof sent, &last)};
    tl_frame frame = {0}, next;
    tl_goaway goaway;
    while (tl_frame_next(&message, 65535, &next) == TL_FRAME_OK) {
        frame = next;
    }
    return message.n == 0 && frame.type == TL_GOAWAY && tl_goaway_parse(frame.payload, &goaway) == NULL &&
           goaway.code == w->lost.code && tl_is(goaway.reason, w->lost.reason);
}

static void test_bad_frames(void)
{
    size_t count = 0;
    static world w;
    CHECK(vector_bad_frames_count == BAD_FRAMES);
    for (size_t i = 0; i < vector_bad_frames_count; i++) {
        const vector_bad_frame *v = &vector_bad_frames[i];
        if (strcmp(v->side, "device") != 0) {
            continue;
        }
        count++;
        take_to(&w, v->state);
        w.accept = v->accept;
        for (size_t k = 0; k < v->before_count; k++) {
            receive(&w, v->before[k]);
        }
        leave_unseen(&w);
        CHECK_NAMED(w.losses == 0, v->name);
        receive(&w, v->raw);
        CHECK_NAMED(w.losses == 1 && w.lost.fault == TL_FAULT_PEER && w.lost.has_code, v->name);
        CHECK_NAMED((int)w.lost.code == v->close_code, v->name);
        CHECK_NAMED(goaway_says(&w), v->name);
        CHECK_NAMED(tl_mux_timer(&w.mux) == TL_NEVER && leave_unseen(&w) == 0, v->name);
        receive(&w, frame_called("ping")->raw); /* nothing more is heard or said */
        CHECK_NAMED(w.losses == 1 && leave_unseen(&w) == 0, v->name);
    }
    CHECK(count == BAD_FRAMES_OF_A_DEVICE);
}

/* The server's HELLO of frames.json, or one with the case's windows. */
static void open_for(world *w, const vector_credit *v)
{
    uint8_t raw[128];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_hello peer;
    if (v->peer_stream_window == 0) {
        open_world(w);
        return;
    }
    tl_span nothing = {NULL, 0};
    CHECK(tl_hello_parse(nothing, &peer) == NULL);
    peer.limits.stream_window = v->peer_stream_window;
    peer.limits.connection_window = v->peer_connection_window;
    tl_header_put(&out, TL_HELLO, 0, 6 * 7);
    tl_hello_put(&out, &peer);
    open_with(w, (tl_span){raw, out.n});
}

/* A later send waits behind what is still there, as in a queue. */
static void send_more(world *w, uint32_t stream, tl_span bytes)
{
    tl_stream_ref ref = w->refs[stream];
    CHECK(w->to_send[tl_stream_index(ref)].n == 0);
    send_on(w, ref, bytes, false);
}

static void test_credit(void)
{
    static world w;
    CHECK(vector_credits_count == CREDIT_CASES);
    for (size_t i = 0; i < vector_credits_count; i++) {
        const vector_credit *v = &vector_credits[i];
        open_for(&w, v);
        for (uint32_t id = 1; id <= 7; id += 2) {
            come_open(&w, id);
        }
        leave_unseen(&w);
        for (size_t k = 0; k < v->step_count; k++) {
            const vector_step *step = &v->steps[k];
            switch (step->kind) {
            case STEP_RECEIVE: receive(&w, step->bytes); break;
            case STEP_CONSUMED: tl_stream_consumed(&w.mux, w.refs[step->stream], step->consumed); break;
            case STEP_SEND: send_more(&w, step->stream, step->bytes); break;
            }
            if (step->close_code >= 0) {
                CHECK_NAMED(w.losses == 1 && (int)w.lost.code == step->close_code, v->name);
            } else {
                CHECK_NAMED(w.losses == 0 && leaves(&w, step->answers), v->name);
            }
        }
    }
}

static void test_handshake(void)
{
    static world w;
    uint8_t sent[MESSAGE];
    CHECK(vector_messages_count == HANDSHAKE_MESSAGES);
    start(&w);
    w.accept = false;
    for (size_t i = 0; i < vector_messages_count; i++) {
        const vector_message *v = &vector_messages[i];
        if (!v->from_server) {
            size_t n = tl_mux_next_message(&w.mux, sent, sizeof sent, 0);
            CHECK_NAMED(tl_same((tl_span){sent, n}, v->raw), v->events);
            CHECK_NAMED(tl_mux_next_message(&w.mux, sent, sizeof sent, 0) == 0, v->events);
            continue;
        }
        w.told[0] = '\0';
        receive(&w, v->raw);
        CHECK_NAMED(strcmp(w.told[0] != '\0' ? w.told + 1 : w.told, v->events) == 0, v->events);
        if (strstr(v->events, "challenge") != NULL) {
            CHECK(tl_same((tl_span){w.nonce, sizeof w.nonce}, vector_auth_case.nonce));
            CHECK(strcmp(w.server_name, vector_auth_case.server_name) == 0);
            CHECK(authenticate(&w));
        }
        if (strstr(v->events, "open") != NULL) {
            CHECK(tl_stream_peek(&w.mux, w.last_asked).n == 0);
            CHECK(strcmp(w.service, "web") == 0 && tl_stream_accept(&w.mux, w.last_asked));
            CHECK(tl_is(tl_stream_peek(&w.mux, w.last_asked), "hello"));
            CHECK(tl_stream_peer_finished(&w.mux, w.last_asked));
            send_on(&w, w.last_asked, tl_text("world"), true);
        }
    }
    CHECK(w.losses == 1 && w.lost.fault == TL_FAULT_PEER && w.lost.code == TL_CLOSE_NORMAL);
    CHECK(w.overs == 1 && w.how == TL_OVER_FINISHED && w.retry_after_ms == 1000);
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_bad_frames),
        CHECK_TEST(test_credit),
        CHECK_TEST(test_handshake),
    };
    return CHECK_ALL(tests);
}
