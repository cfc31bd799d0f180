/* The joined tunnel: when it dials, whom it answers, what a grant lets in, and how it leaves. */
#include "test_mux_world.h"

#include "towline/tunnel.h"

#include "token_crypto.h"

enum { TAG_KEY_LIST = 10 }; /* HELLO's field (specification, section 5) */
enum { SENT = 1 << 16, ENTRIES = 3, ENTRY = 2600, SETTLED = TL_NETWORK_SETTLE_MS };

#define NOW_S INT64_C(1800000000)

typedef struct {
    char key[TL_KV_KEY_MAX + 1];
    uint8_t bytes[ENTRY];
    size_t n;
} entry;

/* The device's end, and what its port was asked for. */
typedef struct {
    tl_tunnel tunnel;
    tl_stream streams[STREAMS];
    uint8_t rings[STREAMS * TL_STREAM_WINDOW];
    tl_line lines[STREAMS];
    uint8_t small[TL_SMALL_BODY_MAX];
    tl_grants_scratch scratch;
    tl_log_ring log;
    tl_identity identity;
    tl_crypto crypto;
    tl_port port;
    tl_port_sys sys;
    tl_port_link link;
    tl_port_kv kv;
    uint64_t now;
    int64_t wall;
    entry store[ENTRIES];
    bool kv_fails;

    uint32_t opened; /* links so far */
    bool blocked, refuses_to_dial;
    char host[TL_URL_MAX];
    uint8_t room[TL_LINK_MESSAGE_MAX];
    uint8_t sent[SENT];
    size_t sent_n;
    unsigned released;
    bool closed;
    uint16_t status;
    unsigned fills;
    uint64_t next;
} device;

static device d;

/* --- its port --- */

static uint64_t now_ms(void *with)
{
    (void)with;
    return d.now;
}

static int64_t wall_s(void *with)
{
    (void)with;
    return d.wall;
}

static void log_line(void *with, tl_log_level level, tl_span line)
{
    (void)with;
    (void)level;
    (void)line;
}

static uint32_t open_link(void *with, const tl_address *to)
{
    (void)with;
    if (d.refuses_to_dial) {
        return 0;
    }
    memcpy(d.host, to->host.at, to->host.n);
    d.host[to->host.n] = '\0';
    d.closed = false;
    d.sent_n = 0;
    return ++d.opened;
}

static bool take(void *with, tl_out *message)
{
    (void)with;
    *message = (tl_out){d.room, 0, sizeof d.room, false};
    return !d.blocked && !d.closed;
}

static void send_message(void *with, size_t n)
{
    (void)with;
    CHECK(d.sent_n + n <= SENT);
    memcpy(d.sent + d.sent_n, d.room, n);
    d.sent_n += n;
}

static void release(void *with, tl_span message)
{
    (void)with;
    (void)message;
    d.released++;
}

static void close_link(void *with, uint16_t status, const char *reason)
{
    (void)with;
    (void)reason;
    d.closed = true;
    d.status = status;
}

static entry *find(const char *key)
{
    for (size_t i = 0; i < ENTRIES; i++) {
        if (strcmp(d.store[i].key, key) == 0) {
            return &d.store[i];
        }
    }
    return NULL;
}

static bool kv_get(void *with, const char *key, tl_out *value)
{
    const entry *found = find(key);
    (void)with;
    if (found != NULL) {
        tl_put_span(value, (tl_span){found->bytes, found->n});
    }
    return found != NULL && !value->full;
}

static bool kv_set(void *with, const char *key, tl_span value)
{
    entry *found = find(key) != NULL ? find(key) : find("");
    (void)with;
    if (d.kv_fails || found == NULL || value.n > ENTRY) {
        return false;
    }
    strcpy(found->key, key);
    memcpy(found->bytes, value.at, value.n);
    found->n = value.n;
    return true;
}

static bool kv_commit(void *with)
{
    (void)with;
    return !d.kv_fails;
}

static void random_bytes(uint8_t *to, size_t n)
{
    memset(to, 7, n);
}

static bool sign(const uint8_t key[TL_P256_PRIVATE], tl_span message, uint8_t signature[TL_P256_SIGNATURE])
{
    (void)key;
    (void)message;
    memset(signature, 9, TL_P256_SIGNATURE);
    return d.identity.key[0] != 0xFF;
}

