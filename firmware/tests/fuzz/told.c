/* Any bytes as what a device is told: a line's end parts messages, the first byte of each says its kind (a accepted,
 * c command, d configuration). Whatever comes, what is believed has its form, and no more is kept than there is room for. */
#include "exact.h"

#include "towline/bytes.h"
#include "towline/command.h"
#include "towline/configuration.h"

static bool kv_get(void *with, const char *key, tl_out *value)
{
    (void)with, (void)key, (void)value;
    return false;
}

static bool kv_set(void *with, const char *key, tl_span value)
{
    (void)with;
    must(strlen(key) <= TL_KV_KEY_MAX && value.n <= TL_KV_VALUE_MAX);
    return true;
}

static bool kv_commit(void *with)
{
    (void)with;
    return true;
}

static int64_t wall_s(void *with)
{
    (void)with;
    return 1763000000;
}

static void reboot(void *with)
{
    ++*(unsigned *)with;
}

static void identify(void *device)
{
    (void)device;
}

static tl_log_level log_level(void *device, tl_log_level level)
{
    (void)device;
    must(level <= TL_LOG_DEBUG);
    return TL_LOG_INFO;
}

static const char *update(void *device, const tl_update *wanted)
{
    (void)device;
    must(wanted->url_n > 0 && wanted->url_n <= TL_UPDATE_URL_MAX && wanted->version_n > 0 && wanted->size > 0);
    return "no";
}

static const tl_port_kv kv = {.get = kv_get, .set = kv_set, .commit = kv_commit};
static const tl_command_work work = {.identify = identify, .log_level = log_level, .update = update};

static void drain(tl_commands *commands)
{
    tl_ack_body body;
    uint8_t room[TL_LEDGER_ERROR_MAX];
    for (unsigned count = 0;; count++) {
        tl_out text = {room, 0, sizeof room, false};
        if (!tl_commands_ack(commands, &body, &text)) {
            return;
        }
        must(count < TL_ACKS && !text.full && (body.stage == TL_STAGE_DONE || (!body.ok && body.result.n == 0)));
        tl_commands_ack_said(commands);
    }
}

static void hear(tl_commands *commands, tl_configuration *configuration, tl_span message, uint64_t now_ms)
{
    tl_told told;
    tl_command command;
    tl_desired desired;
    const tl_span kind = tl_take(&message, 1);
    if (tl_is(kind, "a") && tl_told_accepted(message, &told)) {
        must(told.what == TL_TOLD_REFUSED || told.number.boot <= TL_NUMBER_MAX);
        must(told.what != TL_TOLD_ANSWER || tl_is_prefix((tl_span){told.prefix, told.prefix_n}));
    } else if (tl_is(kind, "c") && tl_told_command(message, &command)) {
        tl_commands_offer(commands, &command, now_ms);
        must(commands->waiting <= TL_COMMANDS_WAITING);
    } else if (tl_is(kind, "d") && tl_told_desired(message, &desired)) {
        tl_configuration_tell(configuration, &desired);
        if (tl_configuration_run(configuration, now_ms)) {
            must(configuration->error == NULL && configuration->running.health_every_s <= TL_HEALTH_MOST_S);
            must(configuration->running.report_s <= TL_READINGS_MOST_S);
        }
    }
    (void)tl_commands_run(commands, now_ms);
    drain(commands);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static tl_ledger ledger;
    static tl_commands commands;
    static tl_configuration configuration;
    unsigned reboots = 0;
    uint64_t now_ms = 1;
    const tl_port_sys sys = {.with = &reboots, .wall_s = wall_s, .reboot = reboot};
    uint8_t *copy = exact(data, size);
    tl_span rest = {copy, size};
    tl_ledger_open(&ledger, &kv);
    tl_commands_open(&commands, &ledger, &sys, &work, NULL);
    tl_configuration_open(&configuration, &kv);
    while (rest.n > 0) {
        hear(&commands, &configuration, tl_split(&rest, '\n'), now_ms);
        now_ms += 10000;
    }
    must(reboots <= size / TL_UUID); /* each has an id of its own */
    free(copy);
    return 0;
}
