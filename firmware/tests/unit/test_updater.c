/* An image that a command names: what is fetched, what is refused, and what the start after it answers. */
#include "check.h"
#include "memory_kv.h"
#include "signed_image.h"
#include "towline/sending.h"
#include "towline/updater.h"

enum { LARGEST = 4000, BINARY = 1000, WHOLE = TL_IMAGE_HEAD + BINARY };

static memory_kv kv;
static tl_ledger ledger;
static tl_commands commands;
static tl_updater updater;
static tl_ota ota;
static tl_log_ring logged;
static tl_firmware runs;
static tl_port port;
static tl_port_sys sys;
static tl_port_fetch fetch;
static tl_port_ota slots;
static uint8_t whole[WHOLE];
static char asked[TL_UPDATE_URL_MAX];
static unsigned started, stopped, released, aborted, reboots;
static bool busy, trial;

static uint64_t now_ms(void *with)
{
    (void)with;
    return 5;
}

static int64_t wall_s(void *with)
{
    (void)with;
    return -1;
}

static void log_line(void *with, tl_log_level level, tl_span line)
{
    (void)with, (void)level, (void)line;
}

static void restart(void *with)
{
    (void)with;
    reboots++;
}

static uint32_t start(void *with, const tl_fetch_request *request)
{
    (void)with;
    snprintf(asked, sizeof asked, "%s %.*s:%u%.*s", request->method, (int)request->to.host.n,
             (const char *)request->to.host.at, (unsigned)request->to.port, (int)request->to.path.n,
             (const char *)request->to.path.at);
    return busy ? 0 : ++started;
}

static void release(void *with, tl_span data)
{
    (void)with, (void)data;
    released++;
}

static void stop(void *with)
{
    (void)with;
    stopped++;
}

static bool begin(void *with, uint32_t size)
{
    (void)with;
    return size == BINARY;
}

static bool take(void *with, tl_span bytes)
{
    (void)with;
    return bytes.n > 0;
}

static bool finish(void *with)
{
    (void)with;
    return true;
}

static void give_up(void *with)
{
    (void)with;
    aborted++;
}

static bool on_trial(void *with)
{
    (void)with;
    return trial;
}

static const char *update(void *device, const tl_update *wanted)
{
    return tl_updater_begin(device, wanted);
}

static void stop_update(void *device)
{
    tl_updater_stop(device);
}

static tl_update_outcome updated(void *device)
{
    return tl_updater_outcome(device);
}

static const tl_command_work work = {.update = update, .stop_update = stop_update, .updated = updated};

/* Slot and version that run now. */
static void boot(uint8_t slot, uint32_t patch)
{
    kv_restart(&kv);
    sys = (tl_port_sys){.now_ms = now_ms, .wall_s = wall_s, .log = log_line, .reboot = restart};
    fetch = (tl_port_fetch){NULL, start, release, stop};
    slots = (tl_port_ota){NULL, TEST_TARGET, slot, LARGEST, begin, take, finish, give_up, on_trial, on_trial, restart};
    port = (tl_port){.crypto = tl_psa_crypto(), .sys = &sys, .fetch = &fetch, .kv = &kv.port, .ota = &slots};
    runs = test_firmware(patch, 1);
    tl_log_init(&logged, &sys, TL_LOG_DEBUG);
    tl_ota_open(&ota, &(tl_ota_means){&slots, &kv.port, port.crypto, &runs, 10, 1000});
    tl_ledger_open(&ledger, &kv.port);
    tl_updater_init(&updater, &port, &logged, &ota, &commands);
    tl_commands_open(&commands, &ledger, &sys, &work, &updater);
    started = stopped = released = aborted = reboots = 0;
    busy = false;
}

static void fresh(void)
{
    uint8_t binary[BINARY];
    tl_out out = {whole, 0, sizeof whole, false};
    memset(binary, 7, sizeof binary);
    kv_init(&kv);
    trial = false;
    boot(0, 1);
    test_image(&out, 2, 1, (tl_span){binary, sizeof binary});
    CHECK(!out.full && out.n == WHOLE);
}