/* --- its page --- */

static tl_fill fill_ok(tl_exchange *x, tl_out *out)
{
    const tl_answer answer = {.status = 200, .length = 2, .close = x->close};
    d.fills++;
    tl_answer_head(out, &answer);
    tl_answer_head_end(out);
    tl_put_text(out, "ok");
    return TL_FILL_END;
}

static tl_fill fill_later(tl_exchange *x, tl_out *out)
{
    return d.fills++ == 0 ? TL_FILL_AGAIN : fill_ok(x, out);
}

static const tl_route TABLE[] = {
    {"GET", "/", TL_ANYONE, TL_BODY_NONE, NULL, NULL, fill_ok, NULL},
    {"GET", "/later", TL_ANYONE, TL_BODY_NONE, NULL, NULL, fill_later, NULL},
};

/* --- the server's end --- */

static void tell_event(tl_event_kind kind, uint32_t number, uint16_t status, tl_span bytes)
{
    tl_tunnel_event(&d.tunnel, &(tl_event){.kind = (uint8_t)kind, .status = status, .number = number, .bytes = bytes});
}

static void frame_came(tl_frame_type type, uint32_t stream, tl_span payload)
{
    static uint8_t raw[TL_LINK_MESSAGE_MAX];
    tl_out out = {raw, 0, sizeof raw, false};
    const unsigned before = d.released;
    tl_frame_put(&out, type, stream, payload);
    tell_event(TL_EVENT_LINK_MESSAGE, d.opened, 0, (tl_span){raw, out.n});
    CHECK(!out.full && d.released == before + 1);
}

static void vector_came(const char *name)
{
    tell_event(TL_EVENT_LINK_MESSAGE, d.opened, 0, frame_called(name)->raw);
}

/* The first frame of that type that left; empty: none. */
static tl_span sent_frame(tl_frame_type type)
{
    for (size_t at = 0; at + TL_HEADER_SIZE <= d.sent_n;) {
        tl_span rest = {d.sent + at, d.sent_n - at};
        tl_frame frame;
        if (tl_frame_next(&rest, TL_LINK_MESSAGE_MAX, &frame) != TL_FRAME_OK) {
            break;
        }
        if (frame.type == type) {
            return frame.payload;
        }
        at = d.sent_n - rest.n;
    }
    return (tl_span){NULL, 0};
}

static bool said(const char *text)
{
    tl_log_line line = {0};
    bool found = false;
    while (tl_log_after(&d.log, line.number, &line)) {
        found = found || (line.text.n >= strlen(text) && memcmp(line.text.at, text, strlen(text)) == 0);
    }
    return found;
}

static void run_at(uint64_t now)
{
    d.now = now;
    d.next = tl_tunnel_run(&d.tunnel);
}

static void grant_came(size_t i)
{
    uint8_t raw[TL_LINK_MESSAGE_MAX];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_span(&out, vector_tokens[i].grant_id);
    tl_put_span(&out, vector_tokens[i].token);
    frame_came(TL_GRANT, 0, (tl_span){raw, out.n});
}

static void asked(uint32_t stream, const char *service, size_t grant)
{
    uint8_t raw[128];
    tl_out out = {raw, 0, sizeof raw, false};
    tl_put_span(&out, vector_tokens[grant].grant_id);
    tl_put_u8(&out, (uint8_t)strlen(vector_grants_case.device));
    tl_put_text(&out, vector_grants_case.device);
    tl_put_u8(&out, (uint8_t)strlen(service));
    tl_put_text(&out, service);
    d.sent_n = 0;
    frame_came(TL_OPEN, stream, (tl_span){raw, out.n});
}

static size_t token_called(const char *name)
{
    size_t i = 0;
    while (strcmp(vector_tokens[i].name, name) != 0) {
        i++;
    }
    return i;
}

/* --- begin --- */

static void enrol(void)
{
    static const char urls[] = "wss://tunnel.example/t\n";
    tl_identity *id = &d.identity;
    id->enrolled = true;
    id->device_n = (uint8_t)strlen(vector_grants_case.device);
    memcpy(id->device, vector_grants_case.device, id->device_n);
    memcpy(id->root, vector_grants_case.root.at, sizeof id->root);
    id->validity.from_s = vector_grants_case.earliest_s;
    memcpy(id->urls, urls, sizeof urls - 1);
    id->urls_n = sizeof urls - 1;
}

static void begin(void)
{
    memset(&d, 0, sizeof d);
    d.now = 1000;
    d.wall = NOW_S;
    d.crypto = *counting_crypto();
    d.crypto.random = random_bytes;
    d.crypto.p256_sign = sign;
    d.sys = (tl_port_sys){NULL, now_ms, wall_s, log_line, NULL, NULL, NULL};
    d.link = (tl_port_link){NULL, open_link, take, send_message, release, close_link};
    d.kv = (tl_port_kv){.get = kv_get, .set = kv_set, .commit = kv_commit};
    d.port = (tl_port){.crypto = &d.crypto, .sys = &d.sys, .link = &d.link, .kv = &d.kv};
    tl_log_init(&d.log, &d.sys, TL_LOG_DEBUG);
    const tl_tunnel_parts parts = {
        .port = &d.port,
        .log = &d.log,
        .routes = {TABLE, sizeof TABLE / sizeof TABLE[0]},
        .software = tl_text("test/1"),
        .max_streams = STREAMS,
        .keepalive_ms = 4000,
        .streams = d.streams,
        .rings = d.rings,
        .lines = d.lines,
        .small = d.small,
        .scratch = &d.scratch,
    };
    tl_tunnel_init(&d.tunnel, &parts);
    enrol();
    CHECK(tl_identity_keep_key_list(&d.kv, vector_key_lists[0].text));
}

static void dial(void)
{
    begin();
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity));
    tell_event(TL_EVENT_NETWORK_UP, 0, 0, (tl_span){NULL, 0});
    run_at(d.now + SETTLED);
    CHECK(d.opened == 1 && strcmp(d.host, "tunnel.example") == 0);
}

static void go_up(void)
{
    dial();
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0});
    vector_came("challenge");
    CHECK(sent_frame(TL_AUTH).n > 0);
    vector_came("hello of a server");
    CHECK(d.tunnel.state == TL_TUNNEL_UP && sent_frame(TL_HELLO).n > 0 && said("tunnel open"));
}

static void let_in(uint32_t stream)
{
    grant_came(0);
    asked(stream, "web", 0);
    CHECK(sent_frame(TL_OPENED).at != NULL && tl_tunnel_open_streams(&d.tunnel) == 1);
}

/* --- tests --- */

static void it_dials_when_there_is_a_network(void)
{
    begin();
    run_at(d.now + 60000);
    CHECK(d.opened == 0 && d.next == TL_NEVER && d.tunnel.state == TL_TUNNEL_OFF);
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity) && !tl_tunnel_start(&d.tunnel, &d.identity));
    run_at(d.now);
    CHECK(d.opened == 0 && d.next == TL_NEVER);
    tell_event(TL_EVENT_NETWORK_UP, 0, 0, (tl_span){NULL, 0});
    run_at(d.now);
    CHECK(d.opened == 0 && d.next == d.now + SETTLED);
    d.tunnel.may_dial = false;
    run_at(d.next);
    CHECK(d.opened == 0);
    d.tunnel.may_dial = true;
    tell_event(TL_EVENT_NETWORK_DOWN, 0, 0, (tl_span){NULL, 0});
    run_at(d.now);
    CHECK(d.opened == 0);
    tell_event(TL_EVENT_NETWORK_UP, 0, 0, (tl_span){NULL, 0});
    run_at(d.now + SETTLED);
    CHECK(d.opened == 1 && d.tunnel.state == TL_TUNNEL_DIALLING);
}

static void what_cannot_be_reached_is_dialled_later(void)
{
    dial();
    tell_event(TL_EVENT_LINK_CLOSED, 1, 0, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_WAITING && said("the tunnel server was not reached"));
    run_at(d.now);
    CHECK(d.opened == 1 && d.next > d.now && d.next < d.now + 60000);
    d.refuses_to_dial = true;
    run_at(d.next);
    CHECK(d.opened == 1 && said("cannot dial"));
    d.refuses_to_dial = false;
    run_at(d.next);
    CHECK(d.opened == 2);
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0}); /* old news */
    CHECK(d.tunnel.state == TL_TUNNEL_DIALLING);
}