/* `change`: 1 the hash, 2 the version, 0 nothing. */
static void ask_for(const char *url, uint32_t size, int change)
{
    char text[600], hex[65] = {0};
    uint8_t digest[TL_SHA256];
    tl_out out = {(uint8_t *)hex, 0, 64, false};
    tl_json params, name;
    port.crypto->sha256((tl_span){whole, sizeof whole}, digest);
    digest[0] ^= change == 1;
    tl_put_hex(&out, (tl_span){digest, sizeof digest});
    snprintf(text, sizeof text, "{\"url\":\"%s\",\"size\":%u,\"sha256\":\"%s\",\"version\":\"%s\"}", url,
             (unsigned)size, hex, change == 2 ? "1.0.3" : change == 3 ? "next" : "1.0.2");
    CHECK(tl_json_check(tl_text(text), &params) == TL_JSON_FINE);
    CHECK(tl_json_check(tl_text("\"update\""), &name) == TL_JSON_FINE);
    static uint8_t id;
    const tl_command command = {.id = {++id, 1}, .name = name, .params = params, .ttl_ms = 1000, .timeout_ms = 9000};
    tl_commands_offer(&commands, &command, 5);
    (void)tl_commands_run(&commands, 5);
}

static bool tell(tl_event_kind kind, uint16_t status, uint32_t length, tl_span bytes)
{
    tl_event event = {.kind = (uint8_t)kind, .status = status, .number = started, .bytes = bytes};
    event.length = length;
    if (kind == TL_EVENT_FETCH_FAILED) {
        event.why = "cut";
    }
    return tl_updater_event(&updater, &event);
}

/* The whole answer, in pieces. */
static void deliver(void)
{
    CHECK(tell(TL_EVENT_FETCH_HEAD, 200, WHOLE, (tl_span){0}));
    for (size_t at = 0; at < WHOLE && updater.number != 0; at += 100) {
        const size_t n = WHOLE - at < 100 ? WHOLE - at : 100;
        CHECK(tell(TL_EVENT_FETCH_DATA, 0, 0, (tl_span){whole + at, n}));
    }
    if (updater.number != 0) {
        CHECK(tell(TL_EVENT_FETCH_END, 0, 0, (tl_span){0}));
    }
}

/* How the command ended: "" for ok; NULL: it has not. */
static const char *ended(void)
{
    static char last[100];
    const char *found = NULL;
    tl_ack_body body;
    uint8_t text[TL_LEDGER_ERROR_MAX];
    tl_out out = {text, 0, sizeof text, false};
    while (tl_commands_ack(&commands, &body, &out)) {
        if (body.stage == TL_STAGE_DONE) {
            snprintf(last, sizeof last, "%.*s", (int)body.error.n, body.error.n > 0 ? (const char *)body.error.at : "");
            CHECK(body.ok == (last[0] == 0));
            found = last;
        }
        tl_commands_ack_said(&commands);
        out.n = 0;
    }
    return found;
}

static bool failed(const char *why)
{
    const char *said = ended();
    if (said == NULL || strcmp(said, why) != 0) {
        printf("it said %s\n", said == NULL ? "nothing" : said);
        return false;
    }
    return updater.number == 0 && reboots == 0 && strcmp(tl_ota_name(&ota), "idle") == 0;
}

static const char address[] = "https://gateway.example:8443/images/1";