static void an_identity_without_servers_stays_off(void)
{
    begin();
    d.identity.urls_n = 0;
    CHECK(!tl_tunnel_start(&d.tunnel, &d.identity) && said("no tunnel server is known"));
    CHECK(d.tunnel.state == TL_TUNNEL_OFF);
}

static void a_server_by_another_name_is_told_nothing(void)
{
    dial();
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0});
    d.tunnel.url.host = tl_text("other.example");
    vector_came("challenge");
    CHECK(sent_frame(TL_AUTH).at == NULL && d.closed && d.status == 4010);
    CHECK(said("the server calls itself something else"));
    tell_event(TL_EVENT_LINK_CLOSED, 1, 4010, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_WAITING);
}

static void without_a_signature_it_closes(void)
{
    dial();
    d.identity.key[0] = 0xFF;
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0});
    vector_came("challenge");
    CHECK(sent_frame(TL_AUTH).at == NULL && d.closed && d.status == 4000 + TL_CLOSE_INTERNAL);
}

static void a_grant_lets_a_visitor_in(void)
{
    go_up();
    let_in(1);
    d.sent_n = 0;
    frame_came(TL_DATA, 1, tl_text("GET / HTTP/1.1\r\nHost: d\r\n\r\n"));
    const tl_span answer = sent_frame(TL_DATA);
    CHECK(answer.n > 12 && memcmp(answer.at, "HTTP/1.1 200", 12) == 0 && memcmp(answer.at + answer.n - 2, "ok", 2) == 0);
    d.sent_n = 0;
    d.fills = 0;
    frame_came(TL_DATA, 1, tl_text("GET /later HTTP/1.1\r\nHost: d\r\n\r\n"));
    CHECK(sent_frame(TL_DATA).at == NULL);
    tl_tunnel_wake(&d.tunnel);
    run_at(d.now);
    CHECK(sent_frame(TL_DATA).n > 0);
}

static void without_a_grant_nobody_comes_in(void)
{
    go_up();
    asked(1, "web", 0);
    CHECK(sent_frame(TL_REFUSED).n > 0 && tl_tunnel_open_streams(&d.tunnel) == 0 && said("stream refused"));
    grant_came(token_called("alg none"));
    CHECK(said("grant refused"));
    for (uint32_t stream = 3; stream < 3 + 2 * 40; stream += 2) {
        asked(stream, "web", 0);
    }
    CHECK(d.tunnel.logged == TL_LOGGED_REFUSALS);
    const size_t ssh = token_called("ssh under the same id");
    if (vector_tokens[ssh].code == 0) {
        grant_came(ssh);
        asked(101, "ssh", ssh);
        CHECK(sent_frame(TL_REFUSED).n > 0 && tl_u16(sent_frame(TL_REFUSED).at) == TL_REFUSED_UNKNOWN_SERVICE);
    }
}

static void support_may_be_shut_out(void)
{
    const size_t acting = token_called("act");
    go_up();
    grant_came(acting);
    d.tunnel.support = false;
    asked(1, "web", acting);
    CHECK(sent_frame(TL_REFUSED).n > 0);
    d.tunnel.support = true;
    asked(3, "web", acting);
    CHECK(sent_frame(TL_OPENED).at != NULL);
}

static void support_that_is_in_must_leave(void)
{
    const size_t acting = token_called("act");
    go_up();
    grant_came(0);
    grant_came(acting);
    asked(1, "web", 0);
    asked(3, "web", acting);
    (void)tl_tunnel_run(&d.tunnel);
    CHECK(tl_tunnel_open_streams(&d.tunnel) == 2);
    d.tunnel.support = false;
    (void)tl_tunnel_run(&d.tunnel);
    const tl_span reset = sent_frame(TL_RESET);
    CHECK(tl_tunnel_open_streams(&d.tunnel) == 1 && reset.n == 2 && tl_u16(reset.at) == TL_RESET_GRANT_ENDED);
    d.tunnel.support = true;
    asked(5, "web", acting);
    CHECK(tl_tunnel_open_streams(&d.tunnel) == 2);
}

static void until_the_time_is_known_nobody_comes_in(void)
{
    go_up();
    d.wall = -1;
    grant_came(0);
    asked(1, "web", 0);
    CHECK(tl_u16(sent_frame(TL_REFUSED).at) == TL_GRANT_NO_TIME);
    d.wall = NOW_S;
    asked(3, "web", 0);
    CHECK(sent_frame(TL_OPENED).at != NULL);
}

static void a_revocation_cuts_and_is_kept(void)
{
    go_up();
    let_in(1);
    d.sent_n = 0;
    frame_came(TL_REVOKE, 0, vector_tokens[0].grant_id);
    CHECK(sent_frame(TL_RESET).n > 0 && find(TL_REVOKED_KEY) != NULL && said("a grant was revoked"));
    frame_came(TL_REVOKE, 0, vector_tokens[0].grant_id); /* the same again */
    grant_came(0);
    asked(3, "web", 0);
    CHECK(tl_u16(sent_frame(TL_REFUSED).at) == TL_GRANT_REVOKED);

    /* Over a restart. */
    entry kept[ENTRIES];
    memcpy(kept, d.store, sizeof kept);
    begin();
    memcpy(d.store, kept, sizeof kept);
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity));
    CHECK(tl_grants_offer(&d.tunnel.grants, vector_tokens[0].grant_id.at, vector_tokens[0].token, NOW_S, d.now).code ==
          TL_GRANT_REVOKED);
}

static void revocations_of_unknown_grants_wait_for_the_flash(void)
{
    static const uint8_t unknown[TL_GRANT_ID] = {1, 2, 3};
    go_up();
    run_at(d.now + TL_UNSEEN_SAVE_MS); /* the last one was long ago */
    frame_came(TL_PING, 0, tl_text("12345678"));
    frame_came(TL_REVOKE, 0, (tl_span){unknown, sizeof unknown});
    CHECK(find(TL_REVOKED_KEY) == NULL && d.tunnel.unseen_to_save);
    run_at(d.now);
    CHECK(find(TL_REVOKED_KEY) != NULL && !d.tunnel.unseen_to_save);
    find(TL_REVOKED_KEY)->n = 1;
    frame_came(TL_REVOKE, 0, (tl_span){(const uint8_t *)"another grant's!", TL_GRANT_ID});
    run_at(d.now);
    CHECK(find(TL_REVOKED_KEY)->n == 1 && d.next <= d.now + TL_UNSEEN_SAVE_MS);
    d.kv_fails = true;
    run_at(d.now + TL_UNSEEN_SAVE_MS);
    CHECK(said("revocations cannot be stored"));
}

static void what_is_kept_and_cannot_be_read_is_said(void)
{
    begin();
    find("key_list")->n /= 2;
    strcpy(find("")->key, TL_REVOKED_KEY);
    find(TL_REVOKED_KEY)->n = 3;
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity));
    CHECK(said("the stored key list cannot be used") && said("the stored revocations cannot be read"));
}

static void a_newer_key_list_is_kept(void)
{
    const tl_span old = vector_key_lists[0].text;
    size_t newer = 1;
    while (vector_key_lists[newer].number <= vector_key_lists[0].number) {
        newer++;
    }
    begin();
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity) && find("key_list")->n == old.n);
    const tl_span text = vector_key_lists[newer].text;
    const tl_hello hello = {.limits = {2040, 2048, 4096, 16384, 100, 4000}};
    uint8_t raw[TL_LINK_MESSAGE_MAX];
    tl_out out = {raw, 0, sizeof raw, false};
    tell_event(TL_EVENT_NETWORK_UP, 0, 0, (tl_span){NULL, 0});
    run_at(d.now + SETTLED);
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0});
    vector_came("challenge");
    tl_hello_put(&out, &hello);
    /* A device's own HELLO says nothing of keys. */
    tl_put_u8(&out, TAG_KEY_LIST);
    tl_put_u16(&out, (uint16_t)text.n);
    tl_put_span(&out, text);
    frame_came(TL_HELLO, 0, (tl_span){raw, out.n});
    CHECK(d.tunnel.state == TL_TUNNEL_UP);
    CHECK(find("key_list")->n == text.n && memcmp(find("key_list")->bytes, text.at, text.n) == 0);
}

static void a_grant_that_ends_ends_its_streams(void)
{
    go_up();
    let_in(1);
    const uint64_t end = tl_grants_next_expiry(&d.tunnel.grants);
    d.sent_n = 0;
    d.now = end;
    (void)tl_tunnel_run(&d.tunnel);
    CHECK(sent_frame(TL_RESET).n > 0);
}