static void test_fetched_and_proven(void)
{
    fresh();
    ask_for(address, WHOLE, 0);
    CHECK(started == 1 && strcmp(asked, "GET gateway.example:8443/images/1") == 0);
    CHECK(!tl_updater_event(&updater, &(tl_event){.kind = TL_EVENT_FETCH_END, .number = 99}));
    deliver();
    CHECK(released == (WHOLE + 99) / 100 && reboots == 1 && ended() == NULL && ota.state == TL_OTA_VERIFIED);
    trial = true;
    boot(1, 2);
    CHECK(ended() == NULL && ota.state == TL_OTA_TRIAL);
    tl_updater_run(&updater);
    CHECK(ended() == NULL);
    (void)tl_ota_run(&ota, 20, true);
    tl_updater_run(&updater);
    const char *said = ended();
    CHECK(said != NULL && said[0] == 0);
    tl_updater_run(&updater);
    CHECK(ended() == NULL);
}

static void test_rolled_back(void)
{
    fresh();
    ask_for(address, WHOLE, 0);
    deliver();
    boot(0, 1); /* the boot loader took the former one again */
    const char *said = ended();
    CHECK(said != NULL && strcmp(said, "rolled_back") == 0);
}

static void test_cut_off(void)
{
    fresh();
    ask_for(address, WHOLE, 0);
    deliver();
    trial = true;
    boot(1, 2);
    (void)tl_ota_run(&ota, 20, true);
    tl_updater_run(&updater);
    CHECK(ended() != NULL);
    trial = false;
    boot(1, 2);
    /* Another one, and the power goes while it comes: the former update's good end is not its own. */
    ask_for(address, WHOLE, 2);
    CHECK(tell(TL_EVENT_FETCH_HEAD, 200, WHOLE, (tl_span){0}));
    boot(1, 2);
    const char *said = ended();
    CHECK(said != NULL && strcmp(said, "interrupted") == 0);
}

static void test_refused(void)
{
    static const struct {
        const char *url, *why;
        uint32_t size;
        int change;
    } cases[] = {
        {address, "it is another image", WHOLE, 1},
        {address, "it has another version", WHOLE, 2},
        {address, "the version is none", WHOLE, 3},
        {address, "it has another size", WHOLE + 1, 0},
        {"http://gateway.example/x", "the address must be https://", WHOLE, 0},
        {address, "It does not fit.", LARGEST + TL_IMAGE_HEAD + 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fresh();
        ask_for(cases[i].url, cases[i].size, cases[i].change);
        if (updater.number != 0) {
            deliver();
        }
        CHECK_NAMED(failed(cases[i].why), cases[i].why);
    }
    fresh();
    busy = true;
    ask_for(address, WHOLE, 0);
    CHECK(failed("the device is busy"));
    fresh();
    ask_for(address, WHOLE, 0);
    CHECK(tell(TL_EVENT_FETCH_HEAD, 404, TL_LENGTH_NOT_TOLD, (tl_span){0}));
    CHECK(failed("no image is at that address") && stopped == 1);
    fresh();
    ask_for(address, WHOLE, 0);
    CHECK(tell(TL_EVENT_FETCH_FAILED, 0, 0, (tl_span){0}) && failed("it could not be fetched"));
    fresh();
    whole[10] ^= 1; /* within what is signed */
    ask_for(address, WHOLE, 0);
    deliver();
    CHECK(ended() != NULL && reboots == 0 && stopped == 1 && updater.number == 0);
    fresh();
    ask_for(address, WHOLE, 0);
    CHECK(tell(TL_EVENT_FETCH_HEAD, 200, TL_LENGTH_NOT_TOLD, (tl_span){0}));
    CHECK(tell(TL_EVENT_FETCH_DATA, 0, 0, (tl_span){whole, 600}));
    (void)tl_commands_run(&commands, 9006); /* its time is over */
    CHECK(failed("timed_out") && stopped == 1 && aborted == 1);
    CHECK(!tell(TL_EVENT_FETCH_DATA, 0, 0, (tl_span){whole + 600, 10})); /* late: nobody's */
}

int main(void)
{
    static const check_test tests[] = {
        CHECK_TEST(test_fetched_and_proven),
        CHECK_TEST(test_rolled_back),
        CHECK_TEST(test_cut_off),
        CHECK_TEST(test_refused),
    };
    return CHECK_ALL(tests);
}