static void a_server_that_says_goodbye_is_left(void)
{
    static const uint8_t goaway[] = {0, 0, 0, 1, 0, 0, 0, 0, 0, TL_CLOSE_NORMAL};
    go_up();
    let_in(1);
    frame_came(TL_DATA, 1, tl_text("GET /later HTTP/1.1\r\nHost: d\r\n\r\n"));
    frame_came(TL_GOAWAY, 0, (tl_span){goaway, sizeof goaway});
    CHECK(said("the server says goodbye") && tl_tunnel_open_streams(&d.tunnel) == 1);
    const uint64_t until = d.now + TL_DRAIN_MS; /* the answer is waited for so long */
    run_at(until - 1);
    CHECK(!d.closed && tl_tunnel_open_streams(&d.tunnel) == 1 && d.next <= until);
    run_at(until);
    CHECK(d.closed && d.status == 4000);
    tell_event(TL_EVENT_LINK_CLOSED, 1, 4000, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_WAITING);
    run_at(d.now);
    run_at(d.next);
    CHECK(d.opened == 2);
}

static void a_link_that_breaks_is_dialled_again(void)
{
    go_up();
    let_in(1);
    tell_event(TL_EVENT_LINK_CLOSED, 1, 0, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_WAITING && tl_tunnel_open_streams(&d.tunnel) == 0 && said("tunnel ended"));
    run_at(d.now);
    CHECK(d.next > d.now);
    run_at(d.next);
    CHECK(d.opened == 2);
}

static void its_last_word_has_a_second(void)
{
    go_up();
    d.blocked = true;
    tl_tunnel_stop(&d.tunnel, "enough");
    run_at(d.now);
    CHECK(!d.closed && d.next == d.now + TL_LAST_WORD_MS);
    run_at(d.next);
    CHECK(d.closed && d.status == 4000);
    tell_event(TL_EVENT_LINK_CLOSED, 1, 4000, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_OFF);
    run_at(d.now + 60000);
    CHECK(d.opened == 1);
}

static void it_can_be_stopped_at_any_time(void)
{
    go_up();
    d.sent_n = 0;
    tl_tunnel_stop(&d.tunnel, "enough");
    CHECK(sent_frame(TL_GOAWAY).n > 0 && d.closed && d.status == 4000);

    dial();
    tl_tunnel_stop(&d.tunnel, "enough");
    CHECK(d.closed && d.tunnel.state == TL_TUNNEL_CLOSING);
    tell_event(TL_EVENT_LINK_OPENED, 1, 0, (tl_span){NULL, 0});
    tell_event(TL_EVENT_LINK_CLOSED, 1, 0, (tl_span){NULL, 0});
    CHECK(d.tunnel.state == TL_TUNNEL_OFF);

    begin();
    CHECK(tl_tunnel_start(&d.tunnel, &d.identity));
    tl_tunnel_stop(&d.tunnel, "enough");
    CHECK(d.tunnel.state == TL_TUNNEL_OFF && tl_tunnel_start(&d.tunnel, &d.identity));
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(it_dials_when_there_is_a_network),
        CHECK_TEST(what_cannot_be_reached_is_dialled_later),
        CHECK_TEST(an_identity_without_servers_stays_off),
        CHECK_TEST(a_server_by_another_name_is_told_nothing),
        CHECK_TEST(without_a_signature_it_closes),
        CHECK_TEST(a_grant_lets_a_visitor_in),
        CHECK_TEST(without_a_grant_nobody_comes_in),
        CHECK_TEST(support_may_be_shut_out),
        CHECK_TEST(support_that_is_in_must_leave),
        CHECK_TEST(until_the_time_is_known_nobody_comes_in),
        CHECK_TEST(a_revocation_cuts_and_is_kept),
        CHECK_TEST(revocations_of_unknown_grants_wait_for_the_flash),
        CHECK_TEST(what_is_kept_and_cannot_be_read_is_said),
        CHECK_TEST(a_newer_key_list_is_kept),
        CHECK_TEST(a_grant_that_ends_ends_its_streams),
        CHECK_TEST(a_server_that_says_goodbye_is_left),
        CHECK_TEST(a_link_that_breaks_is_dialled_again),
        CHECK_TEST(its_last_word_has_a_second),
        CHECK_TEST(it_can_be_stopped_at_any_time),
    };
    return CHECK_ALL(tests);
}
